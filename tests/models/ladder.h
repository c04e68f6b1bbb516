// What the tests of the correctness ladder share: the small recorded checkpoints, random prompts,
// and equality of generations to the bit.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "common/mapped_file.h"
#include "common/random.h"
#include "memory/memory_plan.h"
#include "models/model_config.h"
#include "tests/models/checkpoint_files.h"
#include "tests/models/seer_gates_file.h"
#include "tests/testing/model_runner.h"

namespace spin::testing {

inline const std::string kLlama = "tests/models/testdata/golden/llama_gqa3_llama3rope";
inline const std::string kQwen3 = "tests/models/testdata/golden/qwen3_d128_yarn_sharded";

using Generations = std::vector<std::vector<SampledToken>>;

inline std::vector<int32_t> RandomPrompt(int32_t length, uint64_t seed) {
  constexpr uint32_t kVocab = 320;  // of the recorded checkpoints
  Random random(seed);
  std::vector<int32_t> tokens(length);
  for (int32_t& token : tokens) token = static_cast<int32_t>(random.Below(kVocab));
  return tokens;
}

// Small pools: they are filled where a test poisons them.
inline ModelRunnerOptions SmallRunner(const std::string& folder, DType dtype = DType::kF32) {
  ModelRunnerOptions options;
  options.folder = folder;
  options.dtype = dtype;
  options.hbm_bytes = 64 << 20;
  options.host_bytes = 48 << 20;
  options.max_model_len = 4096;
  options.tile_tokens = 128;
  return options;
}

// A budget far below the contexts, and hardly a buffer: misses at nearly every step.
inline ModelRunnerOptions Starved(ModelRunnerOptions options) {
  options.placement = PlacementPolicy::kTiered;
  options.min_buffer_ratio = 0.5;
  return options;
}

// Pools of just so many extents: tests choose who fits.
inline void SetPools(ModelRunnerOptions& options, int32_t slot_extents, int32_t host_extents) {
  const KvGeometry geometry = ModelRunner(options).geometry();
  options.hbm_bytes = HbmBytes(geometry, slot_extents, host_extents);
  options.host_bytes = host_extents * geometry.extent_bytes();
}

inline SparseOptions Quest(int32_t budget_tokens, int32_t page_tokens = 16) {
  SparseOptions sparse;
  sparse.algorithm = "quest";
  sparse.quest_page_tokens = page_tokens;
  sparse.budget_tokens = budget_tokens;
  return sparse;
}

// A tail, two pages of window and four outliers beside the selection: small, so that a small budget leaves pages out.
inline SparseOptions ShadowKv(int32_t budget_tokens) {
  SparseOptions sparse;
  sparse.algorithm = "shadowkv";
  sparse.budget_tokens = budget_tokens;
  sparse.shadowkv_outlier_pages = 4;
  sparse.shadowkv_local_pages = 2;
  return sparse;
}

// And keys that are rebuilt, of half the dimensions that the checkpoints' keys have.
inline constexpr int32_t kFullRank = 128;
inline SparseOptions LowRankKeys(int32_t budget_tokens, int32_t rank = kFullRank / 2) {
  SparseOptions sparse = ShadowKv(budget_tokens);
  sparse.shadowkv_rank = rank;
  return sparse;
}

// Random gates for the model in `folder`, written once a process.
inline SparseOptions Seer(int32_t budget_tokens, const std::string& folder, int32_t block = 16) {
  static std::map<std::string, std::string> files;
  std::string& file = files[folder + std::to_string(block)];
  if (file.empty()) {
    const auto config = ParseModelConfig(ReadTextFile(folder + "/config.json").value()).value();
    file = ScratchFolder("gates_" + std::to_string(files.size())) + "/gates.safetensors";
    const SparseModelShape model = {.num_layers = config.num_layers,
                                    .num_q_heads = config.num_q_heads,
                                    .num_kv_heads = config.num_kv_heads,
                                    .head_dim = config.head_dim};
    WriteFile(file, MakeSeerGates(model, block).Bytes());
  }
  SparseOptions sparse;
  sparse.algorithm = "seer";
  sparse.budget_tokens = budget_tokens;
  sparse.seer_gates = file;
  return sparse;
}

// Few clusters and no floor, so that a short context leaves some out.
inline SparseOptions RetroInfer(int32_t retrieve_permille = 60, int32_t estimate_permille = 232) {
  SparseOptions sparse;
  sparse.algorithm = "retroinfer";
  sparse.retroinfer_retrieve_permille = retrieve_permille;
  sparse.retroinfer_estimate_permille = estimate_permille;
  sparse.retroinfer_min_budget_tokens = 0;
  return sparse;
}

// The algorithm of that name ("low-rank keys": ShadowKV with them; "large quest": pages of 64) with a budget, for the
// model in `folder`; dense has none, RetroInfer a share of its own.
inline SparseOptions Sparse(const std::string& algorithm, int32_t budget_tokens,
                            const std::string& folder = kLlama) {
  if (algorithm == "quest") return Quest(budget_tokens);
  if (algorithm == "large quest") return Quest(budget_tokens, 64);
  if (algorithm == "shadowkv") return ShadowKv(budget_tokens);
  if (algorithm == "low-rank keys") return LowRankKeys(budget_tokens);
  if (algorithm == "seer") return Seer(budget_tokens, folder);
  if (algorithm == "retroinfer") return RetroInfer();
  return {};
}

// Greedy, with the most alternatives reported.
inline Generations Run(ModelRunner& runner, const std::vector<std::vector<int32_t>>& prompts,
                       int32_t steps, bool one_prefill_each = false) {
  runner.sampling().num_logprobs = kMaxLogprobs;
  return runner.GenerateSampled(prompts, steps, one_prefill_each);
}

inline Generations Run(const ModelRunnerOptions& options,
                       const std::vector<std::vector<int32_t>>& prompts, int32_t steps) {
  ModelRunner runner(options);
  return Run(runner, prompts, steps);
}

// Rows with budgets of their own (pages; 0: the server's), decoded together.
inline Generations RunWithBudgets(const ModelRunnerOptions& options,
                                  const std::vector<std::vector<int32_t>>& prompts,
                                  const std::vector<int32_t>& budgets, int32_t steps) {
  ModelRunner runner(options);
  std::vector<RowId> rows;
  Generations out;
  for (size_t i = 0; i < prompts.size(); ++i) {
    const auto reserve = static_cast<int64_t>(prompts[i].size()) + steps;
    rows.push_back(runner.Start(prompts[i], reserve, 1, budgets[i])[0]);
    out.push_back({runner.first_token(rows.back())});
  }
  for (int32_t step = 1; step < steps; ++step) {
    const std::vector<SampledToken> tokens = runner.Step(rows);
    for (size_t i = 0; i < rows.size(); ++i) out[i].push_back(tokens[i]);
  }
  return out;
}

// The same bits, alternatives and log-probabilities included.
inline bool SameBits(const SampledToken& a, const SampledToken& b) {
  return a.token == b.token && std::memcmp(&a.logprob, &b.logprob, sizeof(float)) == 0 &&
         a.num_top == b.num_top && std::memcmp(a.top_token, b.top_token, a.num_top * 4) == 0 &&
         std::memcmp(a.top_logprob, b.top_logprob, a.num_top * 4) == 0;
}

// How far apart log-probabilities may be where two runs sum the same tokens in another order: not at all on the CPU,
// whose order is fixed; rounding on a GPU, whose kernels split by shape.
inline float Rounding(DType dtype) {
  if (TestDevice() == "cpu") return 0;
  return dtype == DType::kF32 ? 1e-3f : 0.1f;
}

// What another order of the same tokens may do to a log-probability.
inline float OrderRounding(DType dtype) {
  return dtype == DType::kF32 ? 1e-3f : 0.1f;
}

// Equal but for `rounding` in the log-probabilities.
inline bool Close(const SampledToken& a, const SampledToken& b, float rounding) {
  if (rounding == 0) return SameBits(a, b);
  return a.token == b.token && std::abs(a.logprob - b.logprob) <= rounding;
}

// The two best tokens are so close that rounding may choose either: what follows may part.
inline bool Tie(const SampledToken& a, float rounding) {
  return a.num_top > 1 && a.top_logprob[0] - a.top_logprob[1] <= 2 * rounding;
}

// Where two generations part: "" when nowhere.
inline std::string Difference(const Generations& a, const Generations& b, float rounding = 0) {
  if (a.size() != b.size()) return "another number of sequences";
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a[i].size() != b[i].size()) return "another number of tokens";
    for (std::size_t t = 0; t < a[i].size(); ++t) {
      if (Close(a[i][t], b[i][t], rounding)) continue;
      if (rounding > 0 && a[i][t].token != b[i][t].token && Tie(a[i][t], rounding)) break;
      return "sequence " + std::to_string(i) + ", step " + std::to_string(t) + ": tokens " +
             std::to_string(a[i][t].token) + " and " + std::to_string(b[i][t].token) +
             ", log-probabilities " + std::to_string(a[i][t].logprob) + " and " +
             std::to_string(b[i][t].logprob);
    }
  }
  return "";
}

inline bool AllFinite(const Generations& generations) {
  for (const auto& sequence : generations) {
    for (const SampledToken& token : sequence) {
      if (!(token.logprob <= 0 && token.logprob > -1e30f)) return false;
      for (int32_t i = 0; i < token.num_top; ++i) {
        if (!(token.top_logprob[i] <= 0 && token.top_logprob[i] > -1e30f)) return false;
      }
    }
  }
  return true;
}

}  // namespace spin::testing
