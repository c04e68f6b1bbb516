// Quest's summaries: channel-wise maximum, then minimum, of a page's keys after RoPE.
//
// The bounds are elements of the keys themselves, bit for bit what kernels/cpu/quest_index.cc finds: the first key of a
// page opens them, later keys enter by `>` and `<` in token order, so that NaN and the zeros of both signs behave
// alike.
#include <algorithm>

#include "common/math.h"
#include "kernels/cuda/families.h"
#include "kernels/cuda/stream_view.cuh"

namespace spin::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kDecodeThreads = 128;
constexpr int kBatch = 8;  // keys in flight a thread; divides the tokens of a page

// The bounds of a column: the channels of one 16-byte piece of a key. A bfloat16 is kept as the float of the same
// upper bits; comparing and choosing leave them as they are.
template <typename T>
class Bounds {
 public:
  static constexpr int kChannels = kPieceElements<T>;

  __device__ void Open(const uint4& key) {
    UnpackPiece<T>(key, max_);
    UnpackPiece<T>(key, min_);
  }
  __device__ void Extend(const uint4& key) {
    float k[kChannels];
    UnpackPiece<T>(key, k);
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      if (k[c] > max_[c]) max_[c] = k[c];
      if (k[c] < min_[c]) min_[c] = k[c];
    }
  }
  __device__ void Load(const char* max, const char* min) {
    UnpackPiece<T>(*reinterpret_cast<const uint4*>(max), max_);
    UnpackPiece<T>(*reinterpret_cast<const uint4*>(min), min_);
  }
  __device__ void Store(char* max, char* min) const {
    *reinterpret_cast<uint4*>(max) = Pack(max_);
    *reinterpret_cast<uint4*>(min) = Pack(min_);
  }

 private:
  static __device__ uint4 Pack(const float (&from)[kChannels]) {
    uint32_t words[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if constexpr (sizeof(T) == 4) {
        words[i] = __float_as_uint(from[i]);
      } else {
        words[i] = (__float_as_uint(from[2 * i]) >> 16) | __float_as_uint(from[2 * i + 1]);
      }
    }
    return {words[0], words[1], words[2], words[3]};
  }

  float max_[kChannels], min_[kChannels];
};

// The two halves of page `page`'s summary, from column `column` on.
struct SummaryColumn {
  __device__ SummaryColumn(const KvTables& t, int32_t row, int32_t layer, int32_t head,
                           int32_t page, int32_t column)
      : max(static_cast<char*>(t.summaries) +
            StreamView(t, row, layer, head).Summary(page) * t.geometry.summary_bytes() +
            16 * column),
        min(max + t.geometry.summary_bytes() / 2) {}
  char* max;
  char* min;
};

// Bounds of one column over the `tokens` keys of a page, `stride` bytes apart. REQUIRES: tokens > 0.
template <typename T>
__device__ __forceinline__ Bounds<T> BoundsOfKeys(const char* keys, int32_t tokens,
                                                  int64_t stride) {
  Bounds<T> bounds;
  for (int32_t begin = 0; begin < tokens; begin += kBatch) {
    uint4 key[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      if (begin + i < tokens) {
        key[i] = *reinterpret_cast<const uint4*>(keys + (begin + i) * stride);
      }
    }
    if (begin == 0) bounds.Open(key[0]);  // extending by the same key again changes nothing
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      if (begin + i < tokens) bounds.Extend(key[i]);
    }
  }
  return bounds;
}

