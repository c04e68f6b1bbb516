// Operating errors: absl::Status made from a format string, and the two macros that pass it on.
//
// Debian's Abseil has its own string_view, so absl::InvalidArgumentError(std::string_view) does not compile; these
// helpers take absl::StrFormat arguments (std::string_view is fine with %s) and return the ready Status.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/str_format.h>

#include <string>
#include <utility>

namespace spin {

#define SPIN_DEFINE_STATUS_(Name, Code)                                                           \
  template <typename... Args>                                                                     \
  [[nodiscard]] absl::Status Name(const absl::FormatSpec<Args...>& format, const Args&... args) { \
    return absl::Status(absl::StatusCode::Code, absl::StrFormat(format, args...));                \
  }

SPIN_DEFINE_STATUS_(InvalidArgument, kInvalidArgument)
SPIN_DEFINE_STATUS_(NotFound, kNotFound)
SPIN_DEFINE_STATUS_(FailedPrecondition, kFailedPrecondition)
SPIN_DEFINE_STATUS_(ResourceExhausted, kResourceExhausted)
SPIN_DEFINE_STATUS_(Unavailable, kUnavailable)
SPIN_DEFINE_STATUS_(Unimplemented, kUnimplemented)
SPIN_DEFINE_STATUS_(Internal, kInternal)
SPIN_DEFINE_STATUS_(DataLoss, kDataLoss)
SPIN_DEFINE_STATUS_(Cancelled, kCancelled)
SPIN_DEFINE_STATUS_(OutOfRange, kOutOfRange)

#undef SPIN_DEFINE_STATUS_

// The message as a std::string (Status::message() is an absl::string_view).
inline std::string MessageOf(const absl::Status& status) {
  return std::string(status.message());
}

// The same status with "prefix: " before its message.
absl::Status Annotate(const absl::Status& status, const std::string& prefix);

}  // namespace spin

#define SPIN_RETURN_IF_ERROR(expr)               \
  do {                                           \
    absl::Status spin_status_ = (expr);          \
    if (!spin_status_.ok()) return spin_status_; \
  } while (false)

#define SPIN_CONCAT_INNER_(a, b) a##b
#define SPIN_CONCAT_(a, b) SPIN_CONCAT_INNER_(a, b)

// SPIN_ASSIGN_OR_RETURN(auto x, MakeX()): returns the error of a StatusOr, else assigns its value.
#define SPIN_ASSIGN_OR_RETURN(lhs, expr) \
  SPIN_ASSIGN_OR_RETURN_IMPL_(SPIN_CONCAT_(spin_statusor_, __LINE__), lhs, expr)
#define SPIN_ASSIGN_OR_RETURN_IMPL_(tmp, lhs, expr) \
  auto tmp = (expr);                                \
  if (!tmp.ok()) return tmp.status();               \
  lhs = std::move(tmp).value()
