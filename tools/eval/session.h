// Session: one model under one variant, ready to run sequences without an engine: prefill, then decode steps whose
// input tokens are sampled (greedy) or forced.
//
// Built as the server builds its own (server/model_stack.h), with its configuration. One thread.
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

namespace spin::eval {

class Session {
 public:
  // Loads the model. `config` says folder, type, device and memory; the session sets the algorithm, and room for
  // `batch` sequences of `max_tokens` tokens each. Errors are those of the server's start.
  static absl::StatusOr<std::unique_ptr<Session>> Create(ServerConfig config,
                                                         const Variant& variant, int32_t batch,
                                                         int32_t max_tokens);
  ~Session();

  // Prefills a prompt and reserves `max_new` tokens behind it. Greedy. ResourceExhausted names the memory key.
  absl::StatusOr<RowId> Start(std::span<const int32_t> prompt, int32_t max_new);
  // What the prefill, or the last step, sampled.
  int32_t sampled(RowId row) const { return sampled_[static_cast<size_t>(row.value)]; }
  // The row's next step reads `token` instead.
  void Force(RowId row, int32_t token) { stack_->executor().ForceToken(row, token); }
  // One decode step of `rows`; waits for it.
  void Step(std::span<const RowId> rows);
  void Release(RowId row);

  // Shows the steps to `observer`; null: to nobody.
  void Observe(StepObserver* observer);

  int32_t batch() const { return plan().executor.max_batch; }
  const ModelPlan& plan() const { return stack_->plan(); }
  const KvGeometry& geometry() const { return stack_->store().tables().geometry; }
  Device& device() { return *plan().backend.device; }

 private:
  Session() = default;
  void Prefill(std::span<const RowId> rows, std::vector<int32_t> tokens);

  MetricsRegistry metrics_;
  std::unique_ptr<ModelStack> stack_;
  std::unique_ptr<StepObserver> idle_;  // of a control: keeps its steps from being captured
  std::vector<int32_t> sampled_;        // by row
};

}  // namespace spin::eval