// A thread follows one 16-byte column through the tokens of a page, so that neighbouring threads read whole keys and
// nothing is exchanged between threads. Columns of all pages of all slices form one sequence that the grid strides
// over, since how many there are is known on the device only. Floor: the keys read once and 2 / P of them written;
// eight loads of 16 bytes in flight a thread keep the memory busy.
template <typename T>
__global__ void __launch_bounds__(kThreads, 2) PrefillKernel(const QuestIndexPrefillParams p) {
  WaitForPredecessors();
  AllowSuccessors();
  const KvGeometry& g = p.tables.geometry;
  const StagingView staging(p.staging, g);
  const int32_t columns = g.head_dim / Bounds<T>::kChannels;
  const int32_t stride = static_cast<int32_t>(gridDim.x) * kThreads;
  int32_t next = static_cast<int32_t>(blockIdx.x) * kThreads + threadIdx.x;
  for (int32_t s = 0; s < p.num_slices; ++s) {
    const PrefillSlice slice = p.slices[s];
    const int32_t tokens = slice.prefix_tokens + slice.num_tokens;
    const int32_t pages = CeilDiv(tokens, g.page_tokens);
    SPIN_DEVICE_CHECK(slice.page_begin >= 0 && slice.page_begin + pages <= p.staging.num_pages);
    const int32_t items = g.num_kv_heads * pages * columns;
    for (; next < items; next += stride) {
      const int32_t column = next % columns;
      const int32_t page = next / columns % pages;
      const int32_t head = next / columns / pages;
      const char* keys =
          staging.Key(head, int64_t{slice.page_begin + page} * g.page_tokens) + 16 * column;
      const int32_t valid = min(g.page_tokens, tokens - page * g.page_tokens);
      const Bounds<T> bounds = BoundsOfKeys<T>(keys, valid, staging.token_bytes);
      const SummaryColumn summary(p.tables, slice.row, p.layer, head, page, column);
      bounds.Store(summary.max, summary.min);
    }
    next -= items;  // counted from the next slice's first column
  }
}

// One thread a column of a stream's new key: a chain of dependent small reads, nothing else.
template <typename T>
__global__ void __launch_bounds__(kDecodeThreads) DecodeKernel(const QuestIndexDecodeParams p) {
  WaitForPredecessors();
  AllowSuccessors();
  const KvGeometry& g = p.tables.geometry;
  const int32_t columns = g.head_dim / Bounds<T>::kChannels;
  const int32_t item = static_cast<int32_t>(blockIdx.x) * kDecodeThreads + threadIdx.x;
  const int32_t column = item % columns;
  const int32_t head = item / columns % g.num_kv_heads;
  const int32_t place = item / columns / g.num_kv_heads;
  if (place >= NumRows(p.decode)) return;
  const int32_t row = p.decode.rows[place];
  const int32_t position = p.decode.position[row];
  const uint4 key = *reinterpret_cast<const uint4*>(KeyOf<T>(p.qkv, g, place, head) +
                                                    column * Bounds<T>::kChannels);
  const SummaryColumn summary(p.tables, row, p.layer, head, position / g.page_tokens, column);
  Bounds<T> bounds;
  if (position % g.page_tokens == 0) {
    bounds.Open(key);
  } else {
    bounds.Load(summary.max, summary.min);
    bounds.Extend(key);
  }
  bounds.Store(summary.max, summary.min);
}

void CheckGeometry(const KvGeometry& g) {
  SPIN_CHECK_EQ(g.summary_elements, 2 * g.head_dim);
  SPIN_CHECK(g.dtype == DType::kF32 || g.dtype == DType::kBf16);
}

// Columns of a page, in 16-byte pieces of its keys.
int64_t Columns(const KvGeometry& g) {
  return g.head_dim * SizeOf(g.dtype) / 16;
}

}  // namespace

void QuestIndexPrefill(const QuestIndexPrefillParams& p, cudaStream_t stream) {
  const KvGeometry& g = p.tables.geometry;
  CheckGeometry(g);
  const int64_t most = int64_t{g.num_kv_heads} * p.staging.num_pages * Columns(g);
  SPIN_CHECK_LT(most, int64_t{1} << 30);  // with a stride of the grid added, indices fit int32
  const int64_t blocks = std::min<int64_t>(CeilDiv<int64_t>(most, kThreads), 6 * Traits().num_sms);
  if (p.num_slices == 0 || blocks == 0) return;
  const auto kernel = g.dtype == DType::kF32 ? PrefillKernel<float> : PrefillKernel<Bf16>;
  Launch(kernel, dim3(static_cast<unsigned>(blocks)), dim3(kThreads), 0, stream, p);
}

void QuestIndexDecode(const QuestIndexDecodeParams& p, cudaStream_t stream) {
  const KvGeometry& g = p.tables.geometry;
  CheckGeometry(g);
  const int64_t items = int64_t{p.decode.max_batch} * g.num_kv_heads * Columns(g);
  if (items == 0) return;
  const auto kernel = g.dtype == DType::kF32 ? DecodeKernel<float> : DecodeKernel<Bf16>;
  Launch(kernel, dim3(static_cast<unsigned>(CeilDiv<int64_t>(items, kDecodeThreads))),
         dim3(kDecodeThreads), 0, stream, p);
}

}  // namespace spin::cuda
