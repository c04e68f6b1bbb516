// Which instruction set the CPU kernels use, and the table of kernels compiled for it.
//
// Each isa_*.cc compiles the same kernel headers (simd.h, row_kernels.h, gemm_kernels.h,
// attention_kernels.h) with its own flags and fills one table. The best table that the CPU can run
// is chosen once. Kernels of a table are plain functions on the calling thread: families split the
// work, tables do it.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/params.h"

namespace spin::cpu {

enum class Isa { kGeneric, kAvx2, kAvx512, kAvx512Bf16 };

const char* NameOf(Isa isa);

// What this CPU can run, slowest first; the first is kGeneric.
std::vector<Isa> SupportedIsas();

// The one in use: the best supported, unless forced.
Isa ActiveIsa();

// For tests and benches, while no kernel runs. REQUIRES: supported.
void ForceIsa(Isa isa);

// One query token's attention over a list of pages, for `num_heads` query heads that share the KV
// head.
struct AttendTask {
  const void* q = nullptr;  // [num_heads][d] act
  void* out = nullptr;      // [num_heads][d] act
  int32_t num_heads = 0;
  int32_t head_dim = 0;         // 64 or 128
  const void* pages = nullptr;  // the pool
  const int32_t* page_list =
      nullptr;  // page index in the pool of page i of the list, or null: first_page + i
  int64_t first_page = 0;
  int32_t page_shift = 0;  // log2 of tokens a page, >= 3
  int32_t num_tokens = 0;
  float scale = 0;
  // Softmax over more lists than one: [num_heads][d + 2] sums, maximum, weight. Goes on from what `from` says, if not
  // null; leaves the state in `to`, if not null, instead of `out`. With neither, num_tokens >= 1.
  const float* from = nullptr;
  float* to = nullptr;
  // A byte a listed page of 8 tokens, bit t: token t has weight; null: all have. At least one of a list has.
  const uint8_t* page_mask = nullptr;
  // [num_heads][d + 2] sums, maximum, weight of something else, merged into `out`; null: nothing.
  const float* estimate = nullptr;
};

// Causal attention of a tile of consecutive tokens of one sequence for one KV head; bf16.
struct PrefillTile {
  const uint16_t* q = nullptr;  // of the tile's first token and the KV head's first query head
  uint16_t* out = nullptr;      // likewise
  int64_t q_stride = 0;         // elements between tokens
  int64_t out_stride = 0;
  int32_t num_tokens = 0;  // num_tokens * group <= kPrefillTileRows
  int32_t group = 0;
  int32_t head_dim = 0;
  const uint16_t* pages = nullptr;  // of the KV head in the sequence's first page
  int32_t page_shift = 0;
  const int32_t* last_key =
      nullptr;  // [num_tokens] last key of each token, counted from the sequence's first page
  float scale = 0;
};
inline constexpr int32_t kPrefillTileRows = 192;

inline constexpr int32_t kClusterPanel = 32;  // centroids side by side

struct KernelTable {
  // One row. `table` of rope: d/2 cosines, then d/2 sines; norm may be null.
  void (*rms_norm)(const float* in, const float* weight, float eps, int32_t n, void* out,
                   bool bf16);
  void (*silu_mul)(const void* gate, const void* up, int32_t n, void* out, bool bf16);
  void (*rope)(void* heads, int32_t num_heads, int32_t d, const float* norm, float eps,
               const float* table, bool bf16);
  // Panels [begin, end) of kPanelRows outputs, all rows of a.
  void (*gemm)(const GemmParams& p, int64_t panel_begin, int64_t panel_end);
  void (*attend)(const AttendTask& task, bool bf16);
  // cluster[t] of token t < n: the lowest of the centroids with the greatest inner product with x[t]. x [n][d], panels
  // [clusters / kClusterPanel][d][kClusterPanel].
  void (*assign_clusters)(const float* x, int32_t n, int32_t d, const float* panels,
                          int32_t clusters, int32_t* cluster);
  // Runs independent bf16 multiply-adds in registers, for benches; returns the operations done.
  int64_t (*bf16_dots)(int64_t rounds);
  // Null: PrefillAttention goes token by token through `attend`.
  void (*prefill_bf16)(const PrefillTile& tile);
};

const KernelTable& Kernels();

}  // namespace spin::cpu
