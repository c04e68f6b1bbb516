// Python's operators on values: truth, equality, order, membership, arithmetic, subscripts.
//
// What Python raises as TypeError (or Jinja as UndefinedError) is an InvalidArgument status.
#pragma once

#include <string_view>

#include "models/jinja/context.h"
#include "models/jinja/value.h"

namespace spin::jinja {

bool Truthy(const Value& value);

absl::StatusOr<bool> Equal(Context& context, const Value& a, const Value& b);

// Negative, zero or positive, as Python orders numbers, strings, lists and tuples.
absl::StatusOr<int> Compare(Context& context, const Value& a, const Value& b);

// `item in container`.
absl::StatusOr<bool> Contains(Context& context, const Value& container, const Value& item);

// `a op b` for + - * / // % **.
absl::StatusOr<Value> Arithmetic(Context& context, std::string_view op, const Value& a,
                                 const Value& b);
absl::StatusOr<Value> Negate(const Value& value);

// len(value).
absl::StatusOr<int64_t> Length(const Value& value);

// The items that `for` would visit: of a mapping its keys, of a string its characters. Empties a
// generator.
absl::StatusOr<ValueList> Iterate(Context& context, const Value& value);

// An integer argument (booleans count). `what` names it in the error.
absl::StatusOr<int64_t> ToInteger(const Value& value, std::string_view what);

// value[key] by Python's rules alone; undefined when there is no such item.
Value Item(const Value& value, const Value& key);

// value[start:stop:step]; a bound that is None or undefined is left out.
absl::StatusOr<Value> Slice(Context& context, const Value& value, const Value& start,
                            const Value& stop, const Value& step);

// The error of using an undefined value.
absl::Status UndefinedError(const Value& value);

}  // namespace spin::jinja
