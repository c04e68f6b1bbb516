#include "tools/bench/serve_command.h"

#include <absl/time/clock.h>
#include <absl/time/time.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>

#include "tools/bench/load_generator.h"
#include "tools/bench/report.h"
#include "tools/bench/serve_options.h"
#include "tools/bench/workload.h"

namespace spin {
namespace {

constexpr int kBarWidth = 30;
constexpr double kBusyClient = 0.8;
// Independent prompt streams.
constexpr uint64_t kMeasured = 0;
constexpr uint64_t kWarmup = 1;

// One live line on stderr, on a terminal only.
class ProgressBar {
 public:
  explicit ProgressBar(int total) : total_(total), live_(isatty(STDERR_FILENO) == 1) {}

  ~ProgressBar() {
    if (live_) std::fputs("\r\033[K", stderr);
  }

  void Show(const LoadProgress& progress) const {
    if (!live_) return;
    const int filled = kBarWidth * progress.finished / std::max(1, total_);
    const std::string bar = std::string(static_cast<size_t>(filled), '#') +
                            std::string(static_cast<size_t>(kBarWidth - filled), '.');
    const double rate = static_cast<double>(progress.events) / std::max(progress.elapsed_s, 1e-9);
    std::fprintf(
        stderr, "\r\033[K[%s] %d/%d  %d in flight  %.0f events/s  %.0f s%s", bar.c_str(),
        progress.finished, total_, progress.in_flight, rate, progress.elapsed_s,
        progress.failed > 0 ? absl::StrFormat("  %d failed", progress.failed).c_str() : "");
    std::fflush(stderr);
  }

 private:
  int total_;
  bool live_;
};

// A connection a request in flight: the usual soft limit is 1024 files.
void RaiseFileLimit() {
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

std::string FirstError(const LoadResult& result) {
  for (const RequestRecord& record : result.records) {
    if (!record.error.empty()) return record.error;
  }
  return "";
}

absl::Status WarmUp(ServeOptions options, const std::string& model) {
  if (options.num_warmups == 0) return absl::OkStatus();
  options.request_rate = 0;
  SPIN_ASSIGN_OR_RETURN(
      const LoadResult result,
      RunLoad(options, model, MakePrompts(options, options.num_warmups, kWarmup), {}));
  if (result.interrupted) return Cancelled("interrupted");
  if (const std::string error = FirstError(result); !error.empty()) {
    return FailedPrecondition("the warm-up request failed: %s", error);
  }
  return absl::OkStatus();
}

absl::Status WriteFile(const std::string& path, const std::string& text) {
  std::ofstream file(path);
  file << text;
  file.close();
  if (!file) return Unavailable("cannot write %s", path);
  return absl::OkStatus();
}

absl::StatusOr<int> Serve(ServeOptions options) {
  const bool ask_model = options.model.empty();
  if (ask_model) {
    SPIN_ASSIGN_OR_RETURN(options.model, FetchFirstModel(options));
  }
  std::fprintf(stderr, "%s at %s: %d requests of about %s tokens in, %s out\n",
               options.model.c_str(), options.Address().c_str(), options.num_prompts,
               ToString(options.InputLengths()).c_str(), ToString(options.OutputLengths()).c_str());
  RaiseFileLimit();
  SPIN_RETURN_IF_ERROR(WarmUp(options, options.model));

  LoadResult result;
  {
    const ProgressBar bar(options.num_prompts);
    SPIN_ASSIGN_OR_RETURN(
        result,
        RunLoad(options, options.model, MakePrompts(options, options.num_prompts, kMeasured),
                [&](const LoadProgress& progress) { bar.Show(progress); }));
  }
  if (result.interrupted)
    std::fputs("interrupted: figures of the requests that had finished\n", stderr);
  const Report report = MakeReport(options, result);
  std::fputs(ReportTable(options, report).c_str(), stdout);
  if (!options.output_json.empty()) {
    const std::string date = absl::FormatTime("%Y%m%d-%H%M%S", absl::Now(), absl::LocalTimeZone());
    SPIN_RETURN_IF_ERROR(
        WriteFile(options.output_json, ReportJson(options, options.model, report, result, date)));
  }
  if (report.client_cpu_share > kBusyClient) {
    std::fprintf(stderr,
                 "this client used %.0f %% of a core: its own speed may show in the figures\n",
                 report.client_cpu_share * 100);
  }
  if (report.failed > 0) std::fprintf(stderr, "first error: %s\n", FirstError(result).c_str());
  return report.failed > 0 || report.completed == 0 ? 1 : 0;
}

}  // namespace

int RunServeCommand(std::span<const std::string> args) {
  if (std::find(args.begin(), args.end(), "--help") != args.end() ||
      std::find(args.begin(), args.end(), "-h") != args.end()) {
    std::fputs(ServeHelp().c_str(), stdout);
    return 0;
  }
  absl::StatusOr<ServeOptions> options = ParseServeOptions(args);
  if (!options.ok()) {
    std::fprintf(stderr, "spin_bench: %s\n", MessageOf(options.status()).c_str());
    return 2;
  }
  const absl::StatusOr<int> exit_status = Serve(*std::move(options));
  if (!exit_status.ok()) {
    std::fprintf(stderr, "spin_bench: %s\n", MessageOf(exit_status.status()).c_str());
    return 1;
  }
  return *exit_status;
}

}  // namespace spin
