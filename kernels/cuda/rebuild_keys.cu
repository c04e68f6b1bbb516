// The keys of fetched pages from their factors: what a gather left behind.
//
// A CTA takes up to kChunk listed pages of a stream. Its warps share the channels of the head: warp w has channels 8 w
// .. of either half, so that a lane has both channels that a rotation mixes. On tensor cores in bfloat16: 16 tokens,
// two pages, are the rows of a, straight from the summaries; the warp's part of the basis stays in registers. Floor:
// factors read (the lines of 8 rank elements a page), keys written; the basis once a CTA out of L2. A page is 2.5 KiB
// in and 2 KiB out at rank 160 and 128 channels, where its values took 40 ns over the link.
#include "common/check.h"
#include "common/math.h"
#include "kernels/cuda/families.h"
#include "kernels/cuda/key_record.cuh"
#include "kernels/cuda/tensor_core.cuh"

namespace spin::cuda {
namespace {

constexpr int kChunk = 32;
constexpr int kMaxSteps = kMaxKeyRank / 32;  // of 32 columns

// What a CTA works on.
struct Stream {
  __device__ explicit Stream(const RebuildKeysParams& p)
      : place(static_cast<int32_t>(blockIdx.x) / p.tables.geometry.num_kv_heads),
        head(static_cast<int32_t>(blockIdx.x) % p.tables.geometry.num_kv_heads) {}

