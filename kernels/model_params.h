// Parameters of the dense mathematics of a model, and of prefill. Conventions: params.h.
#pragma once

#include <cstdint>

#include "kernels/batch.h"
#include "kernels/dtype.h"
#include "kernels/kv_layout.h"

namespace spin {

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

// Writes k and v of n tokens into the staging pages. kv_index[i] is the token's place in staging, in tokens.
struct StoreKvParams {
  const void* qkv = nullptr;          // [n][(Hq + 2 Hkv) * d] act, after RoPE
  const int32_t* kv_index = nullptr;  // [n]
  int32_t n = 0;
  KvGeometry geometry;
  Staging staging;
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
  const int32_t* order =
      nullptr;  // [Hkv][num_pages * P] staging place of the token stored at a place; null: itself
};

}  // namespace spin
