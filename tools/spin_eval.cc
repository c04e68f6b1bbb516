// spin_eval: the quality of sparse attention at a budget, against dense. tools/eval has the measures, a file each.
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include "common/logging.h"
#include "tools/bench/server_flags.h"
#include "tools/eval/evaluation.h"
#include "tools/eval/options.h"
#include "tools/eval/report.h"

namespace spin::eval {
namespace {

absl::Status WriteFile(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  file.close();
  return file ? absl::OkStatus() : Unavailable("%s: cannot be written", path);
}

absl::Status Run(const Options& options) {
  SPIN_ASSIGN_OR_RETURN(const ServerConfig config, bench::ConfigFromFlags(options.server));
  SetUpLogging(LogLevel::kWarning, config.log_format);
  const auto progress = [](const VariantGroup& group) {
    std::string line = "measuring";
    for (const Variant& variant : group) line += " " + variant.label() + ",";
    line.back() = '\n';
    std::fputs(line.c_str(), stderr);
  };
  SPIN_ASSIGN_OR_RETURN(const Evaluation evaluation, Evaluate(options, config, progress));
  std::printf("%s", ReportTable(options, evaluation).c_str());
  if (options.json.empty()) return absl::OkStatus();
  return WriteFile(options.json, ReportJson(options, evaluation));
}

int Main(const std::vector<std::string>& args) {
  const auto options = ParseOptions(args);
  absl::Status status = options.status();
  if (status.ok() && (options->help || args.empty())) {
    std::fputs(HelpText().c_str(), args.empty() ? stderr : stdout);
    return args.empty() ? 2 : 0;
  }
  if (status.ok()) status = Run(*options);
  if (status.ok()) return 0;
  std::fprintf(stderr, "spin_eval: %s\n", MessageOf(status).c_str());
  return status.code() == absl::StatusCode::kInvalidArgument ? 2 : 1;
}

}  // namespace
}  // namespace spin::eval

int main(int argc, char** argv) {
  return spin::eval::Main({argv + 1, argv + argc});
}
