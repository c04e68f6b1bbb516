// The last step of a pass: logits become a token a row, and log-probabilities where asked.
//
// The adjusted row is a copy only when something adjusts it. A greedy row without log-probabilities
// costs one maximum; a drawn row one pass of exp and a few walks over buckets (ranked_weights.h). A
// row's token depends on the row alone: its logits, its settings, its history, its seed and the
// index of the token in its generation.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "common/random.h"
#include "kernels/cpu/families.h"
#include "kernels/cpu/ranked_weights.h"
#include "kernels/cpu/row_math.h"
#include "kernels/cpu/stream_view.h"

namespace spin::cpu {
namespace {

// Buffers of a thread; they grow with the first row and stay.
struct Scratch {
  std::vector<float> adjusted;
  std::vector<float> weights;
  RankedWeights ranked;
};

Scratch& ThreadScratch(int32_t vocab) {
  thread_local Scratch scratch;
  if (scratch.adjusted.size() < static_cast<size_t>(vocab)) {
    scratch.adjusted.resize(static_cast<size_t>(vocab));
    scratch.weights.resize(static_cast<size_t>(vocab));
  }
  return scratch;
}

// The greatest `num` logits into out->top_*, log-probabilities still without the normaliser. Ties:
// lower id first.
void TopLogits(const float* logits, int32_t vocab, int32_t num, SampledToken* out) {
  num = std::min(num, vocab);
  int32_t size = 0;
  float least = -std::numeric_limits<float>::infinity();
  for (int32_t i = 0; i < vocab; ++i) {
    if (!(logits[i] > least) && size == num) continue;  // the usual case
    if (std::isnan(logits[i]) || num == 0) continue;
    int32_t at = size < num ? size++ : num - 1;
    for (; at > 0 && logits[i] > out->top_logprob[at - 1]; --at) {
      out->top_logprob[at] = out->top_logprob[at - 1];
      out->top_token[at] = out->top_token[at - 1];
    }
    out->top_logprob[at] = logits[i];
    out->top_token[at] = i;
    least = out->top_logprob[size - 1];
  }
  out->num_top = size;
}

// Log-softmax of one row at `token` and at its best `num_top` tokens.
void Logprobs(const float* logits, int32_t vocab, int32_t token, int32_t num_top,
              SampledToken* out) {
  SPIN_CHECK(num_top >= 0 && num_top <= kMaxLogprobs);
  const float max = RowMax(logits, vocab);
  const double log_sum = std::log(RowExpSum(logits, vocab, max, 1.0f, nullptr));
  const auto logprob = [&](float logit) {
    return static_cast<float>(static_cast<double>(logit) - max - log_sum);
  };
  out->token = token;
  out->logprob = logprob(logits[token]);
  TopLogits(logits, vocab, num_top, out);
  for (int32_t i = 0; i < out->num_top; ++i) out->top_logprob[i] = logprob(out->top_logprob[i]);
}

bool HasPenalties(const SamplingRow& s) {
  return s.presence_penalty != 0 || s.frequency_penalty != 0 || s.repetition_penalty != 1;
}

// x > 0 ? x / r : x * r for every token seen (arXiv 1909.05858); then OpenAI's penalties, for
// generated ones.
void Penalise(const SamplingRow& s, const uint32_t* history, int32_t vocab, float* x) {
  for (int32_t i = 0; i < vocab; ++i) {
    const uint32_t seen = history[i];
    if (seen == 0) continue;
    if (s.repetition_penalty != 1) {
      x[i] = x[i] > 0 ? x[i] / s.repetition_penalty : x[i] * s.repetition_penalty;
    }
    const uint32_t times = seen & 0x7fffffff;
    if (times == 0) continue;
    x[i] -= s.presence_penalty;
    x[i] -= s.frequency_penalty * static_cast<float>(times);
  }
}

// The row's logits after ban, bias and penalties: `logits` itself when none applies.
const float* Adjust(const SampleParams& p, const SamplingRow& s, const float* logits,
                    const uint32_t* history, int32_t generated, Scratch& scratch) {
  const bool ban = generated < s.min_tokens && s.num_stop_tokens > 0;
  const bool penalties = HasPenalties(s);
  if (!ban && s.num_bias == 0 && !penalties) return logits;
  float* x = scratch.adjusted.data();
  std::copy_n(logits, p.vocab, x);
  const auto at = [&](int32_t token) -> float& {
    SPIN_CHECK(token >= 0 && token < p.vocab);
    return x[token];
  };
  for (int32_t i = 0; ban && i < s.num_stop_tokens; ++i) {
    at(s.stop_tokens[i]) = -std::numeric_limits<float>::infinity();
  }
  for (int32_t i = 0; i < s.num_bias; ++i) at(s.bias_token[i]) += s.bias[i];
  if (penalties) {
    SPIN_CHECK(history != nullptr);
    Penalise(s, history, p.vocab, x);
  }
  return x;
}

// One draw from softmax(x / temperature), cut to a prefix of the descending order: the top_k first,
// of these the fewest whose share reaches top_p (at least one), of these those at least min_p times
// as probable as the first.
int32_t Draw(const SamplingRow& s, const float* x, int32_t vocab, uint64_t generated,
             Scratch& scratch) {
  const float max = RowMax(x, vocab);
  if (!std::isfinite(max)) return RowArgMax(x, vocab);  // no distribution to draw from
  float* weights = scratch.weights.data();
  const double total = RowExpSum(x, vocab, max, s.temperature, weights);
  RankedWeights& ranked = scratch.ranked;
  ranked.Reset(weights, vocab, total);
  double mass = s.top_k > 0 && s.top_k < vocab ? ranked.MassOfTop(s.top_k) : total;
  if (s.top_p < 1) mass = std::min(mass, ranked.Reach(s.top_p * mass).mass);
  if (s.min_p > 0) mass = std::min(mass, ranked.MassFrom(s.min_p));
  const float u = UniformOpenClosed(Philox(s.seed, generated, 0)[0]);
  return ranked.Reach(u * mass).token;
}

void SampleRow(const SampleParams& p, int32_t place) {
  const int32_t row = p.decode.rows[place];
  const SamplingRow& s = p.sampling[row];
  const float* logits = p.logits + int64_t{place} * p.vocab;
  uint32_t* history = p.history == nullptr ? nullptr : p.history + int64_t{row} * p.vocab;
  int32_t& position = p.decode.position[row];
  ++position;
  const int32_t generated = position - s.prompt_tokens;
  SPIN_CHECK_GE(generated, 0);

  Scratch& scratch = ThreadScratch(p.vocab);
  const float* x = Adjust(p, s, logits, history, generated, scratch);
  const int32_t token = s.temperature > 0
                            ? Draw(s, x, p.vocab, static_cast<uint64_t>(generated), scratch)
                            : RowArgMax(x, p.vocab);
  SampledToken& out = p.out[place];
  out.token = token;
  out.logprob = 0;
  out.num_top = 0;
  if (s.num_logprobs >= 0) Logprobs(logits, p.vocab, token, s.num_logprobs, &out);
  if (HasPenalties(s)) ++history[token];
  p.decode.token[row] = token;
}

}  // namespace

void Sample(const SampleParams& p, ThreadPool& pool) {
  pool.ParallelFor(NumRows(p.decode), 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) SampleRow(p, static_cast<int32_t>(b));
  });
}

void TokenLogprobs(const TokenLogprobsParams& p, ThreadPool& pool) {
  pool.ParallelFor(p.n, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      SPIN_CHECK(p.target[i] >= 0 && p.target[i] < p.vocab);
      Logprobs(p.logits + i * p.vocab, p.vocab, p.target[i], p.num_top, p.out + i);
    }
  });
}

}  // namespace spin::cpu
