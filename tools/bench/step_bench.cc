#include "tools/bench/step_bench.h"

#include <absl/strings/numbers.h>
#include <absl/strings/str_split.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/check.h"
#include "common/metrics.h"
#include "common/random.h"
#include "common/status.h"
#include "server/model_stack.h"
#include "tools/bench/server_flags.h"
#include "tools/bench/step_selection.h"
#include "tools/bench/whole_prefill.h"

namespace spin::bench {
namespace {

constexpr int kPrefillRuns = 3;  // the first warms up

struct Options {
  int32_t context = 32768;
  std::vector<int32_t> batches = {1};
  std::vector<int32_t> prefill;
  int32_t steps = 64;
  int32_t warmup = 16;
  std::vector<std::string> selections = {"model"};
  std::vector<std::string> server;

  // Steps that a sequence may decode in all.
  int32_t run_steps() const { return static_cast<int32_t>(batches.size()) * (warmup + 1 + steps); }
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

bool ParseNumber(const std::string& text, int32_t least, int32_t& number) {
  return absl::SimpleAtoi(text, &number) && number >= least;
}

// An argument of this command, or one of the server. False: it cannot be read.
bool ParseOne(const std::string& arg, Options& options) {
  const auto is = [&](const char* name) { return arg.rfind(name, 0) == 0; };
  const std::string value = arg.substr(arg.find('=') + 1);
  if (is("--context=")) return ParseNumber(value, 1, options.context);
  if (is("--steps=")) return ParseNumber(value, 8, options.steps);
  if (is("--warmup=")) return ParseNumber(value, 1, options.warmup);
  if (is("--batches=")) return ParseList(value, options.batches);
  if (is("--prefill=")) return ParseList(value, options.prefill);
  if (is("--selection=")) {
    options.selections = absl::StrSplit(value, ',', absl::SkipEmpty());
    return !options.selections.empty() && std::ranges::all_of(options.selections, IsSelection);
  }
  options.server.push_back(arg);
  return true;
}

bool Parse(std::span<const std::string> args, Options& options) {
  for (const std::string& arg : args) {
    if (ParseOne(arg, options)) continue;
    std::fprintf(stderr, "spin_bench step: %s: cannot read it\n", arg.c_str());
    return false;
  }
  std::sort(options.batches.begin(), options.batches.end());
  return true;
}

double Seconds(std::chrono::steady_clock::duration duration) {
  return std::chrono::duration<double>(duration).count();
}

// What one batch size took.
struct StepTimes {
  std::string selection;
  int32_t batch = 0;
  double wall_ms = 0, device_ms = 0;
  double hit_ratio = 1;   // of the Tiered rows' selected pages; 1 without any
  double fetched_mb = 0;  // a step
  KvUsage usage = {};
};

class StepBench {
 public:
  StepBench(ModelStack& stack, const Options& options, const std::string& selection)
      : executor_(stack.executor()),
        memory_(stack.memory()),
        page_bytes_(static_cast<uint64_t>(stack.store().tables().geometry.page_bytes())),
        options_(options),
        selection_(selection),
        random_(7) {}

  void TimePrefills() {
    for (const int32_t tokens : options_.prefill) TimePrefill(tokens);
  }

  std::vector<StepTimes> TimeBatches() {
    std::vector<StepTimes> times;
    for (const int32_t batch : options_.batches) {
      while (static_cast<int32_t>(rows_.size()) < batch) {
        const std::optional<RowId> row = Start(options_.context);
        if (!row.has_value()) {
          std::printf("batch %d: no room for more than %zu sequences\n", batch, rows_.size());
          return times;
        }
        rows_.push_back(*row);
      }
      times.push_back(TimeSteps(batch));
      Print(times.back());
    }
    return times;
  }

