// SPIN_CHECK: programmer errors abort with the condition, the values and the place.
//
// A check states what the code around it relies on. It stays on in every build. No user input may reach a failing
// check: input is validated with absl::Status (see common/status.h) where it enters.
#pragma once

#include <sstream>
#include <string>

namespace spin::internal {

[[noreturn]] void CheckFailed(const char* file, int line, const std::string& what);

template <typename A, typename B>
[[noreturn]] void CheckOpFailed(const char* file, int line, const char* expr, const A& a,
                                const B& b) {
  std::ostringstream out;
  out << expr << " (" << a << " vs. " << b << ")";
  CheckFailed(file, line, out.str());
}

}  // namespace spin::internal

#define SPIN_CHECK(cond)                                                   \
  do {                                                                     \
    if (!(cond)) ::spin::internal::CheckFailed(__FILE__, __LINE__, #cond); \
  } while (false)

#define SPIN_CHECK_OP_(op, a, b)                                                                \
  do {                                                                                          \
    const auto& spin_a_ = (a);                                                                  \
    const auto& spin_b_ = (b);                                                                  \
    if (!(spin_a_ op spin_b_))                                                                  \
      ::spin::internal::CheckOpFailed(__FILE__, __LINE__, #a " " #op " " #b, spin_a_, spin_b_); \
  } while (false)

#define SPIN_CHECK_EQ(a, b) SPIN_CHECK_OP_(==, a, b)
#define SPIN_CHECK_NE(a, b) SPIN_CHECK_OP_(!=, a, b)
#define SPIN_CHECK_LT(a, b) SPIN_CHECK_OP_(<, a, b)
#define SPIN_CHECK_LE(a, b) SPIN_CHECK_OP_(<=, a, b)
#define SPIN_CHECK_GT(a, b) SPIN_CHECK_OP_(>, a, b)
#define SPIN_CHECK_GE(a, b) SPIN_CHECK_OP_(>=, a, b)

// Aborts when `status` (an absl::Status) is not OK: for errors that only a bug can cause.
#define SPIN_CHECK_OK(status)                                                                    \
  do {                                                                                           \
    const auto spin_status_ = (status);                                                          \
    if (!spin_status_.ok())                                                                      \
      ::spin::internal::CheckFailed(__FILE__, __LINE__, #status ": " + spin_status_.ToString()); \
  } while (false)
