// Sampling on the GPU against the CPU's: equal tokens, positions, histories and alternatives for equal logits, and
// log-probabilities within float rounding.
#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/twin/twin_testing.h"

namespace spin {
namespace {

using testing::Gpu;
using testing::OnDevice;
using testing::RowsOnDevice;
using testing::StepRows;

constexpr float kInf = std::numeric_limits<float>::infinity();

SampledToken Poison() {
  SampledToken out;
  out.token = 123456;
  out.num_top = kMaxLogprobs;  // all entries are compared
  out.logprob = 77;
  std::fill(std::begin(out.top_token), std::end(out.top_token), 123456);
  std::fill(std::begin(out.top_logprob), std::end(out.top_logprob), 77.0f);
  return out;
}

// NaN equals NaN, infinity itself.
bool Close(float a, float b) {
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
  return a == b || std::abs(a - b) <= 1e-5f * std::max(1.0f, std::abs(b));
}

void CheckEqual(const SampledToken& gpu, const SampledToken& cpu) {
  REQUIRE(gpu.token == cpu.token);
  INFO("log-probabilities " << gpu.logprob << ", " << cpu.logprob);
  REQUIRE(Close(gpu.logprob, cpu.logprob));
  REQUIRE(gpu.num_top == cpu.num_top);
  for (int32_t i = 0; i < cpu.num_top; ++i) {
    INFO("alternative " << i << ": " << gpu.top_logprob[i] << ", " << cpu.top_logprob[i]);
    REQUIRE(gpu.top_token[i] == cpu.top_token[i]);
    REQUIRE(Close(gpu.top_logprob[i], cpu.top_logprob[i]));
  }
}

// Rows that generate on both sides, from the same logits; state stays where it is between steps.
class Twins {
 public:
  Twins(int32_t vocab, std::vector<int32_t> used, int32_t max_batch, int32_t max_rows,
        std::vector<SamplingRow> settings, std::vector<uint32_t> seen)
      : logits(used.size() * static_cast<size_t>(vocab)),
        vocab_(vocab),
        max_batch_(max_batch),
        step_(StartOf(std::move(used), max_rows, settings)),
        settings_(std::move(settings)),
        history_(std::move(seen)),
        rows_gpu_(step_, max_batch),
        settings_gpu_(settings_),
        history_gpu_(history_) {}

  void Step() {
    std::vector<SampledToken> out(static_cast<size_t>(max_batch_), Poison());
    const OnDevice<SampledToken> out_gpu(out, MemoryKind::kPinned);
    const OnDevice<float> logits_gpu(logits);
    SampleParams p = {.decode = rows_gpu_.view(),
                      .logits = logits_gpu.data(),
                      .vocab = vocab_,
                      .sampling = settings_gpu_.data(),
                      .history = history_gpu_.data(),
                      .out = out_gpu.data()};
    Gpu::Get().ops().Sample(p, Gpu::Get().stream());
    p.decode = step_.view();
    p.logits = logits.data();
    p.sampling = settings_.data();
    p.history = history_.data();
    p.out = out.data();
    cpu::Sample(p, pool_);
    Gpu::Get().Finish();
    const std::vector<SampledToken> result = out_gpu.Read();
    for (size_t b = 0; b < result.size(); ++b) {
      INFO("place " << b << ", " << Describe(b));
      CheckEqual(result[b], out[b]);
    }
    REQUIRE(rows_gpu_.Tokens() == step_.token);
    REQUIRE(rows_gpu_.Positions() == step_.position);
    REQUIRE((history_gpu_.Read() == history_));
  }

  std::vector<float> logits;  // [places][vocab]; the test fills them before each step

 private:
  static StepRows StartOf(std::vector<int32_t> used, int32_t max_rows,
                          const std::vector<SamplingRow>& settings) {
    StepRows step(std::move(used), max_rows);
    for (size_t r = 0; r < settings.size(); ++r) step.position[r] = settings[r].prompt_tokens - 1;
    return step;
  }
  std::string Describe(size_t place) const {
    if (place >= step_.rows.size()) return "past the count";
    const SamplingRow& s = settings_[static_cast<size_t>(step_.rows[place])];
    return "vocab " + std::to_string(vocab_) + " temperature " + std::to_string(s.temperature) +
           " top_k " + std::to_string(s.top_k) + " top_p " + std::to_string(s.top_p) + " min_p " +
           std::to_string(s.min_p) + " bias " + std::to_string(s.num_bias) + " logprobs " +
           std::to_string(s.num_logprobs) + " penalties " + std::to_string(s.repetition_penalty) +
           " " + std::to_string(s.presence_penalty) + " " + std::to_string(s.frequency_penalty);
  }

