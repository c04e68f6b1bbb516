// RetroInfer's estimate: attention to clusters by their records, as paged attention is to tokens by their pages.
//
// A stream (batch place, KV head) is cut into parts of its list, a CTA each; the last of them to arrive merges what all
// have left, in the parts' order. A warp takes 16 clusters at a time, all query heads of the group together
// (paged_attention_mma.cuh).
#include <algorithm>
#include <cmath>

#include "common/check.h"
#include "common/math.h"
#include "kernels/cuda/arrival.cuh"
#include "kernels/cuda/cuda_limits.h"
#include "kernels/cuda/families.h"
#include "kernels/cuda/float_attention.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/paged_attention_mma.cuh"
#include "kernels/cuda/stream_view.cuh"

namespace spin::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * kWarp;
constexpr int kCtasPerSm = 3;
constexpr int kRoundClusters = kWarps * kStepTokens;  // a step of every warp
constexpr float kLog2E = 1.44269504f;
constexpr float kLn2 = 0.693147181f;

// A state of a query head: sums in SumOrder, then maximum (for exp2) and weight. Rows of so many floats meet no bank
// twice (Attention::Write) and keep pieces of 16 bytes aligned.
template <int D>
constexpr int kStateFloats = D + 4;

template <int D>
struct Shared {
  uint4 queries[D / 32][kWarp];
  alignas(16) float states[kWarps][kMaxGroup * kStateFloats<D>];  // [group][kStateFloats] of a warp
  float maxima[kWarps][kMaxGroup], weights[kWarps][kMaxGroup];
};

// A stream and its records.
class Records {
 public:
  __device__ Records(const ClusterEstimateParams& p, int32_t place, int32_t head)
      : geometry(p.tables.geometry),
        stream(int64_t{place} * geometry.num_kv_heads + head),
        count(p.estimate_count[stream]),
        head_(head),
        ids_(p.estimate_ids + stream * p.max_estimate),
        directory_(p.tables.summary_dir + geometry.DirIndex(p.decode.rows[place], p.layer, 0)),
        pool_(static_cast<const char*>(p.tables.summaries)) {
    SPIN_DEVICE_CHECK(count >= 0 && count <= p.max_estimate);
  }

  // Number in the pool of the i-th of the list.
  __device__ __forceinline__ int32_t Number(int32_t i) const {
    constexpr int32_t kOfExtent = kExtentTokens / kClusterTokens;
    const int32_t id = ids_[i];
    const int32_t extent = directory_[id / kOfExtent];
    SPIN_DEVICE_CHECK(extent >= 0);
    return (extent * geometry.num_kv_heads + head_) * kOfExtent + id % kOfExtent;
  }
  __device__ __forceinline__ const char* At(int32_t number) const {
    return pool_ + number * geometry.summary_bytes();
  }
  template <typename T, int D>
  static __device__ __forceinline__ float TokensOf(const char* record) {
    return static_cast<float>(
        reinterpret_cast<const ClusterRun*>(record + 2 * D * sizeof(T))->size);
  }

  const KvGeometry& geometry;
  const int64_t stream;
  const int32_t count;

 private:
  const int32_t head_;
  const int32_t* ids_;
  const int32_t* directory_;
  const char* pool_;
};

// The lane's chunks of the group's queries into shared memory.
template <int D>
__device__ __forceinline__ void LoadQueries(const ClusterEstimateParams& p, int32_t place,
                                            int32_t kv_head, Shared<D>& shared) {
  const KvGeometry& g = p.tables.geometry;
  const int warp = static_cast<int>(threadIdx.x / kWarp),
            lane = static_cast<int>(threadIdx.x % kWarp);
  if (warp >= D / 32) return;
  uint4 q = {};
  if (lane / 4 < g.group()) {
    const Bf16* from = static_cast<const Bf16*>(p.qkv) + place * QkvWidth(g) +
                       int64_t{kv_head * g.group() + lane / 4} * D;
    q = reinterpret_cast<const uint4*>(from)[lane % 4 + 4 * warp];
  }
  shared.queries[warp][lane] = q;
}