 private:
  // One prompt through the executor; its row, or none where memory has no room.
  std::optional<RowId> Start(int32_t tokens) {
    const int64_t reserve = tokens + int64_t{options_.run_steps()};
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
    prefill_ns_ = PrefillWhole(executor_, memory_, *rows, std::move(prompt)).prefill_ns;
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
        executor_.LeaveOutOffload(without);
        const std::optional<PrefillTime> time = PrefillOnce(tokens);
        executor_.LeaveOutOffload(false);
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
  StepTimes TimeSteps(int32_t batch) {
    const std::span<const RowId> rows(rows_.data(), static_cast<size_t>(batch));
    std::vector<double> device_ms;
    const auto launch = [&] {
      executor_.ApplyTables(memory_.TakeCommands());
      executor_.EnqueueDecode(rows);
      memory_.Advance(rows);
      executor_.Submit();
    };
    for (int32_t i = 0; i < options_.warmup; ++i) {
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
    StepTimes times = {.selection = selection_,
                       .batch = batch,
                       .wall_ms = 1e3 * wall,
                       .device_ms = device_ms[static_cast<size_t>(options_.steps / 2)],
                       .usage = memory_.usage()};
    const RetrieveCounters counted = executor_.retrieve_counters() - before;
    const auto selected = static_cast<double>(counted.hits + counted.misses);
    if (selected > 0) times.hit_ratio = static_cast<double>(counted.hits) / selected;
    times.fetched_mb =
        1e-6 * static_cast<double>(counted.Bytes(page_bytes_)) / (options_.steps + 1);
    return times;
  }

  void Print(const StepTimes& times) const {
    std::printf(
        "decode batch %d at %d: %.2f ms a step (%.2f ms on the device, %.0f %% busy), %.0f "
        "tokens/s",
        times.batch, options_.context, times.wall_ms, times.device_ms,
        100 * times.device_ms / times.wall_ms, times.batch / times.wall_ms * 1e3);
    if (times.usage.tiered_rows > 0) {
      std::printf("; hits %.1f %%, %.1f MB fetched a step", 100 * times.hit_ratio,
                  times.fetched_mb);
    }
    std::printf("; %d resident, %d tiered\n", times.usage.resident_rows, times.usage.tiered_rows);
    std::fflush(stdout);
  }

  ModelExecutor& executor_;
  KvCacheManager& memory_;
  const uint64_t page_bytes_;
  const Options& options_;
  const std::string selection_;
  Random random_;
  std::vector<RowId> rows_;
  int64_t prefill_ns_ = 0;
  bool tiered_ = false;  // the last row of PrefillOnce
};

// Each selection has a model of its own in turn: they start alike.
absl::StatusOr<std::vector<StepTimes>> RunSelection(const std::string& selection, bool is_first,
                                                    const Options& options,
                                                    const ServerConfig& config) {
  SPIN_ASSIGN_OR_RETURN(ModelPlan plan, PlanModel(config));
  if (is_first) std::printf("%s", plan.ToText().c_str());
  if (options.context + options.run_steps() > plan.max_model_len) {
    return InvalidArgument("model.max_model_len: %d is less than the context of %d and %d steps",
                           plan.max_model_len, options.context, options.run_steps());
  }
  plan.cache.max_buffer_ratio = plan.cache.min_buffer_ratio;  // so many slots, whatever is free
  SPIN_RETURN_IF_ERROR(SetSelection(selection, options.context, options.run_steps(), plan));
  const auto begin = std::chrono::steady_clock::now();
  MetricsRegistry metrics;
  SPIN_ASSIGN_OR_RETURN(const std::unique_ptr<ModelStack> stack,
                        ModelStack::Create(config, std::move(plan), metrics));
  std::printf("ready in %.1f s\n", Seconds(std::chrono::steady_clock::now() - begin));
  std::fflush(stdout);
  StepBench bench(*stack, options, selection);
  if (is_first) bench.TimePrefills();
  if (options.selections.size() > 1) std::printf("selection: %s\n", selection.c_str());
  return bench.TimeBatches();
}

void PrintTable(const std::vector<StepTimes>& all) {
  std::printf("\n%6s %9s %12s %12s %12s %9s %7s  selection\n", "batch", "hits %", "MB fetched",
              "ms a step", "ms (device)", "resident", "tiered");
  for (const StepTimes& times : all) {
    std::printf("%6d %9.2f %12.1f %12.2f %12.2f %9d %7d  %s\n", times.batch, 100 * times.hit_ratio,
                times.fetched_mb, times.wall_ms, times.device_ms, times.usage.resident_rows,
                times.usage.tiered_rows, times.selection.c_str());
  }
}

absl::Status RunWith(const Options& options) {
  SPIN_ASSIGN_OR_RETURN(const ServerConfig config, ConfigFromFlags(options.server));
  std::vector<StepTimes> all;
  for (const std::string& selection : options.selections) {
    const bool is_first = &selection == &options.selections.front();
    SPIN_ASSIGN_OR_RETURN(const std::vector<StepTimes> times,
                          RunSelection(selection, is_first, options, config));
    all.insert(all.end(), times.begin(), times.end());
  }
  std::ranges::stable_sort(all, {}, &StepTimes::batch);
  if (options.selections.size() > 1) PrintTable(all);
  return absl::OkStatus();
}

}  // namespace

int RunStep(std::span<const std::string> args) {
  Options options;
  if (args.empty() || args[0] == "--help") {
    std::printf(
        "usage: spin_bench step [--context=TOKENS] [--batches=1,8,22] [--steps=N] [--warmup=N]\n"
        "                       [--prefill=TOKENS,...] [--selection=model,random,trace:FILE]\n"
        "                       --model DIR [the server's other flags]\n");
    return args.empty() ? 2 : 0;
  }
  if (!Parse(args, options)) return 2;
  const absl::Status status = RunWith(options);
  if (!status.ok()) std::fprintf(stderr, "spin_bench step: %s\n", MessageOf(status).c_str());
  return status.ok() ? 0 : 1;
}

}  // namespace spin::bench
