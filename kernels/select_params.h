// Parameters of Index and Select: summaries of pages, their scores, and the critical partitions that follow.
// Conventions: params.h.
#pragma once

#include <cstdint>

#include "kernels/batch.h"
#include "kernels/kv_layout.h"
#include "kernels/retrieve_params.h"

namespace spin {

// Quest (arXiv 2406.10774): summary of a page = channel-wise maximum [d], then minimum [d], of its keys after RoPE.
struct QuestIndexPrefillParams {
  const PrefillSlice* slices = nullptr;
  int32_t num_slices = 0;
  int32_t layer = 0;
  KvTables tables;
  Staging staging;
};

// The new token's key enters the bounds of its page; a token that opens a page sets them.
struct QuestIndexDecodeParams {
  DecodeRows decode;
  const void* qkv = nullptr;  // [max_batch][(Hq + 2 Hkv) * d] act, after RoPE
  int32_t layer = 0;
  KvTables tables;
};

// ShadowKV (arXiv 2410.21465, algorithm 1): the landmark of a complete page of 8 tokens = mean of its keys after RoPE,
// summed in f32 in token order. An incomplete page has none. Outliers of a stream: of its complete pages but the last
// `local_pages`, the `outlier_pages` with the least min over the page's keys of cosine(key, landmark), ties to the
// lower page; the first element of their landmark is NaN.
inline constexpr int32_t kLandmarkTokens = 8;  // of a page: page_tokens must be so

struct LandmarkIndexPrefillParams {
  const PrefillSlice* slices = nullptr;
  int32_t num_slices = 0;
  int32_t layer = 0;
  KvTables tables;
  Staging staging;
  int32_t outlier_pages = 0;
  int32_t local_pages = 0;
  float* spread = nullptr;  // scratch [Hkv][num_pages of staging, rounded up to 4]
};

// A new token that completes its page gives it a landmark. The page's other keys are read where they are: in its slot,
// or in the host's copy when it is not resident.
struct LandmarkIndexDecodeParams {
  DecodeRows decode;
  const void* qkv = nullptr;  // [max_batch][(Hq + 2 Hkv) * d] act, after RoPE
  int32_t layer = 0;
  KvTables tables;
};

// ShadowKV's low-rank keys (arXiv 2410.21465, algorithm 1). K [tokens][Hkv * d] are the keys of all KV heads of a
// prompt as they were before rotation, had back by the inverse rotation and rounded to the pages' type; behind a
// model's key norm. Its basis V [Hkv * d][key_rank] spans the `key_rank` greatest eigenvectors of K^T K, up to what a
// fixed number of steps of subspace iteration from a fixed start leaves: the truncated SVD of K, but for a rotation of
// the columns. The factor of a complete page is A = K V of its tokens; its keys are A V^T, rotated.
//
// A prompt of fewer tokens than Hkv * d has no factor: its Gram matrix says nothing of most directions that the keys
// after it take. The first element of its basis is NaN.
inline constexpr int32_t kKeyIterations = 4;  // leave 1.02 to 1.06 times the least residue
inline constexpr int32_t kMaxKeyRank = 256;
inline constexpr int32_t kKeyRankStep = 16;  // key_rank is a multiple
// What is added to the diagonal of K^T K, times its mean: a spectrum that falls steeply stays within float32.
inline constexpr float kKeyShift = 1e-4f;
// Slices that are worked on side by side.
inline constexpr int32_t kKeySlices = 4;

// Element `i` of the block [Hkv * d][key_rank] that the iteration starts from, in [-1, 1): an integer hash.
constexpr float KeyStart(uint32_t i) {
  uint32_t x = i + 1;
  x = (x ^ x >> 16) * 0x7feb352du;
  x = (x ^ x >> 15) * 0x846ca68bu;
  x ^= x >> 16;
  return static_cast<float>(static_cast<int32_t>(x)) * (1.0f / 2147483648.0f);
}

// Scratch of one slice: K^T K [width][width], two blocks [width][rank] in f32; a block [rank][rank] and [rank] in f64.
constexpr int64_t KeyFactorScratchBytes(int32_t width, int32_t rank) {
  return 4 * int64_t{width} * (width + 2 * rank) + 8 * int64_t{rank} * (rank + 1);
}

// Basis and factors of prefilled sequences. The keys in staging end up as they were before rotation.
struct KeyFactorPrefillParams {
  const PrefillSlice* slices = nullptr;
  int32_t num_slices = 0;
  int32_t layer = 0;
  KvTables tables;
  Staging staging;
  const float* rope_table = nullptr;  // as in RopeParams
  void* scratch = nullptr;            // kKeySlices times KeyFactorScratchBytes(Hkv * d, key_rank)
};

// A new token that completes its page gives it a factor; the page's other keys are read as a landmark's are.
struct KeyFactorDecodeParams {
  DecodeRows decode;
  const void* qkv = nullptr;  // [max_batch][(Hq + 2 Hkv) * d] act, after RoPE
  int32_t layer = 0;
  KvTables tables;
  const float* rope_table = nullptr;
};

// What a summary is, and so the logit of a query and a page.
enum class SummaryKind : int32_t {
  kBounds,  // maximum [d], minimum [d]: upper bound of q.k = sum_c max(q_c max_c, q_c min_c) = [q+,q-].[max,min]
  kMean,  // begins with the mean key [d]: q.mean. A logit of NaN (first element of the mean) marks an outlier
  // Record of a cluster (cluster_params.h): q.centroid. Scored are the clusters of IndexedTokens(position + 1); those
  // without tokens score -infinity and weigh nothing.
  kClusters,
};

enum class GroupReduction : int32_t { kMax, kSum };

// Scores of the pages of each stream but the last `unscored_last`: logits in f32, scaled by 1/sqrt(d), softmax over the
// scored pages for each query head, then the maximum or the sum over the group. An outlier scores +infinity and weighs
// nothing in the softmax.
struct ScoreSummariesParams {
  DecodeRows decode;
  const void* qkv = nullptr;
  int32_t layer = 0;
  KvTables tables;
  SummaryKind kind = SummaryKind::kBounds;
  GroupReduction reduction = GroupReduction::kMax;
  int32_t unscored_last = 0;
  float* logits = nullptr;  // scratch [max_batch][Hq][max_pages]; a backend may do without
  float* scores = nullptr;  // [max_batch][Hkv][max_pages]
};

// SeerAttention-R (arXiv 2506.08889): the gate of one layer, of dimension d. x' is a query or key head as it
// was before RoPE, had back by the inverse rotation; R(p) is the rotation by position p, of the same table. norm is
// RMSNorm with eps kSeerNormEps, or nothing where its weights are null. All in f32.
//   complete page j:  kg = R(j P) norm_k(wk (max, min, mean of the page's x', channel by channel)), its summary
//   query at p:       qg = R(p) norm_q(wq (x' of the group's query heads, one behind the other))
//   score:            qg . kg / sqrt(d)
struct SeerGate {
  const void* wq = nullptr;       // [Hkv][d][group * d] of the pages' type
  const void* wk = nullptr;       // [Hkv][d][3 * d] likewise
  const float* q_norm = nullptr;  // [d] or null
  const float* k_norm = nullptr;  // [d] or null
};
inline constexpr float kSeerNormEps = 1e-6f;

// A sequence's complete pages get their summaries.
struct SeerIndexPrefillParams {
  const PrefillSlice* slices = nullptr;
  int32_t num_slices = 0;
  int32_t layer = 0;
  KvTables tables;
  Staging staging;
  SeerGate gate;
  const float* rope_table = nullptr;  // as in RopeParams
};

// A new token that completes its page gives it a summary; the page's other keys are read as a landmark's are.
struct SeerIndexDecodeParams {
  DecodeRows decode;
  const void* qkv = nullptr;  // [max_batch][(Hq + 2 Hkv) * d] act, after RoPE
  int32_t layer = 0;
  KvTables tables;
  SeerGate gate;
  const float* rope_table = nullptr;
};

// Scores of the pages before the new token's own; they are complete. No softmax: it would not change their order, and
// where it matters, with a threshold, SelectTopK has it.
struct SeerScoreParams {
  DecodeRows decode;
  const void* qkv = nullptr;
  int32_t layer = 0;
  KvTables tables;
  SeerGate gate;
  const float* rope_table = nullptr;
  float* scores = nullptr;  // [max_batch][Hkv][max_pages]
};

// How many pages of a stream one Select returns, by the pages that the stream has. Fixed pages are always among them:
// the first (attention sink), the last (local window, the tail among them), and those whose score is +infinity (an
// Index marks outliers so, at most `outliers` a stream).
struct PageBudget {
  int32_t fixed_first = 0;
  int32_t fixed_last = 1;  // >= 1: the tail
  int32_t outliers = 0;
  int32_t selectable = 0;       // chosen by score, at least so many
  int32_t context_divisor = 0;  // and at least pages / context_divisor; 0: no such rule