// The warp's clusters among [begin, end) of the list, 16 a step. Past the end there are copies of the last one, which
// weigh nothing.
template <int D>
__device__ __forceinline__ void Attend(const Records& records, int32_t begin, int32_t end,
                                       float scale, const Shared<D>& shared, Attention<D>& state) {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  int32_t step = begin + static_cast<int32_t>(threadIdx.x / kWarp) * kStepTokens;
  if (step >= end) return;
  const auto number = [&] { return records.Number(min(step + lane % kStepTokens, end - 1)); };
  const auto of = [&](int32_t numbers, int i) {
    return records.At(__shfl_sync(kAllLanes, numbers, i));
  };
  for (int32_t numbers = number(); step < end;) {
    const float tokens = Records::TokensOf<Bf16, D>(records.At(numbers));
    KeyFragment<D> keys;
    ValueFragment<D> values;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const char* from = of(numbers, lane / 4 + 8 * i) + lane % 4 * 16;
#pragma unroll
      for (int j = 0; j < D / 32; ++j) keys.row[i][j] = LoadOnce(from + 64 * j);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const char* from = of(numbers, lane % 4 * 2 + i % 2 + i / 2 * 8) + 2 * D + lane / 4 * 16;
#pragma unroll
      for (int j = 0; j < D / 64; ++j) values.row[i][j] = LoadOnce(from + 128 * j);
    }
    const int32_t valid = end - step;
    step += kRoundClusters;
    if (step < end) numbers = number();
    float scores[4];
    uint32_t p[2];
    Scores(keys, shared.queries, lane, scores);
    if (valid < kStepTokens) MaskScores(scores, valid, lane);
    state.AddScores(scores, scale, p, __shfl_sync(kAllLanes, tokens, lane / 4),
                    __shfl_sync(kAllLanes, tokens, lane / 4 + 8));
    state.AddValues(values, p);
  }
}

// Four dimensions (column, in SumOrder) of a head's `count` states, [count][group][kStateFloats], in order.
template <int D>
struct Merged {
  template <typename Load4, typename Load2>
  __device__ __forceinline__ Merged(const float* states, int count, int stride, int column,
                                    Load4 load4, Load2 load2) {
    for (int i = 0; i < count; ++i) max = fmaxf(max, load2(states + i * stride + D).x);
    for (int i = 0; i < count; ++i) {
      const float2 of = load2(states + i * stride + D);
      const float4 x = load4(states + i * stride + 4 * column);
      const float share = of.x == -INFINITY ? 0 : Exp2(of.x - max);
      weight = fmaf(share, of.y, weight);
      sum.x = fmaf(share, x.x, sum.x);
      sum.y = fmaf(share, x.y, sum.y);
      sum.z = fmaf(share, x.z, sum.z);
      sum.w = fmaf(share, x.w, sum.w);
    }
  }

  // As a part's state.
  __device__ __forceinline__ void Store(float* state, int column) const {
    reinterpret_cast<float4*>(state)[column] = sum;
    if (column == 0) *reinterpret_cast<float2*>(state + D) = {max, weight};
  }
  // As the result: dimensions in order, the maximum a logit.
  __device__ __forceinline__ void StoreOut(float* to, int column) const {
    to[SumOrder<D>(4 * column)] = sum.x;
    to[SumOrder<D>(4 * column + 1)] = sum.y;
    to[SumOrder<D>(4 * column + 2)] = sum.z;
    to[SumOrder<D>(4 * column + 3)] = sum.w;
    if (column != 0) return;
    to[D] = max * kLn2;
    to[D + 1] = weight;
  }

  float4 sum = {};
  float max = -INFINITY, weight = 0;
};

// Calls body(head, column) for all of the group, a thread a call.
template <int D, typename Body>
__device__ __forceinline__ void ForEachColumn(int group, Body body) {
  for (int i = static_cast<int>(threadIdx.x); i < group * (D / 4); i += kThreads) {
    body(i / (D / 4), i % (D / 4));
  }
}

