#include "common/logging.h"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <memory>

namespace spin {
namespace {

spdlog::level::level_enum ToSpdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

struct Logger {
  Logger() : sink(std::make_shared<spdlog::sinks::stderr_color_sink_mt>()), logger("spin", sink) {
    logger.set_level(spdlog::level::info);
    logger.flush_on(spdlog::level::info);
    logger.set_pattern("%H:%M:%S.%e %^%L%$ %v");
  }
  std::shared_ptr<spdlog::sinks::stderr_color_sink_mt> sink;
  spdlog::logger logger;
  LogFormat format = LogFormat::kText;
};

Logger& TheLogger() {
  static Logger* const logger = new Logger();  // Leaked: threads may log until the process ends.
  return *logger;
}

std::string EscapeJson(const std::string& text) {
  std::string out;
  out.reserve(text.size() + 8);
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += absl::StrFormat("\\u%04x", static_cast<int>(c));
    } else {
      out += c;
    }
  }
  return out;
}

}  // namespace

absl::StatusOr<LogLevel> ParseLogLevel(std::string_view text) {
  if (text == "debug") return LogLevel::kDebug;
  if (text == "info") return LogLevel::kInfo;
  if (text == "warning") return LogLevel::kWarning;
  if (text == "error") return LogLevel::kError;
  return InvalidArgument("'%s' is no log level; use debug, info, warning or error", text);
}

void SetUpLogging(LogLevel level, LogFormat format) {
  Logger& log = TheLogger();
  log.logger.set_level(ToSpdlog(level));
  log.format = format;
  if (format == LogFormat::kJson) {
    log.logger.set_pattern(R"({"time":"%Y-%m-%dT%H:%M:%S.%e%z","level":"%l","message":"%v"})");
  }
}

bool LogEnabled(LogLevel level) {
  return TheLogger().logger.should_log(ToSpdlog(level));
}

void WriteLog(LogLevel level, const std::string& line) {
  Logger& log = TheLogger();
  const std::string& text = log.format == LogFormat::kJson ? EscapeJson(line) : line;
  log.logger.log(ToSpdlog(level), spdlog::string_view_t(text.data(), text.size()));
}

}  // namespace spin
