#include "tools/bench/step_bench.h"

#include <absl/strings/numbers.h>
#include <absl/strings/str_split.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "common/check.h"
#include "common/metrics.h"
#include "common/random.h"
#include "server/model_stack.h"
#include "tools/bench/prefill_only_ops.h"
#include "tools/bench/server_flags.h"

namespace spin::bench {
namespace {

constexpr int64_t kTilesAPass = 64;

constexpr int kPrefillRuns = 3;  // the first warms up

struct Options {
  int32_t context = 32768;
  std::vector<int32_t> batches = {1};
  std::vector<int32_t> prefill;
  int32_t steps = 64;
  std::vector<std::string> server;
};

bool ParseList(const std::string& text, std::vector<int32_t>& values) {
  values.clear();
  for (const auto piece : absl::StrSplit(text, ',', absl::SkipEmpty())) {
    int32_t value = 0;
    if (!absl::SimpleAtoi(piece, &value) || value < 1) return false;
    values.push_back(value);
  }
  return true;
}

bool Parse(std::span<const std::string> args, Options& options) {
  std::vector<int32_t> one;
  for (const std::string& arg : args) {
    const auto is = [&](const char* name) { return arg.rfind(name, 0) == 0; };
    const std::string value = arg.substr(arg.find('=') + 1);
    bool ok = true;
    if (is("--context=")) {
      ok = ParseList(value, one) && one.size() == 1;
      if (ok) options.context = one[0];
    } else if (is("--steps=")) {
      ok = ParseList(value, one) && one.size() == 1 && one[0] >= 8;
      if (ok) options.steps = one[0];
    } else if (is("--batches=")) {
      ok = ParseList(value, options.batches);
    } else if (is("--prefill=")) {
      ok = ParseList(value, options.prefill);
    } else {
      options.server.push_back(arg);
    }
    if (!ok) std::fprintf(stderr, "spin_bench step: %s: cannot read it\n", arg.c_str());
    if (!ok) return false;
  }
  std::sort(options.batches.begin(), options.batches.end());
  return true;
}

double Seconds(std::chrono::steady_clock::duration duration) {
  return std::chrono::duration<double>(duration).count();
}

class StepBench {
 public:
  StepBench(ModelStack& stack, PrefillOnlyOps& ops, const Options& options)
      : executor_(stack.executor()),
        memory_(stack.memory()),
        ops_(ops),
        options_(options),
        random_(7) {}

  void Run() {
    for (const int32_t tokens : options_.prefill) TimePrefill(tokens);
    for (const int32_t batch : options_.batches) {
      while (static_cast<int32_t>(rows_.size()) < batch) {
        const std::optional<RowId> row = Start(options_.context);
        if (!row.has_value()) {
          std::printf("batch %d: no room for more than %zu sequences\n", batch, rows_.size());
          return;
        }
        rows_.push_back(*row);
      }
      TimeSteps(batch);
    }
  }

 private:
  // One prompt through the executor; its row, or none where memory has no room.
  std::optional<RowId> Start(int32_t tokens) {
    const int64_t reserve = tokens + int64_t{options_.steps} * 16;
    auto rows = memory_.Admit(tokens, std::min<int64_t>(reserve, MaxLen()), 1);
    while (!rows.has_value() && memory_.room_is_coming()) {  // a demotion makes it
      executor_.ApplyTables(memory_.TakeCommands());
      executor_.Spill(memory_.TakeSpills(executor_.limits().max_spills));
      executor_.AwaitSpill();
      memory_.FinishSpills();
      rows = memory_.Admit(tokens, std::min<int64_t>(reserve, MaxLen()), 1);
    }
    if (!rows.has_value()) return std::nullopt;
    executor_.ApplyTables(memory_.TakeCommands());
    SamplingRow sampling;
    sampling.temperature = 0;
    sampling.prompt_tokens = tokens;
    std::vector<int32_t> prompt(static_cast<size_t>(tokens));
    const auto vocab = static_cast<uint32_t>(executor_.limits().vocab_size);
    for (int32_t& token : prompt) token = static_cast<int32_t>(random_.Below(vocab));
    executor_.StartRow((*rows)[0], sampling, prompt, {});
    executor_.BeginPrefill({{.rows = *rows, .tokens = prompt}});
    prefill_ns_ = 0;
    for (bool done = false; !done;) {
      done = executor_.EnqueuePrefill(kTilesAPass);
      if (done) memory_.FinishPrefill(*rows);
      if (done) executor_.ApplyTables(memory_.TakeCommands());
      executor_.Submit();
      prefill_ns_ += executor_.Collect().prefill_ns;
    }
    return (*rows)[0];
  }

  int64_t MaxLen() const { return executor_.limits().max_model_len; }

  struct PrefillTime {
    double wall = 0, device = 0;  // seconds
  };

  // One prompt, whose memory is given back; none where memory has no room.
  std::optional<PrefillTime> PrefillOnce(int32_t tokens) {
    const auto begin = std::chrono::steady_clock::now();
    const std::optional<RowId> row = Start(tokens);
    const double wall = Seconds(std::chrono::steady_clock::now() - begin);
    if (!row.has_value()) return std::nullopt;
    tiered_ = memory_.usage().tiered_rows > 0;
    memory_.Release(*row);
    executor_.ApplyTables(memory_.TakeCommands());
    return PrefillTime{wall, 1e-9 * static_cast<double>(prefill_ns_)};
  }