// What the parts of one stream leave: in scratch, or as the result where there is one part only.
template <int D>
__device__ __forceinline__ void FinishPart(const Records& records, const Shared<D>& shared,
                                           int parts, const Scratch& scratch, float* out) {
  const int group = records.geometry.group();
  const int64_t at = records.stream * gridDim.x * group * kStateFloats<D>;
  float* const states = scratch.partials + at;
  const int stride = group * kStateFloats<D>;
  ForEachColumn<D>(group, [&](int head, int column) {
    const Merged<D> merged(
        shared.states[0] + head * kStateFloats<D>, kWarps, kMaxGroup * kStateFloats<D>, column,
        [](const float* x) { return *reinterpret_cast<const float4*>(x); },
        [](const float* x) { return *reinterpret_cast<const float2*>(x); });
    if (parts == 1) {
      merged.StoreOut(out + head * (D + 2), column);
    } else {
      merged.Store(states + static_cast<int>(blockIdx.x) * stride + head * kStateFloats<D>, column);
    }
  });
  if (parts == 1) return;
  if (!LastToArrive(scratch.tickets + records.stream, 1, static_cast<uint32_t>(parts))) return;
  ForEachColumn<D>(group, [&](int head, int column) {
    const Merged<D> merged(
        states + head * kStateFloats<D>, parts, stride, column,
        [](const float* x) { return __ldcg(reinterpret_cast<const float4*>(x)); },
        [](const float* x) { return __ldcg(reinterpret_cast<const float2*>(x)); });
    merged.StoreOut(out + head * (D + 2), column);
  });
}

// Floor: the records read once, 528 bytes a cluster at D 128; a CTA has 32 KiB of them in flight, a multiprocessor
// three such. For a single sequence it is latency: ids, directory, record, and a merge.
template <int D>
__global__ void __launch_bounds__(kThreads, kCtasPerSm)
    EstimateBf16(const __grid_constant__ ClusterEstimateParams p, const Scratch scratch,
                 float scale) {
  __shared__ Shared<D> shared;
  WaitForPredecessors();
  AllowSuccessors();
  const auto head = static_cast<int32_t>(blockIdx.y), place = static_cast<int32_t>(blockIdx.z);
  if (place >= NumRows(p.decode)) return;
  const Records records(p, place, head);
  const int group = records.geometry.group();
  float* const out = p.partial + records.stream * group * (D + 2);
  const auto launched = static_cast<int32_t>(gridDim.x);
  const int32_t length = RoundUp(CeilDiv(records.count, launched), kRoundClusters);
  const int32_t begin = static_cast<int32_t>(blockIdx.x) * length;
  // Without clusters one CTA writes an empty state.
  if (begin >= records.count && (records.count > 0 || blockIdx.x > 0)) return;
  const int32_t parts = records.count == 0 ? 1 : CeilDiv(records.count, length);
  LoadQueries<D>(p, place, head, shared);
  __syncthreads();
  Attention<D> state;
  state.Reset();
  Attend<D>(records, begin, min(begin + length, records.count), scale, shared, state);
  const int warp = static_cast<int>(threadIdx.x / kWarp),
            lane = static_cast<int>(threadIdx.x % kWarp);
  state.Write(shared.states[warp], kStateFloats<D>, shared.maxima[warp], shared.weights[warp],
              group, lane);
  __syncwarp();
  if (lane < group) {
    float* of_head = shared.states[warp] + lane * kStateFloats<D>;
    of_head[D] = shared.maxima[warp][lane];
    of_head[D + 1] = shared.weights[warp][lane];
  }
  __syncthreads();
  FinishPart<D>(records, shared, parts, scratch, out);
}