  int32_t vocab_;
  int32_t max_batch_;
  StepRows step_;
  std::vector<SamplingRow> settings_;
  std::vector<uint32_t> history_;
  RowsOnDevice rows_gpu_;
  OnDevice<SamplingRow> settings_gpu_;
  OnDevice<uint32_t> history_gpu_;
  ThreadPool pool_{2};
};

template <typename T>
T OneOf(Random& random, const std::vector<T>& values) {
  return values[random.Below(static_cast<uint32_t>(values.size()))];
}

SamplingRow RandomSettings(Random& random, int32_t vocab) {
  const auto token = [&] {
    return static_cast<int32_t>(random.Below(static_cast<uint32_t>(vocab)));
  };
  SamplingRow s;
  s.temperature = OneOf<float>(random, {0, 1e-42f, 1e-25f, 1e-3f, 0.6f, 0.7f, 1, 1, 1.3f, 2});
  s.top_k = OneOf<int32_t>(random, {0, 0, 1, 2, 20, 50, 1000, vocab, vocab + 5});
  s.top_p = OneOf<float>(random, {1, 1, 1, 0.95f, 0.9f, 0.5f, 0.1f, 1e-6f});
  s.min_p = OneOf<float>(random, {0, 0, 0, 0.05f, 0.5f, 1, 1e-5f, 1e-30f, 1e-40f});
  if (random.Below(3) == 0) {
    s.repetition_penalty = OneOf<float>(random, {1, 1.1f, 2, 0.7f});
    s.presence_penalty = OneOf<float>(random, {0, 0.5f, -0.3f});
    s.frequency_penalty = OneOf<float>(random, {0, 0.2f, -0.1f});
  }
  s.num_logprobs = OneOf<int32_t>(random, {-1, -1, 0, 1, 5, 20});
  s.seed = random.NextU64();
  s.prompt_tokens = static_cast<int32_t>(1 + random.Below(5000));
  if (random.Below(3) == 0) {
    s.min_tokens = 3;
    s.num_stop_tokens = OneOf<int32_t>(random, {1, 5, kMaxStopTokens});
    for (int32_t i = 0; i < s.num_stop_tokens; ++i) s.stop_tokens[i] = token();
  }
  if (random.Below(3) == 0) {
    s.num_bias = OneOf<int32_t>(random, {1, 40, kMaxLogitBias});
    for (int32_t i = 0; i < s.num_bias; ++i) {
      s.bias_token[i] = token();  // some twice
      s.bias[i] = OneOf<float>(random, {-100, 100, 3 * random.Uniform(), -random.Uniform()});
    }
  }
  return s;
}

// Prompt marks and counts of some tokens.
std::vector<uint32_t> RandomHistory(Random& random, int32_t rows, int32_t vocab) {
  std::vector<uint32_t> seen(static_cast<size_t>(rows) * static_cast<size_t>(vocab), 0u);
  for (uint32_t& x : seen) {
    if (random.Below(4) == 0) x = (random.Below(2) << 31) | random.Below(4);
  }
  return seen;
}

// Every kind of row that a model, or an accident, can give.
void FillLogits(Random& random, float* x, int32_t vocab, int kind) {
  const float spread = OneOf<float>(random, {0.01f, 1, 8, 40, 300});
  for (int32_t i = 0; i < vocab; ++i) {
    // A sum of uniform values is about normal.
    x[i] = spread * (random.Uniform() + random.Uniform() + random.Uniform() - 1.5f);
  }
  const auto some = [&] { return x + random.Below(static_cast<uint32_t>(vocab)); };
  switch (kind) {
    case 0:
      std::fill(x, x + vocab, 0.25f);
      break;
    case 1:  // two values, many ties
      for (int32_t i = 0; i < vocab; ++i) x[i] = random.Below(2) == 0 ? 1.5f : 1.0f;
      break;
    case 2:  // both zeros are one value
      for (int32_t i = 0; i < vocab; ++i) x[i] = random.Below(2) == 0 ? 0.0f : -0.0f;
      break;
    case 3:
      for (int32_t i = 0; i < vocab; ++i) {
        if (random.Below(2) == 0) x[i] = -kInf;
      }
      break;
    case 4:
      std::fill(x, x + vocab, -kInf);
      break;
    case 5:
      for (int32_t i = 0; i < vocab; ++i) {
        if (random.Below(2) == 0) x[i] = NAN;
      }
      break;
    case 6:
      std::fill(x, x + vocab, NAN);
      break;
    case 7:
      *some() = 1e30f;
      break;
    case 8:
      *some() = kInf;
      *some() = kInf;
      break;
    case 9:
      for (int i = 0; i < 5; ++i) *some() = i % 2 == 0 ? NAN : -kInf;
      break;
    case 10:  // steps: ties at every level
      for (int32_t i = 0; i < vocab; ++i) x[i] = 0.5f * static_cast<float>(random.Below(40));
      break;
    case 11:  // a last place apart: weights are equal where logits are not
      for (int32_t i = 0; i < vocab; ++i) {
        x[i] = 1 + 0x1p-23f * static_cast<float>(random.Below(64));
      }
      break;
    case 12:  // the best side by side, more of them than most top_k
      for (int32_t i = vocab / 3; i < vocab / 3 + std::min(1500, vocab / 2); ++i)
        x[i] += 3 * spread;
      break;
    default:
      break;
  }
}

std::vector<SamplingRow> ManySettings(Random& random, int32_t rows, int32_t vocab) {
  std::vector<SamplingRow> settings;
  for (int32_t r = 0; r < rows; ++r) settings.push_back(RandomSettings(random, vocab));
  return settings;
}

TEST_CASE("tokens equal the CPU's under every mixture of settings and every kind of row") {
  constexpr int32_t kRows = 16;
  const int32_t vocab = GENERATE(1, 33, 320, 8192, 49152);
  const int32_t rounds = vocab < 1000 ? 12 : 6;
  Random random(static_cast<uint64_t>(vocab));
  std::vector<int32_t> used(kRows);
  for (int32_t r = 0; r < kRows; ++r) used[static_cast<size_t>(r)] = kRows - 1 - r;
  for (int32_t round = 0; round < rounds; ++round) {
    Twins twins(vocab, used, kRows, kRows, ManySettings(random, kRows, vocab),
                RandomHistory(random, kRows, vocab));
    for (int32_t i = 0; i < 4; ++i) {
      INFO("round " << round << ", step " << i);
      for (int32_t b = 0; b < kRows; ++b) {
        FillLogits(random, twins.logits.data() + b * vocab, vocab,
                   static_cast<int>(random.Below(20)));
      }
      twins.Step();
    }
  }
}

TEST_CASE("the vocabulary of a real model, with every kind of row") {
  constexpr int32_t kVocab = 151936;
  constexpr int32_t kRows = 12;
  Random random(7);
  std::vector<int32_t> used(kRows);
  for (int32_t r = 0; r < kRows; ++r) used[static_cast<size_t>(r)] = r;
  Twins twins(kVocab, used, kRows, kRows, ManySettings(random, kRows, kVocab),
              RandomHistory(random, kRows, kVocab));
  for (int32_t i = 0; i < 6; ++i) {
    INFO("step " << i);
    for (int32_t b = 0; b < kRows; ++b) {
      FillLogits(random, twins.logits.data() + int64_t{b} * kVocab, kVocab, (b + i) % 14);
    }
    twins.Step();
  }
}

TEST_CASE("a batch of 64 rows, and places past the count") {
  constexpr int32_t kVocab = 151936;
  const int32_t count = GENERATE(0, 3, 61);
  Random random(8);
  std::vector<int32_t> used(static_cast<size_t>(count));
  for (int32_t r = 0; r < count; ++r) used[static_cast<size_t>(r)] = (r * 5 + 2) % 64;
  std::vector<SamplingRow> settings = ManySettings(random, 64, kVocab);
  for (SamplingRow& s : settings) {  // histories of such a batch would be the test's whole time
    s.repetition_penalty = 1;
    s.presence_penalty = s.frequency_penalty = 0;
  }
  Twins twins(kVocab, used, 64, 64, settings, {0u});
  const std::vector<float> pattern = testing::RandomFloats(random, 99991, 6);
  for (size_t i = 0; i < twins.logits.size(); ++i) twins.logits[i] = pattern[i % pattern.size()];
  twins.Step();
}

TEST_CASE("biases of one token add up in the order of the list, on every run") {
  constexpr int32_t kVocab = 20000;
  Random random(11);
  std::vector<SamplingRow> settings(3);
  for (SamplingRow& s : settings) {
    s.seed = random.NextU64();
    s.prompt_tokens = 1;
    s.top_k = 5;
    s.num_bias = kMaxLogitBias;
    for (int32_t i = 0; i < kMaxLogitBias; ++i) {
      s.bias_token[i] = static_cast<int32_t>(9 + random.Below(12));  // 85 times each
      s.bias[i] = OneOf<float>(random, {-100, 100, 1e-3f, random.Uniform()});
    }
  }
  settings[2].temperature = 0;
  Twins twins(kVocab, {0, 1, 2}, 3, 3, settings, {0u});
  for (int32_t i = 0; i < 10; ++i) {
    INFO("step " << i);
    for (float& x : twins.logits) x = random.Uniform();
    twins.Step();
  }
}

TEST_CASE("long generations: each index has its draw") {
  const int32_t vocab = GENERATE(320, 1000);
  Random random(9);
  std::vector<SamplingRow> settings(4);
  for (size_t r = 0; r < settings.size(); ++r) {
    settings[r].seed = random.NextU64();
    settings[r].prompt_tokens = 1 + 1000 * static_cast<int32_t>(r);
    settings[r].frequency_penalty = r == 1 ? 0.4f : 0;
    settings[r].top_p = r == 2 ? 0.9f : 1;
    settings[r].min_tokens = r == 3 ? 150 : 0;
    settings[r].num_stop_tokens = 1;
    settings[r].stop_tokens[0] = 5;
  }
  Twins twins(vocab, {0, 1, 2, 3}, 4, 4, settings,
              std::vector<uint32_t>(4 * static_cast<size_t>(vocab), 0u));
  for (size_t i = 0; i < twins.logits.size(); ++i) twins.logits[i] = 4 * random.Uniform();
  for (int32_t r = 0; r < 4; ++r) twins.logits[static_cast<size_t>(r * vocab + 5)] = 6;
  for (int32_t i = 0; i < 300; ++i) {
    INFO("step " << i);
    twins.Step();
  }
}

void CheckLogprobs(int32_t vocab) {
  const int32_t n = vocab < 2000 ? 70 : 14;
  ThreadPool pool(2);
  Random random(10);
  std::vector<float> logits(static_cast<size_t>(n) * static_cast<size_t>(vocab));
  std::vector<int32_t> target;
  for (int32_t i = 0; i < n; ++i) {
    FillLogits(random, logits.data() + int64_t{i} * vocab, vocab, i % 14);
    target.push_back(static_cast<int32_t>(random.Below(static_cast<uint32_t>(vocab))));
  }
  const OnDevice<float> logits_gpu(logits);
  const OnDevice<int32_t> target_gpu(target);
  for (const int32_t num : {0, 1, 5, 20}) {
    for (const int32_t used : {0, 1, n - 1}) {
      std::vector<SampledToken> out(static_cast<size_t>(n), Poison());
      const OnDevice<SampledToken> out_gpu(out, MemoryKind::kPinned);
      TokenLogprobsParams p = {.logits = logits_gpu.data(),
                               .target = target_gpu.data(),
                               .n = used,
                               .vocab = vocab,
                               .num_top = num,
                               .out = out_gpu.data()};
      Gpu::Get().ops().TokenLogprobs(p, Gpu::Get().stream());
      p.logits = logits.data();
      p.target = target.data();
      p.out = out.data();
      cpu::TokenLogprobs(p, pool);
      Gpu::Get().Finish();
      const std::vector<SampledToken> result = out_gpu.Read();
      for (int32_t i = 0; i < n; ++i) {
        INFO("vocab " << vocab << ", alternatives " << num << ", row " << i);
        CheckEqual(result[static_cast<size_t>(i)], out[static_cast<size_t>(i)]);
      }
    }
  }
}

TEST_CASE("log-probabilities of given tokens equal the CPU's") {
  const int32_t vocab = GENERATE(1, 7, 49152, 151936);
  CheckLogprobs(vocab);
}

TEST_CASE("log-probabilities in a small vocabulary", "[small]") {
  CheckLogprobs(1000);
}

TEST_CASE("tokens of a small vocabulary, with every kind of row", "[small]") {
  constexpr int32_t kVocab = 1000;
  constexpr int32_t kRows = 14;
  Random random(12);
  std::vector<int32_t> used(kRows);
  for (int32_t r = 0; r < kRows; ++r) used[static_cast<size_t>(r)] = r;
  Twins twins(kVocab, used, kRows, kRows, ManySettings(random, kRows, kVocab),
              RandomHistory(random, kRows, kVocab));
  for (int32_t i = 0; i < 3; ++i) {
    INFO("step " << i);
    for (int32_t b = 0; b < kRows; ++b) {
      FillLogits(random, twins.logits.data() + int64_t{b} * kVocab, kVocab, (b + i) % 14);
    }
    twins.Step();
  }
}

}  // namespace
}  // namespace spin
