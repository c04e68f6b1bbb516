// spin_bench: the measuring client. Each subcommand is one library under tools/bench/ and one row here.
#include <cstdio>
#include <span>
#include <string>
#include <vector>

#include "tools/bench/kernel_bench.h"
#include "tools/bench/micro.h"
#include "tools/bench/serve_command.h"
#include "tools/bench/step_bench.h"
#include "tools/trace/trace_command.h"

namespace {

struct Subcommand {
  const char* name;
  const char* summary;
  int (*run)(std::span<const std::string> args);
};

constexpr Subcommand kSubcommands[] = {
    {"serve", "latency and throughput of an OpenAI-compatible server under load",
     spin::RunServeCommand},
    {"micro", "the time of each CPU kernel beside its measured floor", spin::bench::RunMicro},
    {"kernels",
     "the time of each kernel family at an 8B model's sizes, as a share of what the device can do",
     spin::bench::RunKernels},
    {"step", "prefill and decode step times of a model, without a server", spin::bench::RunStep},
    {"trace", "records what a model selects, and replays it through cache policies",
     spin::trace::RunTrace},
};

void PrintUsage(std::FILE* out) {
  std::fputs("usage: spin_bench COMMAND [flags]\n\n", out);
  for (const Subcommand& command : kSubcommands)
    std::fprintf(out, "  %-8s %s\n", command.name, command.summary);
  std::fputs("\nspin_bench COMMAND --help says more.\n", out);
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> args(argv + 1, argv + argc);
  if (args.empty() || args[0] == "--help" || args[0] == "-h") {
    PrintUsage(args.empty() ? stderr : stdout);
    return args.empty() ? 2 : 0;
  }
  for (const Subcommand& command : kSubcommands) {
    if (args[0] == command.name) return command.run(std::span(args).subspan(1));
  }
  std::fprintf(stderr, "spin_bench: no command '%s'\n", args[0].c_str());
  PrintUsage(stderr);
  return 2;
}
