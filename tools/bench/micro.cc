#include "tools/bench/micro.h"

#include <absl/strings/numbers.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <string_view>
#include <vector>

#include "common/host_limits.h"
#include "common/thread_pool.h"
#include "kernels/cpu/isa.h"
#include "tools/bench/micro_rows.h"

namespace spin::bench {
namespace {

struct Options {
  int threads = UsableCores();
  std::string filter;
  bool help = false;
};

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Seconds of a call at a quantile (0: best, 0.5: median): samples of at least 2 ms each, for half a
// second.
double SecondsAt(double quantile, const std::function<void(int64_t)>& call) {
  int64_t i = 0;
  const double warm_begin = Now();
  while (i < 3 || Now() - warm_begin < 0.05) call(i++);
  const double once = (Now() - warm_begin) / double(i);
  const int64_t calls = std::max<int64_t>(1, int64_t(0.002 / once));
  std::vector<double> samples;
  const double begin = Now();
  while (samples.size() < 5 || (Now() - begin < 0.5 && samples.size() < 200)) {
    const double t = Now();
    for (int64_t j = 0; j < calls; ++j) call(i++);
    samples.push_back((Now() - t) / double(calls));
  }
  std::sort(samples.begin(), samples.end());
  return samples[size_t(quantile * double(samples.size() - 1))];
}

// Bytes a second that all threads together read from memory, at best. Asks 4 KiB ahead, since the
// hardware stops at every page.
double ReadBandwidth(ThreadPool& pool) {
  const std::vector<uint64_t> data(size_t{256} << 17, 1);
  std::atomic<uint64_t> total{0};
  const double seconds = SecondsAt(0, [&](int64_t) {
    pool.ParallelFor(int64_t(data.size()), 1 << 12, [&](int64_t begin, int64_t end) {
      uint64_t sums[8] = {};
      for (int64_t i = begin; i + 8 <= end; i += 8) {
        __builtin_prefetch(data.data() + i + 512);
        for (int j = 0; j < 8; ++j) sums[j] += data[size_t(i + j)];
      }
      for (const uint64_t sum : sums) total += sum;
    });
  });
  return double(data.size()) * sizeof(uint64_t) / seconds;
}

// bf16 multiply and add operations a second of all threads together.
double DotPeak(ThreadPool& pool) {
  std::atomic<int64_t> flops{0};  // of one call
  const double seconds = SecondsAt(0, [&](int64_t) {
    flops = 0;
    pool.ParallelFor(pool.num_threads(), 1,
                     [&](int64_t, int64_t) { flops += cpu::Kernels().bf16_dots(100000); });
  });
  return double(flops) / seconds;
}

bool Parse(std::span<const std::string> args, Options& options) {
  for (const std::string& arg : args) {
    const auto value_of = [&](std::string_view name) { return arg.substr(name.size()); };
    if (arg.starts_with("--threads=")) {
      if (!absl::SimpleAtoi(value_of("--threads="), &options.threads) || options.threads < 1 ||
          options.threads > 1024) {
        std::fprintf(stderr, "--threads must be 1 to 1024\n");
        return false;
      }
    } else if (arg.starts_with("--filter=")) {
      options.filter = value_of("--filter=");
    } else if (arg.starts_with("--isa=")) {
      const std::vector<cpu::Isa> isas = cpu::SupportedIsas();
      const auto isa = std::find_if(isas.begin(), isas.end(), [&](cpu::Isa i) {
        return value_of("--isa=") == cpu::NameOf(i);
      });
      if (isa == isas.end()) {
        std::fprintf(stderr, "--isa: this CPU runs");
        for (const cpu::Isa i : isas) std::fprintf(stderr, " %s", cpu::NameOf(i));
        std::fprintf(stderr, "\n");
        return false;
      }
      cpu::ForceIsa(*isa);
    } else {
      const bool help = arg == "--help";
      std::fprintf(help ? stdout : stderr,
                   "usage: spin_bench micro [--threads=N] [--filter=TEXT] [--isa=NAME]\n");
      if (help) options.help = true;
      return false;
    }
  }
  return true;
}

}  // namespace

int RunMicro(std::span<const std::string> args) {
  Options options;
  if (!Parse(args, options)) return options.help ? 0 : 2;
  ThreadPool pool(options.threads);
  const double bandwidth = ReadBandwidth(pool);
  const double peak = DotPeak(pool);
  std::printf("%s, %d threads, %s\n", CpuModelName().c_str(), options.threads,
              cpu::NameOf(cpu::ActiveIsa()));
  std::printf("ceilings: read %.1f GB/s, bf16 dot %.0f GFLOP/s\n\n", bandwidth / 1e9, peak / 1e9);
  std::printf("%-40s %10s %8s %9s %10s %7s\n", "kernel", "us", "GB/s", "GFLOP/s", "floor us",
              "floor %");
  for (const MicroRowMaker& maker : MicroRows()) {
    if (maker.name.find(options.filter) == std::string::npos) continue;
    const MicroRow row = maker.make(pool);
    const double seconds = SecondsAt(0.5, row.call);
    const double floor = std::max(row.bytes / bandwidth, row.flops / peak);
    std::printf("%-40s %10.2f %8.1f %9.1f %10.2f %7.1f\n", row.name.c_str(), seconds * 1e6,
                row.bytes / seconds / 1e9, row.flops / seconds / 1e9, floor * 1e6,
                100 * floor / seconds);
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace spin::bench
