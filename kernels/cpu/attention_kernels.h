// Attention of one token over a list of pages: the routine that decode and the token-wise prefill
// share, so that both give the same bits. Included by isa_*.cc alone, see simd.h.
//
// Tokens go in blocks of 16 from the list's begin, whatever the page size. For each block and head:
// 16 scores (each one dot product in the order of Scores), the block's maximum, the rescaling of
// what is there, 16 exponentials, then the values added in token order. Nothing of a page past
// num_tokens is read. A masked token has score -infinity.
#pragma once

#include <cstdint>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/simd.h"

namespace spin::cpu {
namespace {

constexpr int kBlockTokens = 16;
constexpr float kMinusInfinity = -__builtin_inff();

// Where a block's tokens are: two runs of 8, since a page holds a multiple of 8 tokens.
template <typename T>
struct KvBlock {
  const T* k[2];
  const T* v[2];
  int tokens;     // 1..16
  uint32_t mask;  // bit t: token t counts
};
constexpr uint32_t kAllTokens = 0xffff;

#if defined(__AVX512BF16__)

// A query ready for dot products with keys of type T.
template <typename T, int D>
struct Query {
  V16 part[D / 16];
};
template <int D>
struct Query<uint16_t, D> {
  __m512bh part[D / 32];
};
template <int D>
inline void LoadQuery(const uint16_t* q, Query<uint16_t, D>& out) {
  for (int c = 0; c < D / 32; ++c) out.part[c] = (__m512bh)_mm512_loadu_si512(q + 32 * c);
}
template <int D>
inline V16 PartialDot(const Query<uint16_t, D>& q, const uint16_t* k) {
  V16 sum = Zero();
#pragma GCC unroll 8
  for (int c = 0; c < D / 32; ++c) {
    sum = _mm512_dpbf16_ps(sum, q.part[c], (__m512bh)_mm512_loadu_si512(k + 32 * c));
  }
  return sum;
}

#else

template <typename T, int D>
struct Query {
  V16 part[D / 16];
};

#endif

template <typename T, int D>
inline void LoadQuery(const T* q, Query<T, D>& out) {
  for (int c = 0; c < D / 16; ++c) out.part[c] = Load(q + 16 * c);
}
// Sixteen lanes whose Sum is q . k.
template <typename T, int D>
inline V16 PartialDot(const Query<T, D>& q, const T* k) {
  V16 sum = Mul(q.part[0], Load(k));
#pragma GCC unroll 8
  for (int c = 1; c < D / 16; ++c) sum = Fma(q.part[c], Load(k + 16 * c), sum);
  return sum;
}

template <typename T, int D>
inline V16 Scores(const Query<T, D>& q, const KvBlock<T>& block, float scale) {
  V16 partial[kBlockTokens];
  if (block.tokens == kBlockTokens) {
#pragma GCC unroll 16
    for (int t = 0; t < kBlockTokens; ++t) partial[t] = PartialDot(q, block.k[t / 8] + (t % 8) * D);
  } else {
    for (int t = 0; t < kBlockTokens; ++t) {
      partial[t] = t < block.tokens ? PartialDot(q, block.k[t / 8] + (t % 8) * D) : Zero();
    }
  }
  const V16 scores = FirstLanes(Mul(Sums(partial), Set(scale)), block.tokens, kMinusInfinity);
  return block.mask == kAllTokens ? scores : MaskedLanes(scores, block.mask, kMinusInfinity);
}

// Running softmax of one head: out = sum / weight, all relative to exp(max).
template <int D>
struct HeadState {
  float max = kMinusInfinity;
  float weight = 0;
  float rescale = 1;                       // of this block
  alignas(64) float p[kBlockTokens] = {};  // of this block
  alignas(64) float sum[D] = {};
};

template <typename T, int D>
inline void AddScores(const Query<T, D>& q, const KvBlock<T>& block, float scale,
                      HeadState<D>& state) {
  const V16 scores = Scores(q, block, scale);
  const float block_max = MaxLane(scores);
  // Written so that a NaN score becomes the maximum, and so the output.
  const float max = state.max >= block_max ? state.max : block_max;
  // Nothing but masked tokens so far: -infinity - 0, not -infinity + infinity.
  const V16 p = Exp(Sub(scores, Set(max == kMinusInfinity ? 0.0f : max)));
  state.rescale = 1.0f;  // what Exp(0) is, to the bit
  if (state.max != max) {
    float rescale[16];
    Store(rescale, Exp(Set(state.max - max)));
    state.rescale = rescale[0];
  }
  state.weight = state.weight * state.rescale + Sum(p);
  state.max = max;
  Store(state.p, p);
}

// Asks for the keys and values of token t of a block: 64 bytes a line.
template <typename T, int D>
inline void Prefetch(const KvBlock<T>& block, int t) {
  constexpr int kLine = 64 / sizeof(T);
#pragma GCC unroll 8
  for (int c = 0; c < D; c += kLine) {
    __builtin_prefetch(block.k[t / 8] + (t % 8) * D + c);
    __builtin_prefetch(block.v[t / 8] + (t % 8) * D + c);
  }
}

// sum = sum * rescale + p . v for G heads at once: a value is loaded once for all of them. 64 dimensions at a time,
// so that there are 4 G independent chains. Meanwhile the memory fetches the next block.
template <typename T, int D, int G>
inline void AddValues(const KvBlock<T>& block, const KvBlock<T>& next, HeadState<D>* states) {
  for (int c = 0; c < D; c += 64) {
    V16 sum[G][4];
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) {
      const V16 rescale = Set(states[g].rescale);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) sum[g][i] = Mul(Load(states[g].sum + c + 16 * i), rescale);
    }
    for (int t = 0; t < block.tokens; ++t) {
      const T* row = block.v[t / 8] + (t % 8) * D + c;
      if (c == 0) Prefetch<T, D>(next, t);
      V16 v[4];
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) v[i] = Load(row + 16 * i);
#pragma GCC unroll 4
      for (int g = 0; g < G; ++g) {
        const V16 p = Set(states[g].p[t]);
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) sum[g][i] = Fma(p, v[i], sum[g][i]);
      }
    }
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) {
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) Store(states[g].sum + c + 16 * i, sum[g][i]);
    }
  }
}

