// Sampling against plain models: full sorts, doubles, and counts of many draws.
#include <cmath>
#include <limits>

#include "tests/kernels/kv_testing.h"

namespace spin {
namespace {

constexpr int32_t kMaxRows = 4;

// A batch of rows over one vocabulary; row r of the tables is batch place r unless `order` says
// otherwise.
struct Batch {
  explicit Batch(int32_t vocab_size, int32_t rows = kMaxRows)
      : vocab(vocab_size),
        step({0, 1, 2, 3}, kMaxRows),
        logits(static_cast<size_t>(kMaxRows * vocab), 0.0f),
        history(logits.size(), 0u),
        sampling(kMaxRows),
        out(kMaxRows) {
    step.count = rows;
    for (auto& s : sampling) s.prompt_tokens = 10;
    for (auto& position : step.position)
      position = 9;  // the prompt's last token was just processed
  }
  void Run() {
    cpu::Sample({.decode = step.view(),
                 .logits = logits.data(),
                 .vocab = vocab,
                 .sampling = sampling.data(),
                 .history = history.data(),
                 .out = out.data()},
                pool);
  }
  float* Logits(int32_t place) { return logits.data() + place * vocab; }

  int32_t vocab;
  testing::StepRows step;
  std::vector<float> logits;
  std::vector<uint32_t> history;
  std::vector<SamplingRow> sampling;
  std::vector<SampledToken> out;
  ThreadPool pool{2};
};

// Probabilities after top_k, top_p and min_p, by a full sort in double.
std::vector<double> ExactProbabilities(const float* logits, int32_t vocab, const SamplingRow& s) {
  std::vector<int32_t> order(static_cast<size_t>(vocab));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
  std::vector<double> p(order.size());
  double sum = 0;
  for (int32_t i = 0; i < vocab; ++i) {
    p[i] = s.top_k > 0 && i >= s.top_k
               ? 0
               : std::exp((double{logits[order[i]]} - logits[order[0]]) / s.temperature);
    sum += p[i];
  }
  double before = 0;
  for (double& x : p) {
    const double share = x / sum;
    if (before >= s.top_p) x = 0;
    before += share;
    if (x < s.min_p) x = 0;
  }
  std::vector<double> result(order.size(), 0);
  sum = std::accumulate(p.begin(), p.end(), 0.0);
  for (int32_t i = 0; i < vocab; ++i) result[order[i]] = p[i] / sum;
  return result;
}

TEST_CASE("greedy takes the greatest logit, the lower id of equals, and never NaN") {
  Batch b(1003);
  Random random(1);
  for (float& x : b.logits) x = 5 * random.Uniform();
  b.Logits(0)[700] = b.Logits(0)[33] = 9;
  b.Logits(1)[1002] = 9;
  b.Logits(2)[5] = std::numeric_limits<float>::quiet_NaN();
  b.Logits(2)[6] = 8;
  std::fill_n(b.Logits(3), b.vocab, -std::numeric_limits<float>::infinity());
  for (auto& s : b.sampling) s.temperature = 0;
  b.Run();
  CHECK(b.step.token == std::vector<int32_t>{33, 1002, 6, 0});
  CHECK(b.out[1].token == 1002);
  CHECK(b.out[1].num_top == 0);
  CHECK(b.step.position == std::vector<int32_t>{10, 10, 10, 10});
}

TEST_CASE("draws follow the exact distribution of every filter") {
  SamplingRow row;
  switch (GENERATE(0, 1, 2, 3, 4, 5, 6)) {
    case 0:
      break;
    case 1:
      row.temperature = 0.5f;
      row.top_p = 0.8f;
      break;
    case 2:
      row.top_k = 7;
      break;
    case 3:
      row.min_p = 0.2f;
      break;
    case 4:
      row.temperature = 1.7f;
      row.top_k = 20;
      row.top_p = 0.7f;
      row.min_p = 0.1f;
      break;
    case 5:
      row.top_k = 1;
      row.temperature = 2;
      break;
    case 6:
      row.temperature = 30;
      break;  // nearly flat
  }
  INFO("temperature " << row.temperature << " top_k " << row.top_k << " top_p " << row.top_p
                      << " min_p " << row.min_p);
  const int32_t vocab = 53;
  Batch b(vocab, 1);
  Random random(2);
  for (int32_t i = 0; i < vocab; ++i) b.Logits(0)[i] = 6 * random.Uniform();
  b.Logits(0)[11] = b.Logits(0)[40] = 5.9f;  // a tie
  row.prompt_tokens = 10;
  row.seed = 77;
  b.sampling[0] = row;
  const auto exact = ExactProbabilities(b.Logits(0), vocab, row);
  const int32_t draws = 40000;
  std::vector<int32_t> counts(vocab, 0);
  for (int32_t i = 0; i < draws; ++i) {
    b.Run();
    ++counts[static_cast<size_t>(b.out[0].token)];
  }
  double chi = 0;
  int32_t freedom = -1;
  for (int32_t i = 0; i < vocab; ++i) {
    const double expected = exact[static_cast<size_t>(i)] * draws;
    if (expected == 0) {
      CHECK(counts[static_cast<size_t>(i)] == 0);
      continue;
    }
    chi += (counts[static_cast<size_t>(i)] - expected) *
           (counts[static_cast<size_t>(i)] - expected) / expected;
    ++freedom;
  }
  CHECK(chi < freedom + 5 * std::sqrt(2.0 * freedom + 1) + 1);
}

TEST_CASE("each draw is the inverse of the cumulative distribution in descending order") {
  const int32_t vocab = 5000;
  const float spread = GENERATE(0.5f, 12.0f, 60.0f);  // flat, usual, peaked
  Batch b(vocab, 1);
  Random random(3);
  for (int32_t i = 0; i < vocab; ++i) b.Logits(0)[i] = spread * random.Uniform();
  for (int32_t round = 0; round < 150; ++round) {
    INFO("round " << round);
    SamplingRow& s = b.sampling[0];
    s.seed = random.NextU64();
    s.temperature = 0.3f + random.Uniform();
    s.top_k = round % 3 == 0 ? 0 : static_cast<int32_t>(1 + random.Below(3000));
    s.top_p = round % 2 == 0 ? 1 : 0.99f * random.Uniform();
    s.min_p = round % 5 == 0 ? 0.3f * random.Uniform() : 0;
    const auto exact = ExactProbabilities(b.Logits(0), vocab, s);
    const double u =
        UniformOpenClosed(Philox(s.seed, static_cast<uint64_t>(b.step.position[0] - 9), 0)[0]);
    b.Run();
    // Mass before and including the drawn token in the order; rounding may move a boundary by its
    // own width.
    const auto drawn = static_cast<size_t>(b.out[0].token);
    double before = 0;
    for (int32_t i = 0; i < vocab; ++i) {
      const auto other = static_cast<size_t>(i);
      if (b.logits[other] > b.logits[drawn] ||
          (b.logits[other] == b.logits[drawn] && other < drawn))
        before += exact[other];
    }
    REQUIRE(exact[drawn] > 0);
    REQUIRE(u > before - 1e-5);
    REQUIRE(u <= before + exact[drawn] + 1e-5);
  }
}

TEST_CASE(
    "a row's token does not depend on its place or its neighbours, and its seed reproduces it") {
  const int32_t vocab = 2000;
  Batch a(vocab), alone(vocab, 1);
  Random random(4);
  for (float& x : a.logits) x = 8 * random.Uniform();
  for (int32_t r = 0; r < kMaxRows; ++r) a.sampling[r].seed = 100 + static_cast<uint64_t>(r);
  std::copy_n(a.Logits(2), vocab, alone.Logits(0));
  alone.step.rows[0] = 2;
  alone.sampling[2] = a.sampling[2];
  int32_t different = 0;
  for (int32_t i = 0; i < 200; ++i) {
    a.Run();
    alone.Run();
    REQUIRE(a.out[2].token == alone.out[0].token);
    different += a.out[2].token != a.out[1].token;
  }
  CHECK(different > 150);
}

TEST_CASE("penalties, bias and the ban of stop tokens change logits exactly, in their order") {
  const int32_t vocab = 40;
  Batch b(vocab, 1);
  SamplingRow& s = b.sampling[0];
  s.temperature = 0;
  s.num_logprobs = 3;
  s.repetition_penalty = 2;
  s.presence_penalty = 0.5f;
  s.frequency_penalty = 0.25f;
  float* x = b.Logits(0);
  x[1] = 8;   // in the prompt: 8 / 2 = 4
  x[2] = 10;  // generated three times: 10 / 2 - 0.5 - 0.75 = 3.75
  x[3] = 3.8f;
  x[4] = 3;   // bias 0.9: 3.9
  x[5] = 20;  // a stop token, banned once
  b.history[1] = 0x80000000u;
  b.history[2] = 3;
  s.min_tokens = 1;
  s.num_stop_tokens = 1;
  s.stop_tokens[0] = 5;
  s.num_bias = 1;
  s.bias_token[0] = 4;
  s.bias[0] = 0.9f;
  std::vector<int32_t> tokens;
  for (int32_t i = 0; i < 5; ++i) {
    b.Run();
    tokens.push_back(b.out[0].token);
    x[5] = i == 0 ? 20 : -5;  // its second turn wins, then it is out
  }
  // 4.0 wins; then 5 is free; then 1 has been generated (4 - 0.75); 4 at 3.9; then 3 at 3.8.
  CHECK(tokens == std::vector<int32_t>{1, 5, 4, 3, 2});
  CHECK(b.history[1] == 0x80000001u);
  CHECK(b.history[5] == 1);
  // Log-probabilities are the model's own.
  CHECK(b.out[0].top_token[0] == 2);
  CHECK(b.out[0].top_token[1] == 1);
  double sum = 0;
  for (int32_t i = 0; i < vocab; ++i) sum += std::exp(double{x[i]});
  CHECK(b.out[0].logprob == Approx(10 - std::log(sum)));
}

TEST_CASE("a negative logit is multiplied by the repetition penalty") {
  Batch b(3, 1);
  b.sampling[0].temperature = 0;
  b.sampling[0].repetition_penalty = 1.5f;
  b.history[0] = 0x80000000u;
  b.Logits(0)[0] = -2;  // -3
  b.Logits(0)[1] = -2.5f;
  b.Logits(0)[2] = -9;
  b.Run();
  CHECK(b.out[0].token == 1);
}

TEST_CASE("log-probabilities agree with double, the best come first, equals by id") {
  const int32_t vocab = GENERATE(7, 1000, 49152);
  const int32_t num = GENERATE(0, 1, 5, 20);
  ThreadPool pool(2);
  Random random(5);
  std::vector<float> logits(static_cast<size_t>(3 * vocab));
  for (float& x : logits) x = 0.5f * static_cast<float>(random.Below(60));  // many ties
  const std::vector<int32_t> target = {0, vocab - 1, vocab / 2};
  std::vector<SampledToken> out(3);
  cpu::TokenLogprobs({.logits = logits.data(),
                      .target = target.data(),
                      .n = 3,
                      .vocab = vocab,
                      .num_top = num,
                      .out = out.data()},
                     pool);
  for (int32_t i = 0; i < 3; ++i) {
    const float* x = logits.data() + i * vocab;
    std::vector<int32_t> order(static_cast<size_t>(vocab));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [x](int32_t a, int32_t c) { return x[a] > x[c]; });
    double sum = 0;
    for (int32_t k = 0; k < vocab; ++k) sum += std::exp(double{x[k]});
    CHECK(out[i].token == target[i]);
    CHECK(out[i].logprob == Approx(x[target[i]] - std::log(sum)).margin(2e-6));
    REQUIRE(out[i].num_top == std::min(num, vocab));
    for (int32_t k = 0; k < out[i].num_top; ++k) {
      CHECK(out[i].top_token[k] == order[k]);
      CHECK(out[i].top_logprob[k] == Approx(x[order[k]] - std::log(sum)).margin(2e-6));
    }
  }
}

}  // namespace
}  // namespace spin
