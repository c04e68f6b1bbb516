#include "tools/trace/record_trace.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <utility>
#include <vector>

#include "common/check.h"
#include "common/math.h"
#include "common/metrics.h"
#include "memory/admission.h"
#include "models/sparse/sparse_algorithm.h"
#include "tools/bench/whole_prefill.h"
#include "tools/trace/selection_recorder.h"

namespace spin::trace {
namespace {

constexpr float kForce = 1e9f;  // beyond any logit

absl::StatusOr<TraceHeader> MakeHeader(const ModelPlan& plan, const RecordOptions& options) {
  const ModelConfig& config = plan.folder.config;
  const int64_t tokens = int64_t{options.prompt_tokens} + options.num_steps;
  const auto context = static_cast<int32_t>(CeilDiv(tokens, plan.algorithm->page_tokens()));
  TraceHeader header = {
      .num_layers = config.num_layers,
      .num_kv_heads = config.num_kv_heads,
      .page_tokens = plan.algorithm->page_tokens(),
      .prompt_tokens = options.prompt_tokens,
      .num_steps = options.num_steps,
      .model = std::filesystem::path(plan.folder.path).lexically_normal().filename().string(),
      .source = options.source};
  for (int32_t layer = 0; layer < config.num_layers; ++layer) {
    const LayerDemand demand = plan.algorithm->Demand(layer);
    const int32_t pages = demand.fixed_pages + demand.Selectable(context);
    if (demand.whole_context) {
      return InvalidArgument("layer %d takes the whole context: nothing to record", layer);
    }
    if (layer > 0 && (pages != header.budget_pages || demand.fixed_pages != header.fixed_pages)) {
      return InvalidArgument("layer %d has another budget than those before it", layer);
    }
    header.budget_pages = pages;
    header.fixed_pages = demand.fixed_pages;
  }
  return header;
}

absl::Status CheckTokens(const ModelPlan& plan, std::span<const int32_t> tokens,
                         const RecordOptions& options) {
  const int64_t wanted = int64_t{options.prompt_tokens} + options.num_steps;
  if (static_cast<int64_t>(tokens.size()) < wanted) {
    return InvalidArgument("the text has %d tokens; prompt and steps take %d", tokens.size(),
                           wanted);
  }
  if (wanted > plan.max_model_len) {
    return InvalidArgument("prompt and steps take %d tokens, the model's context has %d", wanted,
                           plan.max_model_len);
  }
  for (const int32_t token : tokens) {
    if (token < 0 || token >= plan.folder.config.vocab_size) {
      return InvalidArgument("token %d is outside of the vocabulary", token);
    }
  }
  return absl::OkStatus();
}

// One sequence through the executor.
class Reader {
 public:
  Reader(ModelStack& stack, std::span<const int32_t> tokens, const RecordOptions& options)
      : executor_(stack.executor()), memory_(stack.memory()), tokens_(tokens), options_(options) {}

  absl::Status Prefill() {
    const int32_t prompt = options_.prompt_tokens;
    const auto rows = memory_.Admit(prompt, prompt + int64_t{options_.num_steps}, 1);
    if (!rows.has_value()) return ResourceExhausted("no room for the sequence");
    row_ = (*rows)[0];
    executor_.ApplyTables(memory_.TakeCommands());
    ForceToken(prompt);
    const PassResult result =
        bench::PrefillWhole(executor_, memory_, *rows, {tokens_.begin(), tokens_.begin() + prompt});
    Check(*result.tokens[0].token, prompt);
    return absl::OkStatus();
  }

  void Step(int32_t step) {
    const int32_t next = options_.prompt_tokens + step + 1;
    executor_.ApplyTables(memory_.TakeCommands());
    ForceToken(next);
    executor_.EnqueueDecode({&row_, 1});
    memory_.Advance({&row_, 1});
    executor_.Submit();
    Check(*executor_.Collect().tokens[0].token, next);
  }

  double nats_per_token() const { return nats_ / forced_; }

 private:
  bool Has(int32_t index) const { return index < static_cast<int32_t>(tokens_.size()); }

  // What is sampled next is tokens_[index]; past the end of the text whatever the model says.
  void ForceToken(int32_t index) {
    SamplingRow sampling;
    sampling.temperature = 0;
    sampling.num_logprobs = 0;
    sampling.prompt_tokens = options_.prompt_tokens;
    if (Has(index)) {
      sampling.num_bias = 1;
      sampling.bias_token[0] = tokens_[static_cast<size_t>(index)];
      sampling.bias[0] = kForce;
    }
    executor_.StartRow(row_, sampling, {}, {});
  }

  void Check(const SampledToken& sampled, int32_t index) {
    if (!Has(index)) return;
    SPIN_CHECK_EQ(sampled.token, tokens_[static_cast<size_t>(index)]);
    nats_ -= sampled.logprob;
    ++forced_;
  }

  ModelExecutor& executor_;
  KvCacheManager& memory_;
  const std::span<const int32_t> tokens_;
  const RecordOptions& options_;
  RowId row_;
  double nats_ = 0;
  int32_t forced_ = 0;
};

}  // namespace

absl::StatusOr<Recording> RecordTrace(const ServerConfig& config, ModelPlan plan,
                                      std::span<const int32_t> tokens,
                                      const RecordOptions& options) {
  SPIN_CHECK(options.prompt_tokens >= 1 && options.num_steps >= 1);
  SPIN_ASSIGN_OR_RETURN(const TraceHeader header, MakeHeader(plan, options));
  SPIN_RETURN_IF_ERROR(CheckTokens(plan, tokens, options));
  plan.cache.max_buffer_ratio = plan.cache.min_buffer_ratio;  // so many slots, whatever is free
  MetricsRegistry metrics;
  const int32_t max_selected = MostSelected(*plan.algorithm, plan.cache.plan.geometry);
  SPIN_ASSIGN_OR_RETURN(const std::unique_ptr<ModelStack> stack,
                        ModelStack::Create(config, std::move(plan), metrics));
  SPIN_ASSIGN_OR_RETURN(const std::unique_ptr<SelectionRecorder> recorder,
                        SelectionRecorder::Create(*stack->plan().backend.device, header.num_layers,
                                                  header.num_kv_heads, max_selected));
  stack->executor().Observe(recorder.get());
  Reader reader(*stack, tokens, options);
  SPIN_RETURN_IF_ERROR(reader.Prefill());
  Recording recording = {.trace = SelectionTrace(header)};
  for (int32_t step = 0; step < options.num_steps; ++step) {
    reader.Step(step);
    for (int32_t layer = 0; layer < header.num_layers; ++layer) {
      for (int32_t head = 0; head < header.num_kv_heads; ++head) {
        recording.trace.Append(layer, head, recorder->Recorded(layer, head));
      }
    }
  }
  stack->executor().Observe(nullptr);
  recording.counters = stack->executor().retrieve_counters();
  recording.nats_per_token = reader.nats_per_token();
  if (stack->memory().usage().tiered_rows > 0) {
    const KvCacheOptions& cache = stack->plan().cache;
    const Footprint footprint(cache.plan.geometry, cache.layers, cache.min_buffer_ratio,
                              cache.max_buffer_ratio);
    const int64_t tokens = int64_t{options.prompt_tokens} + options.num_steps;
    recording.num_slots = footprint.NumSlots(0, tokens, footprint.TieredSlotExtents(0, tokens));
  }
  return recording;
}

}  // namespace spin::trace