  int32_t place, head;
};

// The slots of the chunk's pages that are rebuilt, in order, and their pages.
struct Chunk {
  int32_t count;
  int32_t slot[kChunk];
  int32_t page[kChunk];
};

// By the first warp; then a barrier. False: nothing to do, in all threads alike.
__device__ __forceinline__ bool FindPages(const RebuildKeysParams& p, const Stream& stream,
                                          int32_t row, Chunk& chunk) {
  const int32_t begin = static_cast<int32_t>(blockIdx.y) * kChunk;
  const int64_t list = static_cast<int64_t>(blockIdx.x);
  const int32_t length = p.copy_len[list];
  SPIN_DEVICE_CHECK(length >= 0 && length <= p.max_list);
  if (begin >= length) return false;
  if (threadIdx.x < kWarp) {
    const int32_t k = begin + static_cast<int32_t>(threadIdx.x);
    int32_t slot = 0, page = 0;
    bool rebuilt = false;
    if (k < length) {
      slot = p.copy_dst[list * p.max_list + k];
      page = p.tables.slot_owner[slot];
      rebuilt = RebuildsKeys(p.tables, row, p.layer, stream.head, page, p.decode.position[row],
                             p.list_len[list], p.whole_last);
    }
    const unsigned all = __ballot_sync(kAllLanes, rebuilt);
    const int at = __popc(all & ((1u << threadIdx.x) - 1));
    if (rebuilt) {
      chunk.slot[at] = slot;
      chunk.page[at] = page;
    }
    if (threadIdx.x == 0) {
      chunk.count = __popc(all);
      static_assert(sizeof(p.counters->rebuilt) == sizeof(unsigned long long));
      atomicAdd(reinterpret_cast<unsigned long long*>(&p.counters[row].rebuilt),
                static_cast<unsigned long long>(chunk.count));
    }
  }
  __syncthreads();
  return chunk.count > 0;
}

// Two neighbouring channels of either half of a key, rotated by the position's angles.
__device__ __forceinline__ void StoreRotated(Bf16* key, const float* angles, int32_t channel,
                                             int32_t half, float2 low, float2 high) {
  const float2 c = *reinterpret_cast<const float2*>(angles + channel);
  const float2 s = *reinterpret_cast<const float2*>(angles + half + channel);
  *reinterpret_cast<uint32_t*>(key + channel) =
      PackBf16(low.x * c.x - high.x * s.x, low.y * c.y - high.y * s.y);
  *reinterpret_cast<uint32_t*>(key + half + channel) =
      PackBf16(high.x * c.x + low.x * s.x, high.y * c.y + low.y * s.y);
}

// kDim / 16 warps, 8 channels of either half each.
template <int kDim>
__global__ void __launch_bounds__(2 * kDim)
    RebuildBf16Kernel(const __grid_constant__ RebuildKeysParams p) {
  __shared__ Chunk chunk;
  WaitForPredecessors();
  AllowSuccessors();
  const KvGeometry& g = p.tables.geometry;
  const Stream stream(p);
  if (stream.place >= NumRows(p.decode)) return;
  const int32_t row = p.decode.rows[stream.place];
  if (!FindPages(p, stream, row, chunk)) return;
  const int rank = g.key_rank;
  const int lane = static_cast<int>(threadIdx.x % kWarp),
            warp = static_cast<int>(threadIdx.x / kWarp);
  // A product does not care in which order k is gone through: a lane's 16-byte pieces are its fragments as they come.
  const auto* basis = reinterpret_cast<const Bf16*>(BasisAt(p.tables, row, p.layer)) +
                      (int64_t{stream.head} * kDim + warp * 8 + lane / 4) * rank;
  uint4 low[kMaxSteps], high[kMaxSteps];
  int32_t offset[kMaxSteps];  // of the lane's piece in a page's record; its token is lane / 4
#pragma unroll
  for (int i = 0; i < kMaxSteps; ++i) {
    const int column = 32 * i + 8 * (lane % 4);
    const bool used = column < rank;
    low[i] = used ? *reinterpret_cast<const uint4*>(basis + column) : uint4{};
    high[i] = used ? *reinterpret_cast<const uint4*>(basis + kDim / 2 * rank + column) : uint4{};
    offset[i] = used ? PieceOffset(g, lane / 4 * rank + column) : -1;
  }
  const auto* summaries = static_cast<const Bf16*>(p.tables.summaries);
  for (int32_t k = 0; k < chunk.count; k += 2) {
    const bool pair = k + 1 < chunk.count;
    const int32_t page[2] = {chunk.page[k], chunk.page[pair ? k + 1 : k]};
    const Bf16* record[2] = {summaries + RecordAt(p.tables, row, p.layer, page[0]),
                             summaries + RecordAt(p.tables, row, p.layer, page[1])};
    float c[4] = {}, d[4] = {};
#pragma unroll
    for (int i = 0; i < kMaxSteps; ++i) {
      if (32 * i >= rank) break;
      uint4 a0 = {}, a1 = {};
      if (offset[i] >= 0) {
        a0 = *reinterpret_cast<const uint4*>(record[0] + offset[i]);
        a1 = *reinterpret_cast<const uint4*>(record[1] + offset[i]);
      }
      Multiply(c, a0.x, a1.x, a0.y, a1.y, low[i].x, low[i].y);
      Multiply(c, a0.z, a1.z, a0.w, a1.w, low[i].z, low[i].w);
      Multiply(d, a0.x, a1.x, a0.y, a1.y, high[i].x, high[i].y);
      Multiply(d, a0.z, a1.z, a0.w, a1.w, high[i].z, high[i].w);
    }
    const int32_t channel = warp * 8 + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (i == 1 && !pair) break;
      auto* key = reinterpret_cast<Bf16*>(PageAt(p.tables.slots, g, chunk.slot[k + i])) +
                  g.KeyOffset(lane / 4);
      const float* angles = p.rope_table + (int64_t{page[i]} * kLandmarkTokens + lane / 4) * kDim;
      StoreRotated(key, angles, channel, kDim / 2, {c[2 * i], c[2 * i + 1]},
                   {d[2 * i], d[2 * i + 1]});
    }
  }
}

// Float32: a thread has a channel of either half, of two or four tokens.
constexpr int kF32Threads = 256;
__global__ void __launch_bounds__(kF32Threads)
    RebuildF32Kernel(const __grid_constant__ RebuildKeysParams p) {
  __shared__ Chunk chunk;
  __shared__ float factor[kLandmarkTokens * kMaxKeyRank];
  WaitForPredecessors();
  AllowSuccessors();
  const KvGeometry& g = p.tables.geometry;
  const Stream stream(p);
  if (stream.place >= NumRows(p.decode)) return;
  const int32_t row = p.decode.rows[stream.place];
  if (!FindPages(p, stream, row, chunk)) return;
  const int32_t rank = g.key_rank, half = g.head_dim / 2;
  const auto thread = static_cast<int32_t>(threadIdx.x);
  const int32_t channel = thread % half;
  const auto* low = reinterpret_cast<const float*>(BasisAt(p.tables, row, p.layer)) +
                    (int64_t{stream.head} * g.head_dim + channel) * rank;
  const float* high = low + half * rank;
  for (int32_t k = 0; k < chunk.count; ++k) {
    const float* record = static_cast<const float*>(p.tables.summaries) +
                          RecordAt(p.tables, row, p.layer, chunk.page[k]);
    __syncthreads();
    for (int32_t i = thread; i < kLandmarkTokens * rank; i += kF32Threads) {
      factor[i] = record[PieceOffset(g, i)];
    }
    __syncthreads();
    for (int32_t token = thread / half; token < kLandmarkTokens; token += kF32Threads / half) {
      float a = 0, b = 0;
      for (int32_t r = 0; r < rank; ++r) {
        a += factor[token * rank + r] * low[r];
        b += factor[token * rank + r] * high[r];
      }
      const float* angles =
          p.rope_table + (int64_t{chunk.page[k]} * kLandmarkTokens + token) * g.head_dim;
      auto* key =
          reinterpret_cast<float*>(PageAt(p.tables.slots, g, chunk.slot[k])) + g.KeyOffset(token);
      key[channel] = a * angles[channel] - b * angles[half + channel];
      key[half + channel] = b * angles[channel] + a * angles[half + channel];
    }
  }
}

}  // namespace

void RebuildKeys(const RebuildKeysParams& p, cudaStream_t stream) {
  CheckKeyGeometry(p.tables, p.rope_table);
  const KvGeometry& g = p.tables.geometry;
  SPIN_CHECK(p.whole_last > 0 && p.list_len != nullptr);
  if (p.decode.max_batch == 0) return;
  const dim3 grid(static_cast<unsigned>(p.decode.max_batch * g.num_kv_heads),
                  static_cast<unsigned>(CeilDiv(p.max_list, kChunk)));
  if (g.dtype == DType::kF32) {
    Launch(RebuildF32Kernel, grid, dim3(kF32Threads), 0, stream, p);
  } else if (g.head_dim == 64) {
    Launch(RebuildBf16Kernel<64>, grid, dim3(128), 0, stream, p);
  } else {
    Launch(RebuildBf16Kernel<128>, grid, dim3(256), 0, stream, p);
  }
}

}  // namespace spin::cuda
