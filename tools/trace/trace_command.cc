#include "tools/trace/trace_command.h"

#include <cstdio>

#include "common/status.h"
#include "tools/trace/record_command.h"
#include "tools/trace/replay_command.h"

namespace spin::trace {
namespace {

constexpr const char* kUsage =
    "usage: spin_bench trace record --text=FILE[,FILE...] --output=TRACE [--prompt-tokens=7680]\n"
    "                        [--steps=512] --model DIR --set sparse.algorithm=quest\n"
    "                        [the server's other flags]\n"
    "       spin_bench trace replay TRACE [--buffer-ratio=1,1.25,1.5,2,3,4,5] [--warmup=64]\n"
    "                        [--output-json=FILE]\n";

absl::Status Run(std::span<const std::string> args) {
  if (args[0] == "record") return RunRecord(args.subspan(1));
  if (args[0] == "replay") return RunReplay(args.subspan(1));
  return InvalidArgument("no command '%s'; record or replay", args[0]);
}

}  // namespace

int RunTrace(std::span<const std::string> args) {
  if (args.empty() || args[0] == "--help") {
    std::fprintf(args.empty() ? stderr : stdout, "%s", kUsage);
    return args.empty() ? 2 : 0;
  }
  const absl::Status status = Run(args);
  if (!status.ok()) std::fprintf(stderr, "spin_bench trace: %s\n", MessageOf(status).c_str());
  return status.ok() ? 0 : 1;
}

}  // namespace spin::trace
