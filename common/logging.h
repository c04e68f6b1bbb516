// Log lines: SPIN_LOG(INFO, "loaded %d layers in %.1f s", n, s). Formats with absl::StrFormat, writes through spdlog.
//
// Any thread. logging.cc is the only file that sees spdlog. Lines go to stderr, so that stdout stays for results.
#pragma once

#include <absl/strings/str_format.h>

#include <string>
#include <string_view>

#include "common/status.h"

namespace spin {

enum class LogLevel { kDebug, kInfo, kWarning, kError };
enum class LogFormat { kText, kJson };

// "debug", "info", "warning", "error".
absl::StatusOr<LogLevel> ParseLogLevel(std::string_view text);

// Once at start. Until then: info, text.
void SetUpLogging(LogLevel level, LogFormat format);

bool LogEnabled(LogLevel level);
void WriteLog(LogLevel level, const std::string& line);

}  // namespace spin

#define SPIN_LOG_LEVEL_DEBUG ::spin::LogLevel::kDebug
#define SPIN_LOG_LEVEL_INFO ::spin::LogLevel::kInfo
#define SPIN_LOG_LEVEL_WARNING ::spin::LogLevel::kWarning
#define SPIN_LOG_LEVEL_ERROR ::spin::LogLevel::kError

#define SPIN_LOG(severity, ...)                                                  \
  do {                                                                           \
    if (::spin::LogEnabled(SPIN_LOG_LEVEL_##severity))                           \
      ::spin::WriteLog(SPIN_LOG_LEVEL_##severity, absl::StrFormat(__VA_ARGS__)); \
  } while (false)