  constexpr int32_t fixed() const { return fixed_first + fixed_last + outliers; }
  constexpr int32_t Selectable(int32_t pages) const {
    const int32_t share = context_divisor > 0 ? (pages + context_divisor - 1) / context_divisor : 0;
    return share > selectable ? share : selectable;
  }
  constexpr int32_t Total(int32_t pages) const { return fixed() + Selectable(pages); }
};

// The critical partitions of each stream: the first `fixed_first` and the last `fixed_last` pages always, then the best
// scores until budget.Total(pages) are chosen; ties go to the lower id. Ids come out ascending. With pages <= Total:
// all. A row may have a total of its own.
//
// With a threshold only those of them are chosen by score whose probability is above it: their weight's share of the
// weights (softmax_weight.h) of all pages but the last `fixed_last`. With pages <= Total it is still all. REQUIRES: no
// outliers.
struct SelectTopKParams {
  DecodeRows decode;
  const float* scores = nullptr;  // [max_batch][Hkv][max_pages]
  KvGeometry geometry;
  PageBudget budget;
  // [max_rows] or null: pages in all that each stream of the row gets instead of budget.Total, more than
  // budget.fixed(); 0: budget.Total.
  const int32_t* row_pages = nullptr;
  int32_t* ids = nullptr;    // [max_batch][Hkv][max_selected]
  int32_t* count = nullptr;  // [max_batch][Hkv]
  int32_t max_selected = 0;
  double threshold = 0;                  // 0..1; 0: none
  RetrieveCounters* counters = nullptr;  // [max_rows], `spared` is added to; unused without one
};

// For measurements: recorded selections in place of Select's. At position s row r takes step (s + phase[r]) mod
// num_steps of the record; layers and KV heads of the model take those of the record in turn. A recorded page stands
// for `pages_per_recorded` pages in a row: page p for p * n .. p * n + n - 1, but the last of a selection, the tail,
// for the sequence's last n pages.
struct ReplaySelectionParams {
  DecodeRows decode;
  int32_t layer = 0;
  KvGeometry geometry;
  // [num_steps][num_layers][num_heads][max_recorded] ascending; what all but the last entry stand for lies before the
  // sequence's last n pages.
  const int32_t* recorded = nullptr;
  const int32_t* recorded_count = nullptr;  // [num_steps][num_layers][num_heads], 1..max_recorded
  int32_t num_steps = 0, num_layers = 0, num_heads = 0, max_recorded = 0;
  const int32_t* phase = nullptr;  // [max_rows], >= 0
  int32_t pages_per_recorded = 1;
  int32_t* ids = nullptr;    // [max_batch][Hkv][max_selected]
  int32_t* count = nullptr;  // [max_batch][Hkv]
  int32_t max_selected = 0;  // >= pages_per_recorded * max_recorded
};

}  // namespace spin