  // With Index and Offload and without them, in turn; the fastest of each counts.
  void TimePrefill(int32_t tokens) {
    PrefillTime best[2] = {{1e9, 1e9}, {1e9, 1e9}};
    for (int run = 0; run < kPrefillRuns; ++run) {
      for (const bool without : {false, true}) {
        ops_.leave_out(without);
        const std::optional<PrefillTime> time = PrefillOnce(tokens);
        ops_.leave_out(false);
        if (!time.has_value()) {
          std::printf("prefill of %d tokens: no room\n", tokens);
          return;
        }
        if (run > 0 && time->wall < best[without].wall) best[without] = *time;
      }
    }
    const auto& [whole, bare] = best;
    std::printf(
        "prefill of %d tokens, %s: %.3f s (%.3f s on the device), %.0f tokens/s; without Index and "
        "Offload %.3f s: they add %.2f %%\n",
        tokens, tiered_ ? "Tiered" : "Resident", whole.wall, whole.device, tokens / whole.wall,
        bare.wall, 100 * (whole.wall / bare.wall - 1));
    std::fflush(stdout);
  }

  // Steps as the engine runs them: step t + 1 is submitted before t is collected.
  void TimeSteps(int32_t batch) {
    const std::span<const RowId> rows(rows_.data(), static_cast<size_t>(batch));
    std::vector<double> device_ms;
    const auto launch = [&] {
      executor_.ApplyTables(memory_.TakeCommands());
      executor_.EnqueueDecode(rows);
      memory_.Advance(rows);
      executor_.Submit();
    };
    const int32_t warm = std::min(options_.steps / 2, 16);
    for (int32_t i = 0; i < warm; ++i) {
      launch();
      executor_.Collect();
    }
    const RetrieveCounters before = executor_.retrieve_counters();
    launch();
    const auto begin = std::chrono::steady_clock::now();
    for (int32_t i = 0; i < options_.steps; ++i) {
      launch();
      device_ms.push_back(1e-6 * static_cast<double>(executor_.Collect().decode_ns));
    }
    const double wall = Seconds(std::chrono::steady_clock::now() - begin) / options_.steps;
    executor_.Collect();
    std::nth_element(device_ms.begin(), device_ms.begin() + options_.steps / 2, device_ms.end());
    Report(batch, 1e3 * wall, device_ms[static_cast<size_t>(options_.steps / 2)], before);
  }

  void Report(int32_t batch, double wall_ms, double device_ms, const RetrieveCounters& before) {
    const RetrieveCounters now = executor_.retrieve_counters();
    const auto hits = static_cast<double>(now.hits - before.hits);
    const auto misses = static_cast<double>(now.misses - before.misses);
    const double steps = options_.steps + 1;
    std::printf(
        "decode batch %d at %d: %.2f ms a step (%.2f ms on the device, %.0f %% busy), %.0f "
        "tokens/s",
        batch, options_.context, wall_ms, device_ms, 100 * device_ms / wall_ms,
        batch / wall_ms * 1e3);
    if (hits + misses > 0) {
      std::printf("; hits %.1f %%, %.1f MB fetched a step", 100 * hits / (hits + misses),
                  static_cast<double>(now.bytes - before.bytes) / steps * 1e-6);
    }
    const KvUsage usage = memory_.usage();
    std::printf("; %d resident, %d tiered\n", usage.resident_rows, usage.tiered_rows);
    std::fflush(stdout);
  }

  ModelExecutor& executor_;
  KvCacheManager& memory_;
  PrefillOnlyOps& ops_;
  const Options& options_;
  Random random_;
  std::vector<RowId> rows_;
  int64_t prefill_ns_ = 0;
  bool tiered_ = false;  // the last row of PrefillOnce
};

absl::Status RunWith(const Options& options) {
  SPIN_ASSIGN_OR_RETURN(const ServerConfig config, ConfigFromFlags(options.server));
  SPIN_ASSIGN_OR_RETURN(ModelPlan plan, PlanModel(config));
  auto wrapped = std::make_unique<PrefillOnlyOps>(std::move(plan.backend.ops));
  PrefillOnlyOps& ops = *wrapped;
  plan.backend.ops = std::move(wrapped);
  std::printf("%s", plan.ToText().c_str());
  const auto begin = std::chrono::steady_clock::now();
  MetricsRegistry metrics;
  SPIN_ASSIGN_OR_RETURN(const std::unique_ptr<ModelStack> stack,
                        ModelStack::Create(config, std::move(plan), metrics));
  std::printf("ready in %.1f s\n", Seconds(std::chrono::steady_clock::now() - begin));
  std::fflush(stdout);
  StepBench(*stack, ops, options).Run();
  return absl::OkStatus();
}

}  // namespace

int RunStep(std::span<const std::string> args) {
  Options options;
  if (args.empty() || args[0] == "--help") {
    std::printf(
        "usage: spin_bench step [--context=TOKENS] [--batches=1,8,22] [--steps=N] "
        "[--prefill=TOKENS,...]\n"
        "                       --model DIR [the server's other flags]\n");
    return args.empty() ? 2 : 0;
  }
  if (!Parse(args, options)) return 2;
  const absl::Status status = RunWith(options);
  if (!status.ok()) std::fprintf(stderr, "spin_bench step: %s\n", MessageOf(status).c_str());
  return status.ok() ? 0 : 1;
}

}  // namespace spin::bench