// A CTA a query head, its warps taking clusters in turn.
template <int D>
__global__ void __launch_bounds__(kF32Threads)
    EstimateF32(const __grid_constant__ ClusterEstimateParams p, float scale) {
  constexpr int kDims = D / kWarp;
  __shared__ FloatStates<D> states;
  WaitForPredecessors();
  AllowSuccessors();
  const auto head = static_cast<int32_t>(blockIdx.x), place = static_cast<int32_t>(blockIdx.y);
  if (place >= NumRows(p.decode)) return;
  const KvGeometry& g = p.tables.geometry;
  const Records records(p, place, head / g.group());
  const float* q = static_cast<const float*>(p.qkv) + place * QkvWidth(g) + int64_t{head} * D;
  FloatState<kDims> state;
  for (auto i = static_cast<int32_t>(threadIdx.x / kWarp); i < records.count; i += kF32Warps) {
    const char* record = records.At(records.Number(i));
    const auto* elements = reinterpret_cast<const float*>(record);
    float dot = 0, value[kDims];
#pragma unroll
    for (int c = 0; c < kDims; ++c) {
      const int dim = c * kWarp + static_cast<int>(threadIdx.x % kWarp);
      dot = fmaf(q[dim], elements[dim], dot);
      value[c] = elements[D + dim];
    }
    state.Add(WarpSum(dot) * scale, value, Records::TokensOf<float, D>(record));
  }
  states.Put(state);
  __syncthreads();
  if (threadIdx.x >= D) return;
  float sum = 0, max = -INFINITY, weight = 0;
  states.AddTo(static_cast<int>(threadIdx.x), sum, max, weight);
  float* out = p.partial + (int64_t{place} * g.num_q_heads + head) * (D + 2);
  out[threadIdx.x] = sum;
  if (threadIdx.x == 0) out[D] = max;
  if (threadIdx.x == 0) out[D + 1] = weight;
}

// CTAs a stream: enough to fill the machine, none without a round, as far as scratch has room.
int32_t Parts(const ClusterEstimateParams& p) {
  const KvGeometry& g = p.tables.geometry;
  const int32_t streams = p.decode.max_batch * g.num_kv_heads;
  const int64_t room = kPartialFloats / (int64_t{streams} * g.group() * (g.head_dim + 4));
  const int64_t wanted = std::min(CeilDiv(kCtasPerSm * Traits().num_sms, streams),
                                  CeilDiv(std::max(p.max_estimate, 1), kRoundClusters));
  return static_cast<int32_t>(std::clamp<int64_t>(wanted, 1, std::max<int64_t>(room, 1)));
}

template <int D>
void LaunchEstimate(const ClusterEstimateParams& p, const Scratch& scratch, cudaStream_t stream) {
  const KvGeometry& g = p.tables.geometry;
  const float scale = 1 / std::sqrt(static_cast<float>(D));
  const auto batch = static_cast<unsigned>(p.decode.max_batch);
  if (g.dtype == DType::kF32) {
    const dim3 grid(static_cast<unsigned>(g.num_q_heads), batch);
    Launch(EstimateF32<D>, grid, kF32Threads, 0, stream, p, scale);
  } else {
    const dim3 grid(static_cast<unsigned>(Parts(p)), static_cast<unsigned>(g.num_kv_heads), batch);
    Launch(EstimateBf16<D>, grid, kThreads, 0, stream, p, scratch, scale * kLog2E);
  }
}

}  // namespace

void ClusterEstimate(const ClusterEstimateParams& p, const Scratch& scratch, cudaStream_t stream) {
  const KvGeometry& g = p.tables.geometry;
  SPIN_CHECK(g.dtype == DType::kF32 || g.dtype == DType::kBf16);
  SPIN_CHECK(g.head_dim == 64 || g.head_dim == 128);
  SPIN_CHECK_EQ(g.partition_tokens, kClusterTokens);
  SPIN_CHECK_EQ(g.summary_elements, 2 * g.head_dim + kClusterTailElements);
  SPIN_CHECK(1 <= g.group() && g.group() <= kMaxGroup);
  static_assert(kMaxClusterStreams <= kTickets);
  SPIN_CHECK_LE(int64_t{p.decode.max_batch} * g.num_kv_heads, kMaxClusterStreams);
  if (p.decode.max_batch == 0) return;
  g.head_dim == 64 ? LaunchEstimate<64>(p, scratch, stream)
                   : LaunchEstimate<128>(p, scratch, stream);
}

}  // namespace spin::cuda
