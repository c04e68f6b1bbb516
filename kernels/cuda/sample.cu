// The last step of a pass: logits become a token a row, and log-probabilities where asked.
//
// One block a row; a row of 151,936 logits is 600 KB, out of the L2 by one SM some 7 us a walk. A greedy row takes one
// walk. A drawn row takes two (maximum; weights into the first histogram) and two more for each of top_k, top_p and the
// draw itself (row_select.cuh), and one for the token's index. Weights are exp((x - max) / temperature); their masses are
// counted in units of 2^-40, integers, so that a row gives the same token on every run. The CPU twin adds doubles:
// sums differ by about 1e-10 of the mass, so a draw differs with about that probability.
#include <cmath>

#include "common/random.h"
#include "kernels/cuda/families.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/row_select.cuh"

namespace spin::cuda {
namespace {

using WeightDigits = KeyDigits<18, 7>;  // of a float in (0, 1]: 13 bits, 11, 7
using LogitDigits = KeyDigits<20, 9>;   // of an ordered float: 12 bits, 11, 9

constexpr float kMassUnits = 0x1p40f;

__device__ __forceinline__ uint64_t MassOf(float weight) {
  return static_cast<uint64_t>(__float2ull_rn(weight * kMassUnits));
}

// Orders as the logit does; 0 for NaN, which takes no part.
__device__ __forceinline__ uint32_t LogitKey(float x) {
  if (isnan(x)) return 0;
  const uint32_t bits = __float_as_uint(x + 0.0f);
  return (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
}

// Greatest logit; -infinity when there is none. NaN is none.
__device__ float RowMaximum(const float* x, int32_t n, RowShared& s) {
  float max = -INFINITY;
  for (int32_t i = threadIdx.x; i < n; i += kRowThreads) max = fmaxf(max, x[i]);
  return RowMaxOf(max, s);
}

// Lowest index of the greatest logit; 0 when all are NaN.
__device__ int32_t RowArgMax(const float* x, int32_t n, RowShared& s) {
  float best = -INFINITY;
  int32_t at = n;
  for (int32_t i = threadIdx.x; i < n; i += kRowThreads) {
    if (x[i] > best || (x[i] == best && at == n)) {
      best = x[i];
      at = i;
    }
  }
  const float max = RowMaxOf(best, s);
  int32_t lowest = best == max ? at : n;
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    lowest = min(lowest, __shfl_xor_sync(kAllLanes, lowest, offset));
  }
  __syncthreads();
  if (threadIdx.x == 0) s.index = n;
  __syncthreads();
  if (threadIdx.x % kWarp == 0) atomicMin(&s.index, lowest);
  __syncthreads();
  const int32_t index = s.index;
  __syncthreads();
  return index == n ? 0 : index;
}

// The `num` greatest logits into out->top_*, most probable first, ties by lower id.
__device__ void TopLogits(const float* x, int32_t n, int32_t num, float max, double log_sum,
                          SampledToken* out, RowShared& s) {
  __shared__ uint32_t keys[kMaxLogprobs];
  __shared__ int32_t ids[kMaxLogprobs];
  __shared__ int32_t size;
  const auto key_mass = [&](int32_t i, uint32_t& key, uint64_t&) { key = LogitKey(x[i]); };
  FillHistogram(s.first, n, key_mass,
                [](uint32_t key) { return static_cast<int32_t>(key >> LogitDigits::kHigh); });
  const RowCut cut = FindCut<LogitDigits>(n, static_cast<uint32_t>(num), 0, key_mass, s);
  if (threadIdx.x == 0) size = 0;
  __syncthreads();
  for (int32_t i = threadIdx.x; i < n; i += kRowThreads) {
    const uint32_t key = LogitKey(x[i]);
    if (key <= cut.key) continue;
    const int32_t place = atomicAdd(&size, 1);
    keys[place] = key;
    ids[place] = i;
  }
  for (uint32_t rank = 1; rank <= cut.needed; ++rank) {
    const int32_t id = NthIndex(
        n, rank, [&](int32_t i) { return LogitKey(x[i]) == cut.key; }, s);
    if (threadIdx.x == 0 && id >= 0) {
      keys[size] = cut.key;
      ids[size++] = id;
    }
    __syncthreads();
  }
  if (threadIdx.x != 0) return;
  for (int32_t i = 0; i < size; ++i) {  // a selection sort of at most 20
    int32_t best = i;
    for (int32_t j = i + 1; j < size; ++j) {
      if (keys[j] > keys[best] || (keys[j] == keys[best] && ids[j] < ids[best])) best = j;
    }
    const uint32_t key = keys[best];
    const int32_t id = ids[best];
    keys[best] = keys[i];
    ids[best] = ids[i];
    keys[i] = key;
    ids[i] = id;
    out->top_token[i] = id;
    out->top_logprob[i] = static_cast<float>(static_cast<double>(x[id]) - max - log_sum);
  }
  out->num_top = size;
}

// Log-softmax of a row at `token` (< 0: nowhere yet) and at its best tokens. Returns max + log of the sum.
__device__ double Logprobs(const float* x, int32_t n, int32_t num_top, SampledToken* out,
                           RowShared& s) {
  const float max = RowMaximum(x, n, s);
  double sum = 0;
  for (int32_t i = threadIdx.x; i < n; i += kRowThreads) {
    if (!isnan(x[i])) sum += static_cast<double>(expf(x[i] - max));
  }
  const double log_sum = log(RowSumOf(sum, s.doubles));
  if (num_top > 0) {
    TopLogits(x, n, min(num_top, n), max, log_sum, out, s);
  } else if (threadIdx.x == 0) {
    out->num_top = 0;
  }
  return static_cast<double>(max) + log_sum;
}

__device__ bool HasPenalties(const SamplingRow& r) {
  return r.presence_penalty != 0 || r.frequency_penalty != 0 || r.repetition_penalty != 1;
}

// Ban, bias and penalties, in place.
__device__ void Adjust(const SamplingRow& r, const uint32_t* history, int32_t generated, int32_t n,
                       float* x) {
  if (generated < r.min_tokens) {
    for (int32_t i = threadIdx.x; i < r.num_stop_tokens; i += kRowThreads) {
      x[r.stop_tokens[i]] = -INFINITY;
    }
  }
  __syncthreads();
  for (int32_t i = threadIdx.x; i < r.num_bias; i += kRowThreads) {
    SPIN_DEVICE_CHECK(r.bias_token[i] >= 0 && r.bias_token[i] < n);
    atomicAdd(x + r.bias_token[i], r.bias[i]);
  }
  __syncthreads();
  if (!HasPenalties(r)) return;
  for (int32_t i = threadIdx.x; i < n; i += kRowThreads) {
    const uint32_t seen = history[i];
    if (seen == 0) continue;
    float value = x[i];
    if (r.repetition_penalty != 1) {
      value = value > 0 ? __fdiv_rn(value, r.repetition_penalty)
                        : __fmul_rn(value, r.repetition_penalty);
    }
    const uint32_t times = seen & 0x7fffffff;
    if (times != 0) {
      value = __fsub_rn(value, r.presence_penalty);
      value = __fsub_rn(value, __fmul_rn(r.frequency_penalty, static_cast<float>(times)));
    }
    x[i] = value;
  }
  __syncthreads();
}

// One draw, cut to a prefix of the descending order: the top_k first, of these the fewest whose share reaches top_p, of
// these those at least min_p times as probable as the first.
__device__ int32_t Draw(const SamplingRow& r, const float* x, int32_t n, uint64_t generated,
                        RowShared& s) {
  const float max = RowMaximum(x, n, s);
  if (!isfinite(max)) return RowArgMax(x, n, s);
  const auto weight = [&](int32_t i) {
    const float z = __fdiv_rn(x[i] - max, r.temperature);
    return z > -86.6f ? expf(z) : 0.0f;  // NaN weighs nothing
  };
  const auto key_mass = [&](int32_t i, uint32_t& key, uint64_t& mass) {
    const float w = weight(i);
    key = __float_as_uint(w);
    mass = MassOf(w);
  };
  FillHistogram(s.first, n, key_mass,
                [](uint32_t key) { return static_cast<int32_t>(key >> WeightDigits::kHigh); });
  uint64_t total = 0;
  for (int b = threadIdx.x; b < kMaxBuckets; b += kRowThreads) total += s.first.mass[b];
  total = RowSumOf(total, s.warp_mass);
  const auto share = [](double part, uint64_t mass) {
    const double units = ceil(part * static_cast<double>(mass));
    return units < 1 ? uint64_t{1} : static_cast<uint64_t>(units);
  };
  uint64_t mass = total;
  if (r.top_k > 0 && r.top_k < n) {
    mass = FindCut<WeightDigits>(n, static_cast<uint32_t>(r.top_k), 0, key_mass, s).mass;
  }
  if (r.top_p < 1) {
    mass = min(mass, FindCut<WeightDigits>(n, 0, share(r.top_p, mass), key_mass, s).mass);
  }
  if (r.min_p > 0) {
    uint64_t above = 0;
    for (int32_t i = threadIdx.x; i < n; i += kRowThreads) {
      const float w = weight(i);
      if (w >= r.min_p) above += MassOf(w);
    }
    mass = min(mass, RowSumOf(above, s.warp_mass));
  }
  const float u = UniformOpenClosed(Philox(r.seed, generated, 0)[0]);
  const RowCut cut = FindCut<WeightDigits>(n, 0, share(u, mass), key_mass, s);
  return NthIndex(
      n, cut.needed, [&](int32_t i) { return __float_as_uint(weight(i)) == cut.key; }, s);
}

__global__ void __launch_bounds__(kRowThreads, 1)
    SampleKernel(const __grid_constant__ SampleParams p) {
  extern __shared__ __align__(16) unsigned char dynamic[];
  RowShared& s = *reinterpret_cast<RowShared*>(dynamic);
  WaitForPredecessors();
  const auto place = static_cast<int32_t>(blockIdx.x);
  if (place >= *p.decode.num_rows) return;
  const int32_t row = p.decode.rows[place];
  const SamplingRow& r = p.sampling[row];
  const float* x = p.logits + int64_t{place} * p.vocab;
  uint32_t* history = p.history == nullptr ? nullptr : p.history + int64_t{row} * p.vocab;
  const int32_t position = p.decode.position[row] + 1;
  const int32_t generated = position - r.prompt_tokens;
  SPIN_DEVICE_CHECK(generated >= 0);
  SampledToken* out = p.out + place;

  double normaliser = 0;
  if (r.num_logprobs >= 0) normaliser = Logprobs(x, p.vocab, r.num_logprobs, out, s);
  const bool adjusts =
      (generated < r.min_tokens && r.num_stop_tokens > 0) || r.num_bias > 0 || HasPenalties(r);
  const float* adjusted = x;
  if (adjusts) {
    float* copy = p.adjusted + int64_t{place} * p.vocab;
    for (int32_t i = threadIdx.x; i < p.vocab; i += kRowThreads) copy[i] = x[i];
    __syncthreads();
    Adjust(r, history, generated, p.vocab, copy);
    adjusted = copy;
  }
  const int32_t token = r.temperature > 0
                            ? Draw(r, adjusted, p.vocab, static_cast<uint64_t>(generated), s)
                            : RowArgMax(adjusted, p.vocab, s);
  if (threadIdx.x != 0) return;
  out->token = token;
  out->logprob =
      r.num_logprobs >= 0 ? static_cast<float>(static_cast<double>(x[token]) - normaliser) : 0.0f;
  if (r.num_logprobs < 0) out->num_top = 0;
  if (HasPenalties(r)) ++history[token];
  p.decode.token[row] = token;
  p.decode.position[row] = position;
}

__global__ void __launch_bounds__(kRowThreads, 1)
    TokenLogprobsKernel(const __grid_constant__ TokenLogprobsParams p) {
  extern __shared__ __align__(16) unsigned char dynamic[];
  RowShared& s = *reinterpret_cast<RowShared*>(dynamic);
  WaitForPredecessors();
  const float* x = p.logits + int64_t{blockIdx.x} * p.vocab;
  SampledToken* out = p.out + blockIdx.x;
  const double normaliser = Logprobs(x, p.vocab, p.num_top, out, s);
  if (threadIdx.x != 0) return;
  const int32_t target = p.target[blockIdx.x];
  SPIN_DEVICE_CHECK(target >= 0 && target < p.vocab);
  out->token = target;
  out->logprob = static_cast<float>(static_cast<double>(x[target]) - normaliser);
}

}  // namespace

void Sample(const SampleParams& p, cudaStream_t stream) {
  if (p.decode.max_batch == 0) return;
  Launch(SampleKernel, static_cast<unsigned>(p.decode.max_batch), kRowThreads, sizeof(RowShared),
         stream, p);
}

void TokenLogprobs(const TokenLogprobsParams& p, cudaStream_t stream) {
  if (p.n == 0) return;
  Launch(TokenLogprobsKernel, static_cast<unsigned>(p.n), kRowThreads, sizeof(RowShared), stream,
         p);
}

}  // namespace spin::cuda
