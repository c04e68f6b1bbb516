// What shapes a sparse algorithm: the `sparse` section of the configuration, and the model.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace spin {

// What quest and seer take for a budget where none is given.
constexpr int32_t kDefaultBudgetTokens = 2048;

struct SparseOptions {
  std::string algorithm = "dense";
  std::optional<int32_t> budget_tokens;  // nothing: the algorithm's own rule
  // The most that a request may ask for; nothing: as much as the server's own budget comes to.
  std::optional<int32_t> max_budget_tokens;
  bool exact = false;              // Select returns every partition
  int32_t quest_dense_layers = 0;  // sparse.quest.*
  int32_t quest_page_tokens = 16;
  int32_t shadowkv_context_fraction = 64;  // sparse.shadowkv.*
  int32_t shadowkv_min_budget_tokens = 2048;
  int32_t shadowkv_outlier_pages = 48;
  int32_t shadowkv_local_pages = 4;
  int32_t shadowkv_rank = 0;  // of the factor that keys are rebuilt from; 0: keys are retrieved
  std::string seer_gates;     // sparse.seer.gates: a file
  double seer_threshold = 0;  // sparse.seer.threshold; 0: none
  int32_t retroinfer_retrieve_permille = 18;  // sparse.retroinfer.*: of the clusters
  int32_t retroinfer_estimate_permille = 232;
  int32_t retroinfer_min_budget_tokens = 2048;
};

struct SparseModelShape {
  int32_t num_layers = 0;
  int32_t num_q_heads = 0;
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;
};

}  // namespace spin
