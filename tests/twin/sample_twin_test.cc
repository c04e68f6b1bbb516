// Sampling on the GPU chooses the CPU's tokens for the same logits, settings, histories and seeds.
#include <cmath>
#include <limits>

#include "tests/twin/twin_testing.h"

namespace spin::testing {
namespace {

constexpr int32_t kRows = 4;
const float kInf = std::numeric_limits<float>::infinity();

SamplingRow RandomSettings(Random& random, int32_t vocab) {
  SamplingRow s;
  const auto pick = [&](std::vector<float> values) {
    return values[random.Below(static_cast<uint32_t>(values.size()))];
  };
  s.temperature = pick({0, 0.01f, 0.6f, 1, 2});
  s.top_p = pick({1, 1, 0.95f, 0.5f, 0.1f});
  s.min_p = pick({0, 0, 0.05f, 0.5f});
  s.top_k = static_cast<int32_t>(pick({0, 0, 1, 20, 50, 1e6f}));
  if (random.Below(3) == 0) {
    s.presence_penalty = pick({0, 0.5f, 2});
    s.frequency_penalty = pick({0, 0.25f});
    s.repetition_penalty = pick({1, 1.3f});
  }
  s.num_logprobs = static_cast<int32_t>(pick({-1, 0, 1, 5, 20}));
  s.seed = random.NextU64();
  s.prompt_tokens = 5;
  s.min_tokens = static_cast<int32_t>(pick({0, 100}));
  s.num_stop_tokens = 2;
  s.num_bias = static_cast<int32_t>(pick({0, 0, 3}));
  for (int32_t i = 0; i < 3; ++i) {
    s.stop_tokens[i] = static_cast<int32_t>(random.Below(static_cast<uint32_t>(vocab)));
    s.bias_token[i] = (s.stop_tokens[i] + i + 1) % vocab;
    s.bias[i] = pick({-100, 3, 100});
  }
  return s;
}

// Runs both on copies of the same state and compares all that they leave.
void CheckStep(const std::vector<float>& logits, int32_t vocab,
               const std::vector<SamplingRow>& sampling, std::vector<uint32_t> history,
               StepRows step) {
  Gpu& gpu = Gpu::Get();
  ThreadPool pool(2);
  const OnDevice<float> logits_device(logits);
  const OnDevice<float> adjusted(std::vector<float>(logits.size() + size_t(vocab), -7.0f));
  const OnDevice<SamplingRow> sampling_device(sampling);
  const OnDevice<uint32_t> history_device(history);
  const RowsOnDevice rows(step, step.count + 1);
  const Buffer out_device =
      gpu.Allocate(MemoryKind::kPinned, (kRows + 1) * int64_t{sizeof(SampledToken)});
  std::vector<SampledToken> out(kRows);
  gpu.ops().Sample({.decode = rows.view(),
                    .logits = logits_device.data(),
                    .adjusted = adjusted.data(),
                    .vocab = vocab,
                    .sampling = sampling_device.data(),
                    .history = history_device.data(),
                    .out = out_device.as<SampledToken>()},
                   gpu.stream());
  gpu.Finish();
  cpu::Sample({.decode = step.view(),
               .logits = logits.data(),
               .vocab = vocab,
               .sampling = sampling.data(),
               .history = history.data(),
               .out = out.data()},
              pool);
  CHECK(rows.Tokens() == step.token);
  CHECK(rows.Positions() == step.position);
  CHECK((history_device.Read() == history));
  for (int32_t b = 0; b < step.count; ++b) {
    INFO("place " << b);
    const SampledToken& a = out_device.as<SampledToken>()[b];
    const SampledToken& e = out[size_t(b)];
    CHECK(a.token == e.token);
    CHECK((a.logprob == e.logprob || std::abs(a.logprob - e.logprob) <= 1e-4f));
    REQUIRE(a.num_top == e.num_top);
    for (int32_t i = 0; i < e.num_top; ++i) {
      CHECK(a.top_token[i] == e.top_token[i]);
      CHECK((a.top_logprob[i] == e.top_logprob[i] ||
             std::abs(a.top_logprob[i] - e.top_logprob[i]) <= 1e-4f));
    }
  }
}

TEST_CASE("tokens, histories and log-probabilities equal the CPU's over random settings") {
  const int32_t vocab = GENERATE(1, 33, 320, 49152, 151936);
  const int32_t kind = GENERATE(0, 1, 2);  // peaked, flat, all equal
  Random random(static_cast<uint64_t>(vocab + kind));
  for (int round = 0; round < 12; ++round) {
    INFO("vocabulary " << vocab << " kind " << kind << " round " << round);
    std::vector<float> logits(size_t(kRows) * size_t(vocab));
    for (float& x : logits) {
      const float u = random.Uniform();
      x = kind == 0 ? -3 * std::log(u) : kind == 1 ? u : 1.5f;
      if (kind == 0 && random.Below(97) == 0) x = -kInf;
    }
    std::vector<SamplingRow> sampling;
    std::vector<uint32_t> history(logits.size(), 0);
    for (int32_t r = 0; r < kRows; ++r) sampling.push_back(RandomSettings(random, vocab));
    for (uint32_t& h : history) {
      if (random.Below(5) == 0) h = random.Below(3) | (random.Below(2) << 31);
    }
    StepRows step({2, 0, 3}, kRows);
    for (auto& position : step.position) position = 4 + static_cast<int32_t>(random.Below(1000));
    CheckStep(logits, vocab, sampling, history, step);
  }
}

TEST_CASE("rows of NaN, of -infinity and with one NaN are sampled as on the CPU") {
  constexpr int32_t kVocab = 1003;
  std::vector<float> logits(size_t(kRows) * kVocab, 0.0f);
  Random random(3);
  for (float& x : logits) x = random.Uniform();
  std::fill_n(logits.begin(), kVocab, -kInf);
  std::fill_n(logits.begin() + kVocab, kVocab, std::numeric_limits<float>::quiet_NaN());
  logits[2 * kVocab + 5] = std::numeric_limits<float>::quiet_NaN();
  for (const float temperature : {0.0f, 0.7f}) {
    std::vector<SamplingRow> sampling(kRows);
    for (SamplingRow& s : sampling) {
      s.temperature = temperature;
      s.prompt_tokens = 1;
      s.seed = 9;
    }
    StepRows step({0, 1, 2}, kRows);
    for (auto& position : step.position) position = 3;
    CheckStep(logits, kVocab, sampling, std::vector<uint32_t>(logits.size()), step);
  }
}

TEST_CASE("log-probabilities of given tokens equal the CPU's") {
  constexpr int32_t kVocab = 151936, kTokens = 3;
  Random random(8);
  const std::vector<float> logits = RandomFloats(random, int64_t{kTokens} * kVocab, 6);
  const std::vector<int32_t> targets = {0, 151935, 777};
  Gpu& gpu = Gpu::Get();
  ThreadPool pool(2);
  const OnDevice<float> logits_device(logits);
  const OnDevice<int32_t> targets_device(targets);
  const Buffer out_device =
      gpu.Allocate(MemoryKind::kPinned, kTokens * int64_t{sizeof(SampledToken)});
  std::vector<SampledToken> out(kTokens);
  TokenLogprobsParams p{.logits = logits.data(),
                        .target = targets.data(),
                        .n = kTokens,
                        .vocab = kVocab,
                        .num_top = 7,
                        .out = out.data()};
  cpu::TokenLogprobs(p, pool);
  p.logits = logits_device.data();
  p.target = targets_device.data();
  p.out = out_device.as<SampledToken>();
  gpu.ops().TokenLogprobs(p, gpu.stream());
  gpu.Finish();
  for (int32_t i = 0; i < kTokens; ++i) {
    const SampledToken& a = out_device.as<SampledToken>()[i];
    CHECK(a.token == targets[size_t(i)]);
    CHECK(std::abs(a.logprob - out[size_t(i)].logprob) <= 1e-4f);
    REQUIRE(a.num_top == 7);
    for (int32_t k = 0; k < 7; ++k) CHECK(a.top_token[k] == out[size_t(i)].top_token[k]);
  }
}

}  // namespace
}  // namespace spin::testing
