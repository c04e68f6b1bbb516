// Session: one model under variants that share a cache, ready to run sequences without an engine: prefill, then decode
// steps whose input tokens are sampled (greedy) or forced.
//
// A prompt is prefilled once and decoded once a variant, from rows that share its KV (as n > 1 does). Built as the
// server builds its own (server/model_stack.h), with its configuration. One thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "common/ids.h"
#include "common/metrics.h"
#include "common/status.h"
#include "models/pipeline/step_observer.h"
#include "server/model_stack.h"
#include "server/server_config.h"
#include "tools/eval/variant.h"
#include "tools/eval/variant_switch.h"

namespace spin::eval {

class Session {
 public:
  // Loads the model. `config` says folder, type, device and memory; the session sets the algorithm (variant_switch.h
  // says which variants go together), and room for `batch` prompts of `max_tokens` tokens each, answers included.
  // Errors are those of the server's start.
  static absl::StatusOr<std::unique_ptr<Session>> Create(ServerConfig config,
                                                         std::span<const Variant> variants,
                                                         int32_t batch, int32_t max_tokens);
  ~Session();

  // Prefills a prompt and reserves `max_new` tokens behind it: a row for each variant. Greedy. ResourceExhausted names
  // the memory key.
  absl::StatusOr<std::vector<RowId>> Start(std::span<const int32_t> prompt, int32_t max_new);
  // What the prefill, or the last step, sampled.
  int32_t sampled(RowId row) const { return sampled_[static_cast<size_t>(row.value)]; }
  // The row's next step reads `token` instead.
  void Force(RowId row, int32_t token) { stack_->executor().ForceToken(row, token); }
  // One decode step of at most `batch` rows, under variant `variant`; waits for it.
  void Step(size_t variant, std::span<const RowId> rows);
  void Release(std::span<const RowId> rows);

  // Shows the steps to `observer`; null: to nobody.
  void Observe(StepObserver* observer);

  size_t num_variants() const { return num_variants_; }
  int32_t batch() const { return batch_; }
  const ModelPlan& plan() const { return stack_->plan(); }
  const KvGeometry& geometry() const { return stack_->store().tables().geometry; }
  Device& device() { return *plan().backend.device; }

 private:
  Session() = default;
  void Prefill(std::span<const RowId> rows, std::vector<int32_t> tokens);

  MetricsRegistry metrics_;
  std::unique_ptr<ModelStack> stack_;
  VariantSwitch* switch_ = nullptr;     // the executor's algorithm
  std::unique_ptr<StepObserver> idle_;  // keeps steps, which differ by variant, from being captured
  int32_t batch_ = 0;
  size_t num_variants_ = 0;
  std::vector<int32_t> sampled_;  // by row
};

}  // namespace spin::eval