// The block of tokens from `begin` of the list.
template <typename T, int D>
inline KvBlock<T> BlockAt(const AttendTask& task, int32_t begin) {
  const T* pages = static_cast<const T*>(task.pages);
  const int64_t plane = int64_t{D} << task.page_shift;
  const int32_t in_page = (1 << task.page_shift) - 1;
  KvBlock<T> block;
  block.tokens = task.num_tokens - begin < kBlockTokens ? task.num_tokens - begin : kBlockTokens;
  for (int run = 0; run < 2; ++run) {
    const int32_t token = 8 * run < block.tokens ? begin + 8 * run : begin;
    const int32_t index = token >> task.page_shift;
    const int64_t page =
        task.page_list != nullptr ? task.page_list[index] : task.first_page + index;
    block.k[run] = pages + page * 2 * plane + int64_t{token & in_page} * D;
    block.v[run] = block.k[run] + plane;
  }
  block.mask = kAllTokens;
  if (task.page_mask != nullptr) {  // pages of 8 tokens
    const int32_t page = begin / 8;
    const uint32_t second = block.tokens > 8 ? task.page_mask[page + 1] : 0;
    block.mask = task.page_mask[page] | second << 8;
  }
  return block;
}

// Sums, maximum, weight: how a head's state is kept between two lists.
template <int D>
inline void LoadState(const float* from, HeadState<D>& state) {
  for (int c = 0; c < D; c += 16) Store(state.sum + c, Load(from + c));
  state.max = from[D];
  state.weight = from[D + 1];
}
template <int D>
inline void StoreState(const HeadState<D>& state, float* to) {
  for (int c = 0; c < D; c += 16) Store(to + c, Load(state.sum + c));
  to[D] = state.max;
  to[D + 1] = state.weight;
}

// Takes in what was attended to elsewhere.
template <int D>
inline void Merge(const float* other, HeadState<D>& state) {
  const float other_max = other[D];
  if (other_max == kMinusInfinity) return;  // nothing was
  const float max = state.max >= other_max ? state.max : other_max;
  float scale[16];
  Store(scale, Exp(Set(state.max - max)));
  const V16 own = Set(scale[0]);
  Store(scale, Exp(Set(other_max - max)));
  const V16 others = Set(scale[0]);
  for (int c = 0; c < D; c += 16) {
    Store(state.sum + c, Fma(others, Load(other + c), Mul(own, Load(state.sum + c))));
  }
  Store(scale, Fma(others, Set(other[D + 1]), Mul(own, Set(state.weight))));
  state.weight = scale[0];
  state.max = max;
}

template <typename T, int D, int G>
void AttendHeads(const AttendTask& task, int32_t head) {
  const T* q = static_cast<const T*>(task.q) + int64_t{head} * D;
  Query<T, D> queries[G];
  HeadState<D> states[G];
  for (int g = 0; g < G; ++g) {
    LoadQuery(q + g * D, queries[g]);
    if (task.from != nullptr) LoadState(task.from + (head + g) * (D + 2), states[g]);
  }

  KvBlock<T> block = BlockAt<T, D>(task, 0);
  for (int32_t begin = 0; begin < task.num_tokens; begin += kBlockTokens) {
    const bool last = begin + kBlockTokens >= task.num_tokens;
    const KvBlock<T> next = last ? block : BlockAt<T, D>(task, begin + kBlockTokens);
    for (int g = 0; g < G; ++g) AddScores(queries[g], block, task.scale, states[g]);
    AddValues<T, D, G>(block, next, states);
    block = next;
  }

  T* out = static_cast<T*>(task.out) + int64_t{head} * D;
  for (int g = 0; g < G; ++g) {
    if (task.to != nullptr) {
      StoreState(states[g], task.to + (head + g) * (D + 2));
      continue;
    }
    if (task.estimate != nullptr) Merge(task.estimate + (head + g) * (D + 2), states[g]);
    const V16 inverse = Set(1.0f / states[g].weight);
    for (int c = 0; c < D; c += 16) Store(out + g * D + c, Mul(Load(states[g].sum + c), inverse));
  }
}

template <typename T, int D>
inline void AttendOf(const AttendTask& task) {
  int32_t head = 0;
  for (; head + 4 <= task.num_heads; head += 4) AttendHeads<T, D, 4>(task, head);
  switch (task.num_heads - head) {
    case 3:
      return AttendHeads<T, D, 3>(task, head);
    case 2:
      return AttendHeads<T, D, 2>(task, head);
    case 1:
      return AttendHeads<T, D, 1>(task, head);
    default:
      return;
  }
}

void Attend(const AttendTask& task, bool bf16) {
  if (bf16 && task.head_dim == 64) return AttendOf<uint16_t, 64>(task);
  if (bf16) return AttendOf<uint16_t, 128>(task);
  if (task.head_dim == 64) return AttendOf<float, 64>(task);
  AttendOf<float, 128>(task);
}

}  // namespace
}  // namespace spin::cpu
