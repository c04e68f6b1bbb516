// ModelExecutor: the Executor over a real model. Owns the weights, the KV store, the workspace and
// the streams.
//
// Compute stream: table changes, prefill tiles, decode steps, in the order of the calls. Copy
// stream: Index and Offload of a prefilled layer, copies of demotions. Gather stream: missing pages of a decode step,
// where that overlaps. Engine thread, except retrieve_counters and the times of stages (any thread).
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "common/status.h"
#include "kernels/device.h"
#include "kernels/ops.h"
#include "memory/kv_store.h"
#include "models/executor.h"
#include "models/model_context.h"
#include "models/overlap_policy.h"
#include "models/pipeline/stage_clock.h"
#include "models/pipeline/step_observer.h"
#include "models/sparse/sparse_algorithm.h"

namespace spin {

struct ModelExecutorOptions {
  int32_t max_batch = 64;             // sequences of one decode step
  int32_t max_prefill_tokens = 8192;  // of one prefill batch; raised to max_model_len
  int32_t max_model_len = 0;
  int32_t tile_tokens = 512;  // tokens of a prefill tile
  Eviction eviction = Eviction::kBucketed;
  RetrieveOverlap overlap = RetrieveOverlap::kNever;
  // The most pages that a row's own budget may have; less than the algorithm's own: that.
  int32_t max_budget_pages = 0;
  // Of so many decode steps one is timed stage by stage, and with that every prefill batch; 0: none.
  int32_t stage_sample_period = 0;
};

class ModelExecutor final : public Executor {
 public:
  // `device`, `ops` and `store` outlive the executor.
  static absl::StatusOr<std::unique_ptr<ModelExecutor>> Create(
      const ModelExecutorOptions& options, const ModelConfig& config, ModelWeights weights,
      std::unique_ptr<SparseAlgorithm> algorithm, Device& device, Ops& ops, KvStore& store);
  ~ModelExecutor() override;

  // Device memory that an executor takes beside the weights and the KV store.
  static int64_t DeviceBytes(const ModelExecutorOptions& options, const ModelConfig& config,
                             const SparseAlgorithm& algorithm, const KvGeometry& geometry,
                             DType dtype, const Ops& ops);

  // Start-up, before anything else is asked: products are timed, and decode steps captured without rows, of the sizes
  // in batch_sizes.h, so that no request pays for what it meets first. Where the device captures nothing there is
  // nothing to do. Blocks; returns how many steps were captured. Engine thread, or whoever will start it.
  int32_t WarmUp();

  const ExecutorLimits& limits() const override;
  void ApplyTables(std::span<const TableCommand> commands) override;
  void Spill(std::span<const TableCommand> copies) override;
  bool SpillPassed() override;
  void AwaitSpill() override;
  void StartRow(RowId row, const SamplingRow& sampling, std::span<const int32_t> prompt,
                std::span<const int32_t> generated) override;
  void SetBudget(RowId row, int32_t pages) override;
  void BeginPrefill(std::vector<PrefillItem> items) override;
  bool prefill_active() const override;
  void CancelPrefill() override;
  int64_t prefill_work_left() const override;
  bool EnqueuePrefill(int64_t max_work) override;
  void EnqueueDecode(std::span<const RowId> rows) override;
  void Submit() override;
  PassResult Collect() override;

  // ---- For measuring tools; the engine calls none of them.

  // The row's next decode step reads `token` instead of what the row sampled last. In the order of the calls, within a
  // pass. REQUIRES: a prefilled row.
  void ForceToken(RowId row, int32_t token);
  // Shows decode steps that are enqueued from now on to `observer` (null: to nobody, the state at start). It outlives
  // its time here. The same steps run slower: they are not captured.
  void Observe(StepObserver* observer);
  // Prefilled layers end without Index and Offload from now on: what they take is then the difference of two times. Not
  // while a prefill runs; nobody decodes what was prefilled so.
  void LeaveOutOffload(bool value);

  // What Lookup and Select counted of all rows, up to the last collected pass.
  RetrieveCounters retrieve_counters() const;
  // Of the decode steps (all stages), and of the prefill batches (kIndex and kAppend), that were timed. A timed step
  // is enqueued kernel by kernel and in order: slower than others, and with the bits of any step in order.
  StageTimes decode_times() const;
  StageTimes prefill_times() const;
  int64_t workspace_bytes() const;

 private:
  struct Impl;
  explicit ModelExecutor(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// The cache geometry that a model with this algorithm has.
KvGeometry MakeGeometry(const ModelConfig& config, const SparseAlgorithm& algorithm, DType dtype,
                        int32_t max_rows, int32_t max_model_len);

}  // namespace spin
