// Runs a model without an engine, for tests: admit, prefill, decode, on the executor's own seams.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "memory/kv_cache_manager.h"
#include "memory/kv_store.h"
#include "models/model_executor.h"
#include "models/sparse/sparse_options.h"

namespace spin::testing {

// The device that model tests run on: SPIN_TEST_DEVICE, else the CPU.
std::string TestDevice();

struct ModelRunnerOptions {
  std::string device = TestDevice();
  std::string folder;  // a checkpoint; empty: `config` with dummy weights
  ModelConfig config = {};
  DType dtype = DType::kF32;
  SparseOptions sparse = {};
  PlacementPolicy placement = PlacementPolicy::kAuto;
  double min_buffer_ratio = 2;
  double max_buffer_ratio = 0;  // where that is less: min_buffer_ratio, hence always the same slots
  int64_t hbm_bytes = 256 << 20;
  int64_t host_bytes = 256 << 20;
  int32_t max_model_len = 4608;
  int32_t max_batch = 8;
  int32_t tile_tokens = 64;
  Eviction eviction = Eviction::kBucketed;
  RetrieveOverlap overlap = RetrieveOverlap::kNever;
  int32_t max_budget_pages = 0;
  int32_t stage_sample_period = 0;
  bool inline_streams = false;
  bool captures_steps = false;  // CPU: as a device that does (capturing_device.h)
  bool warm_up = false;
  int threads = 2;
  int32_t max_spills = 0;          // extents of one piece of background copies; 0: the executor's
  bool poison_free_pages = false;  // fills both pools with NaN before anything is stored
};

// What a prefill says of one prompt.
struct ScoredPrompt {
  std::vector<float> logprobs;  // of each token after the first; empty if not wanted
  SampledToken next;
};

class ModelRunner {
 public:
  // Aborts the test on any error.
  explicit ModelRunner(const ModelRunnerOptions& options);
  ~ModelRunner();

  // Log-probability of each prompt token after the first.
  std::vector<float> Score(const std::vector<int32_t>& prompt);
  // Prefills all prompts in one batch; log-probabilities of those that are `wanted`.
  std::vector<ScoredPrompt> ScoreBatch(const std::vector<std::vector<int32_t>>& prompts,
                                       const std::vector<bool>& wanted);

  // Prefills all prompts in one batch (or one after another), then decodes them together: `steps`
  // tokens each.
  std::vector<std::vector<int32_t>> Generate(const std::vector<std::vector<int32_t>>& prompts,
                                             int32_t steps, bool one_prefill_each = false);

  // As Generate, with the log-probabilities that sampling() asks for.
  std::vector<std::vector<SampledToken>> GenerateSampled(
      const std::vector<std::vector<int32_t>>& prompts, int32_t steps,
      bool one_prefill_each = false);

  // Prefills one prompt and leaves its `num_sequences` rows admitted, for looking at the cache. `budget_pages` of their
  // own, or 0.
  std::vector<RowId> Start(const std::vector<int32_t>& prompt, int64_t reserve_tokens,
                           int32_t num_sequences = 1, int32_t budget_pages = 0);
  // What the prefill sampled.
  const SampledToken& first_token(RowId row) const { return first_tokens_[row.value]; }
  std::vector<SampledToken> Step(const std::vector<RowId>& rows);
  // What precedes a launch: demotions whose copies have passed, table changes, the next copies.
  void Commit();
  void Release(RowId row);
  // What Lookup has counted of the row, whoever held it, up to the last pass.
  const RetrieveCounters& counters(RowId row) const { return counters_[row.value]; }

  SamplingRow& sampling() { return sampling_; }  // of rows that start from now on; greedy at first
  KvCacheManager& memory() { return *memory_; }
  ModelExecutor& executor() { return *executor_; }
  Device& device() { return *backend_.device; }
  const KvGeometry& geometry() const { return store_->tables().geometry; }
  const MemoryPlan& plan() const { return store_->plan(); }
  // Tables and pools as they are now, copied to host memory; valid until the next call.
  KvTables Snapshot();

 private:
  std::vector<RowId> Admit(const std::vector<int32_t>& prompt, int64_t reserve_tokens,
                           int32_t num_sequences, int32_t budget_pages = 0);
  std::vector<std::vector<SampledToken>> Prefill(std::vector<PrefillItem> items);
  PassResult Finish();
  void PoisonFreePages();

  const int32_t max_spills_;
  SamplingRow sampling_;
  Backend backend_;
  std::unique_ptr<KvStore> store_;
  std::unique_ptr<ModelExecutor> executor_;
  std::unique_ptr<KvCacheManager> memory_;
  std::vector<SampledToken> first_tokens_;
  std::vector<RetrieveCounters> counters_;
  std::vector<Buffer> snapshot_;
};

}  // namespace spin::testing
