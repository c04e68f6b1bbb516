// One plain struct a kernel family: the whole vocabulary between host and kernels. Shapes are in the comments.
//
// Pointers are device memory unless a comment says pinned. "act" is the activation type (the model's dtype); f32 is
// float. Counts that change from step to step are read from device memory, so that a captured step can be replayed.
#pragma once

#include <cstdint>

#include "kernels/dtype.h"
#include "kernels/kv_layout.h"

namespace spin {

inline constexpr int32_t kMaxLogprobs = 20;     // alternatives reported a token
inline constexpr int32_t kMaxLogitBias = 1024;  // entries of logit_bias a request
inline constexpr int32_t kMaxStopTokens = 32;   // token ids that end a sequence

// The rows of one decode step: entry b < *num_rows of each [max_batch] array is batch place b.
struct DecodeRows {
  int32_t max_batch = 0;              // bucket: what grids are sized for; host-known
  const int32_t* num_rows = nullptr;  // [1] <= max_batch
  const int32_t* rows = nullptr;      // [max_batch] table row of each place
  int32_t* token = nullptr;  // [max_rows] input token of the row; Sample writes the next one
  int32_t* position =
      nullptr;  // [max_rows] tokens already in the cache = position of `token`; Sample adds 1
};

// ---- Dense mathematics -----------------------------------------------------------------------------------------

// A linear layer's weight in the backend's own layout, made by Ops::PackWeight.
struct Weight {
  const void* data = nullptr;
  int32_t n = 0;  // outputs
  int32_t k = 0;  // inputs
  DType dtype = DType::kBf16;
};

// out[i] = table[id_i]; id_i = ids[i], or with `rows` the token of batch place i (places >= *num_rows are left
// alone).
struct EmbeddingParams {
  const void* table = nullptr;  // [vocab][hidden] of `dtype`, row-major
  DType dtype = DType::kBf16;
  const int32_t* ids = nullptr;  // [n], or null: `decode` says which
  DecodeRows decode;
  int32_t n = 0;  // tokens (decode: max_batch)
  int32_t hidden = 0;
  float* out = nullptr;  // [n][hidden] f32: the residual stream
};

// out = in / sqrt(mean(in^2) + eps) * weight, rows of `hidden`.
struct RmsNormParams {
  const float* in = nullptr;      // [n][hidden]
  const float* weight = nullptr;  // [hidden]
  float eps = 0;
  int32_t n = 0;
  int32_t hidden = 0;
  void* out = nullptr;  // [n][hidden] act
  DType out_dtype = DType::kBf16;
};

// c = a * w^T, or c += a * w^T (f32 only). Each output's sum runs in an order that does not depend on m.
struct GemmParams {
  const void* a = nullptr;  // [m][k] of w.dtype, rows `lda` elements apart
  int64_t lda = 0;
  Weight w;
  int32_t m = 0;
  void* c = nullptr;  // [m][n] of c_dtype, rows `ldc` elements apart
  int64_t ldc = 0;
  DType c_dtype = DType::kF32;
  bool accumulate = false;
};

// Per-head RMSNorm of q and k where weights are given (Qwen3), then rotary position embedding in half-split order
// (dimension i pairs with i + d/2), in place. v is left alone. Arithmetic in f32.
struct RopeParams {
  void* qkv = nullptr;  // [n][(Hq + 2 Hkv) * d] act: q heads, k heads, v heads
  DType dtype = DType::kBf16;
  int32_t n = 0;
  const int32_t* positions = nullptr;  // [n], or null: `decode` says which
  DecodeRows decode;
  int32_t num_q_heads = 0, num_kv_heads = 0, head_dim = 0;
  const float* q_norm = nullptr;  // [d] or null
  const float* k_norm = nullptr;  // [d] or null
  float eps = 0;
  const float* table =
      nullptr;  // [max_model_len][d]: d/2 cosines then d/2 sines of the position, scaling included
};

// out = silu(gate) * up.
struct SiluMulParams {
  const void* gate_up = nullptr;  // [n][2 * width] act: gate then up
  void* out = nullptr;            // [n][width] act
  DType dtype = DType::kBf16;
  int32_t n = 0;
  int32_t width = 0;
};

// out[i] = in[index[i]], rows of `width` floats.
struct GatherRowsParams {
  const float* in = nullptr;
  const int32_t* index = nullptr;  // [n]
  int32_t n = 0;
  int32_t width = 0;
  float* out = nullptr;  // [n][width]
};

// ---- Prefill: one layer at a time, its KV in staging pages -------------------------------------------------------

// One sequence of a prefill batch. Its tokens start at a page boundary of the staging area.
struct PrefillSlice {
  int32_t row = 0;
  int32_t token_begin = 0;    // in the packed batch
  int32_t num_tokens = 0;     // computed by this prefill
  int32_t page_begin = 0;     // first staging page of the sequence (a head)
  int32_t prefix_tokens = 0;  // tokens before them, already in staging (0 without a prefix)
};

// The KV of one layer of a prefill batch: room for [Hkv][num_pages] pages, in an arrangement of the backend's own (CPU:
// pages; CUDA: a plane of keys and one of values a head). A token's place counts tokens from the head's begin.
struct Staging {
  void* pages = nullptr;
  int32_t num_pages = 0;  // a head
};

// Writes k and v of n tokens into the staging pages. kv_index[i] is the token's place in staging, in tokens.
struct StoreKvParams {
  const void* qkv = nullptr;          // [n][(Hq + 2 Hkv) * d] act, after RoPE
  const int32_t* kv_index = nullptr;  // [n]
  int32_t n = 0;
  KvGeometry geometry;
  Staging staging;
};

// A run of one sequence's tokens within a tile: queries token_begin .. + num_tokens of the tile; keys kv_begin .. +
// kv_tokens of staging, the last of which belongs to the last query.
struct PrefillSegment {
  int32_t token_begin = 0;
  int32_t num_tokens = 0;
  int32_t kv_begin = 0;
  int32_t kv_tokens = 0;
};

// Causal attention of n packed tokens: token i attends to staging tokens kv_begin[i] .. kv_index[i], both included.
// scale = 1 / sqrt(d). Softmax in f32. `segments` says the same, run by run, for a host that chooses kernels by shape;
// host memory, read while enqueueing; may be null.
struct PrefillAttentionParams {
  const void* qkv = nullptr;          // [n][(Hq + 2 Hkv) * d] act
  const int32_t* kv_begin = nullptr;  // [n]
  const int32_t* kv_index = nullptr;  // [n]
  int32_t n = 0;
  KvGeometry geometry;
  Staging staging;
  void* out = nullptr;                       // [n][Hq * d] act
  const PrefillSegment* segments = nullptr;  // [num_segments], in order, covering 0 .. n
  int32_t num_segments = 0;
};

// Offload at the end of a layer: the slices' pages go where the rows' placement says. Resident: page p to slot p.
// Tiered: all pages to the host, and the last min(pages, num_slots) of them into local slots 0.. in order, with
// owner, age 0 and meta entry set; other slots of the streams become free (owner kAbsent).
struct OffloadParams {
  const PrefillSlice* slices = nullptr;  // [num_slices]
  int32_t num_slices = 0;
  int32_t layer = 0;
  KvTables tables;
  Staging staging;
};

// ---- Index and Select --------------------------------------------------------------------------------------------

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

// What a summary is, and so the logit of a query and a page.
enum class SummaryKind : int32_t {
  kBounds,  // maximum [d], minimum [d]: upper bound of q.k = sum_c max(q_c max_c, q_c min_c) = [q+,q-].[max,min]
  kMean,    // mean key [d]: q.mean. A logit of NaN (first element of the mean) marks an outlier
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

// Scores of the pages before the new token's own; they are complete. No softmax: it would not change their order.
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
// all.
struct SelectTopKParams {
  DecodeRows decode;
  const float* scores = nullptr;  // [max_batch][Hkv][max_pages]
  KvGeometry geometry;
  PageBudget budget;
  int32_t* ids = nullptr;    // [max_batch][Hkv][max_selected]
  int32_t* count = nullptr;  // [max_batch][Hkv]
  int32_t max_selected = 0;
};

// ---- Retrieve ----------------------------------------------------------------------------------------------------

// Which partitions leave HBM: the oldest by age, just enough of them (the rule); all that this step did not select;
// all but the tail, so that every step fetches what it selects. The last two are controls for measurement.
enum class Eviction : int32_t { kBucketed = 0, kLastStep = 1, kNone = 2 };

// Counters of the Retrieve stage, added to by kernels.
struct RetrieveCounters {
  uint64_t hits = 0;
  uint64_t misses = 0;  // pages fetched from the host
  uint64_t evictions = 0;
  uint64_t bytes = 0;  // moved from the host
};

// Residency of the selected partitions of each stream, victims for the misses, new ages, the list of slots to attend
// to and the list of pages to copy. memory/README.md has the rule; bit-exact on every backend.
struct LookupParams {
  DecodeRows decode;
  const int32_t* ids =
      nullptr;  // [max_batch][Hkv][max_selected] ascending, or null: all pages of the sequence
  const int32_t* count = nullptr;  // [max_batch][Hkv], unused when ids is null
  int32_t max_selected = 0;
  int32_t layer = 0;
  Eviction eviction = Eviction::kBucketed;
  KvTables tables;
  int32_t* page_list =
      nullptr;  // [max_batch][Hkv][max_list] slot (page index in the slot pool), ids' order
  int32_t* list_len = nullptr;  // [max_batch][Hkv]
  int32_t max_list = 0;
  int64_t* copy_src = nullptr;  // [max_batch][Hkv][max_list] page index in the host pool
  int32_t* copy_dst = nullptr;  // [max_batch][Hkv][max_list] page index in the slot pool
  int32_t* copy_len = nullptr;  // [max_batch][Hkv]
  // [max_batch][Hkv], or null. Otherwise the pages of a list that need no copy come first (hits, a fresh tail), then
  // the others, each in ids' order; the former hold ready_tokens tokens.
  int32_t* ready_tokens = nullptr;
  RetrieveCounters* counters = nullptr;
};

// Writes k and v of the new token into the slot of its page, and (Tiered) through to the host page.
struct AppendKvParams {
  DecodeRows decode;
  const void* qkv = nullptr;
  int32_t layer = 0;
  KvTables tables;
};

// Fetches the missing pages: slots[copy_dst] = host_pages[copy_src]. Counts bytes.
struct GatherPagesParams {
  DecodeRows decode;
  KvTables tables;
  const int64_t* copy_src = nullptr;
  const int32_t* copy_dst = nullptr;
  const int32_t* copy_len = nullptr;
  int32_t max_list = 0;
  RetrieveCounters* counters = nullptr;
};

// ---- Attention ---------------------------------------------------------------------------------------------------

// What of a list is attended to. kReady and kFetched are two halves of one attention, so that the first may run while
// the second's pages are still on their way: kReady takes the first ready_tokens tokens; it finishes rows whose list
// ends there, and of the others leaves running maxima, weights and sums. kFetched takes the rest and finishes. Between
// the two calls, on one stream, nothing else of a decode step is enqueued there. REQUIRES of both: max_batch * Hq <=
// kMaxHalvedHeads.
enum class ListPart : int32_t { kAll, kReady, kFetched };
inline constexpr int64_t kMaxHalvedHeads = 16384;

// One query a batch place over the listed slots. The last page of a list holds position % P + 1 tokens, all others P;
// of a list in two parts this holds for the part that has the tail, and the other's are full.
// Tokens are summed in list order in blocks of 16 counted from the part's begin, whatever the page size, so that
// equal token lists give equal bits.
struct PagedAttentionParams {
  DecodeRows decode;
  const void* qkv = nullptr;  // [max_batch][(Hq + 2 Hkv) * d] act, after RoPE
  KvTables tables;
  const int32_t* page_list = nullptr;
  const int32_t* list_len = nullptr;
  int32_t max_list = 0;
  ListPart part = ListPart::kAll;
  const int32_t* ready_tokens = nullptr;  // [max_batch][Hkv] as Lookup gives it; unused by kAll
  float* partial =
      nullptr;          // scratch [max_batch][Hq][d + 2], unused by kAll; a backend may do without
  void* out = nullptr;  // [max_batch][Hq * d] act
};

// ---- Sampling ----------------------------------------------------------------------------------------------------

// What one row samples with; an array [max_rows] in device memory, an entry written when its sequence starts.
struct SamplingRow {
  float temperature = 1;  // 0: greedy
  float top_p = 1;
  float min_p = 0;
  int32_t top_k = 0;  // 0: off
  float presence_penalty = 0, frequency_penalty = 0, repetition_penalty = 1;
  int32_t num_logprobs = -1;  // -1: none; else 0..kMaxLogprobs alternatives beside the chosen token
  uint64_t seed = 0;
  int32_t prompt_tokens = 0;  // position of the first generated token
  int32_t min_tokens = 0;     // stop tokens are banned before so many generated tokens
  int32_t num_stop_tokens = 0;
  int32_t num_bias = 0;
  int32_t stop_tokens[kMaxStopTokens] = {};
  int32_t bias_token[kMaxLogitBias] = {};
  float bias[kMaxLogitBias] = {};
};

// What the host reads of one sampled token; in pinned memory.
struct SampledToken {
  int32_t token = 0;
  float logprob = 0;  // of the model's own distribution: before bias, penalties and temperature
  int32_t num_top = 0;
  int32_t top_token[kMaxLogprobs] = {};  // most probable first, ties by lower id
  float top_logprob[kMaxLogprobs] = {};
};

// Order: log-probabilities of the raw logits; stop-token ban (min_tokens); logit bias; repetition, presence,
// frequency penalties; greedy, or temperature, top_k, top_p, min_p, then one draw: Philox(seed, generated index).
// The generated index of the new token is position[row] + 1 - prompt_tokens, where position[row] is that of the
// token just processed. The token goes to token[row], position[row] grows by one, `history` counts it.
struct SampleParams {
  DecodeRows decode;              // which rows; logits row b belongs to place b
  const float* logits = nullptr;  // [max_batch][vocab]
  int32_t vocab = 0;
  const SamplingRow* sampling = nullptr;  // [max_rows]
  // [max_rows][vocab]: bit 31 = token occurs in the prompt, low bits = times generated. Kept only for rows with
  // penalties; cleared when their sequence starts.
  uint32_t* history = nullptr;
  SampledToken* out = nullptr;  // [max_batch] pinned
};

// Log-probability of given tokens under the model (prompt log-probabilities), with alternatives.
struct TokenLogprobsParams {
  const float* logits = nullptr;    // [n][vocab]
  const int32_t* target = nullptr;  // [n]
  int32_t n = 0;
  int32_t vocab = 0;
  int32_t num_top = 0;
  SampledToken* out = nullptr;  // [n] pinned; token = target
};

// ---- Tables ------------------------------------------------------------------------------------------------------

enum class TableCommandKind : int32_t {
  kSetPlacement,  // placement[row] = value
  kSetSlotExtent,  // slot_dir[row][layer][index] = value; owners of the extent's slots become kAbsent, ages 0
  kSetHostExtent,     // host_dir[row][layer][index] = value
  kSetSummaryExtent,  // summary_dir[row][layer][index] = value
  kSetMetaSegment,    // meta_dir[row][layer][index] = value; the segment's entries become kAbsent
  kSetNumSlots,  // num_slots[row][layer] = value; in a Tiered row what was in local slots from `value` on is
                 // evicted
  kShareSlotExtent,    // slot_dir[row][layer][index] = value, contents kept (a forked sequence)
  kCopySlotExtent,     // slots: extent `index` = extent `value`, all bytes
  kCopyHostExtent,     // host pages: likewise
  kCopySummaryExtent,  // summaries: likewise
  kSpillExtent,        // host extent `index` = slot extent `value`, all bytes (demotion)
  kBindSlots,  // local slot j < num_slots of every head holds partition index + j, for index + j < value:
               // owner, meta and age 0 set (demotion keeps what is there)
  kClearHistory,  // history[row] = 0
};

// One change of the tables, applied in order by Ops::UpdateTables between steps. value kAbsent unmaps.
struct TableCommand {
  TableCommandKind kind = TableCommandKind::kSetPlacement;
  int32_t row = 0;
  int32_t layer = 0;
  int32_t index = 0;
  int32_t value = 0;
};

struct UpdateTablesParams {
  const TableCommand* commands = nullptr;  // [num_commands] pinned
  int32_t num_commands = 0;
  KvTables tables;
  uint32_t* history = nullptr;  // [max_rows][vocab]
  int32_t vocab = 0;
};

// history[row] of each id: bit 31 set for prompt tokens; with `generated` the count grows by one instead.
struct MarkPromptParams {
  const int32_t* ids = nullptr;  // [n] pinned
  bool generated = false;
  int32_t n = 0;
  int32_t row = 0;
  uint32_t* history = nullptr;
  int32_t vocab = 0;
};

}  // namespace spin
