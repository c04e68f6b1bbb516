// What one render carries through every operation: its budget, its clock, and the objects to take
// apart at the end.
//
// One render, one Context, one thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/status.h"
#include "models/jinja/limits.h"
#include "models/jinja/value.h"

namespace spin::jinja {

// Seconds since 1970, for strftime_now.
using NowSeconds = std::function<int64_t()>;

struct Context {
  int64_t steps_left = kMaxSteps;
  int64_t bytes_left = static_cast<int64_t>(kMaxTotalBytes);
  NowSeconds now_seconds;
  std::optional<std::string> raised;  // the words of raise_exception
  // Namespaces and macros may point at each other in circles; the evaluator opens the circles when
  // it is done.
  std::vector<std::shared_ptr<Object>> objects;

  // Pays for `n` nodes or items.
  absl::Status Step(int64_t n = 1) {
    steps_left -= n;
    if (steps_left >= 0) return absl::OkStatus();
    return InvalidArgument("the template makes more than %d steps", kMaxSteps);
  }

  // Pays for a string of `n` bytes; call it before making one that may be large.
  absl::Status Bytes(size_t n) {
    if (n > kMaxStringBytes) return InvalidArgument("a string of %d bytes is too long", n);
    bytes_left -= static_cast<int64_t>(n);
    if (bytes_left >= 0) return absl::OkStatus();
    return InvalidArgument("the template makes more than %d bytes of text", kMaxTotalBytes);
  }

  // `text` as a value, paid for.
  absl::StatusOr<Value> NewString(std::string text) {
    SPIN_RETURN_IF_ERROR(Bytes(text.size()));
    return Value::String(std::move(text));
  }

  // A list (or tuple, ...) as a value, paid for, not nested too deeply.
  absl::StatusOr<Value> NewSequence(SequenceType type, ValueList items, std::string repr = "") {
    SPIN_RETURN_IF_ERROR(Step(static_cast<int64_t>(items.size())));
    return Bounded(Value::Sequence(type, std::move(items), std::move(repr)));
  }
  absl::StatusOr<Value> NewList(ValueList items) {
    return NewSequence(SequenceType::kList, std::move(items));
  }

  static absl::StatusOr<Value> Bounded(Value value) {
    if (value.depth() <= kMaxValueDepth) return value;
    return InvalidArgument("values are nested more than %d levels deep", kMaxValueDepth);
  }
};

}  // namespace spin::jinja
