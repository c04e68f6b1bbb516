// Distances of logits against figures worked out by hand.
#include "tools/eval/logit_distance.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <vector>

namespace spin::eval {
namespace {

std::vector<float> Logs(std::vector<double> probabilities) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p) + 3.5));
  return logits;
}

const std::vector<float> kP = Logs({0.4, 0.3, 0.1, 0.1, 0.05, 0.05});
const std::vector<float> kQ = Logs({0.2, 0.5, 0.1, 0.05, 0.05, 0.1});

TEST_CASE("KL is that of the distributions, whatever is added to all logits") {
  const double expected = 0.4 * std::log(0.4 / 0.2) + 0.3 * std::log(0.3 / 0.5) +
                          0.1 * std::log(0.1 / 0.05) + 0.05 * std::log(0.05 / 0.1);
  CHECK(CompareLogits(kP, kQ).kl == Approx(expected).epsilon(1e-5));
  CHECK(CompareLogits(kP, kP).kl == 0);
}

TEST_CASE("the top token and the five best are compared, ties by the lower id") {
  const LogitDistance distance = CompareLogits(kP, kQ);
  CHECK_FALSE(distance.same_top);
  CHECK(distance.top5_shared == 4);  // 0 1 2 3 4 against 1 0 2 5 3
  CHECK(CompareLogits(kP, kP).same_top);
  CHECK(CompareLogits(kP, kP).top5_shared == 5);
}

TEST_CASE("a summary adds up positions and likelihoods") {
  LogitSummary summary;
  summary.Add(kP, kQ, 0);
  summary.Add(kP, kP, 1);
  summary.Add(kP, kQ, -1);
  CHECK(summary.positions() == 3);
  const double kl = CompareLogits(kP, kQ).kl;
  CHECK(summary.mean_kl() == Approx(2 * kl / 3));
  CHECK(summary.kl_percentile(100) == Approx(kl));
  CHECK(summary.kl_percentile(25) == Approx(kl / 2));
  CHECK(summary.top1_agreement() == Approx(1.0 / 3));
  CHECK(summary.top5_overlap() == Approx(13.0 / 15));
  CHECK(summary.dense_perplexity() == Approx(1 / std::sqrt(0.4 * 0.3)).epsilon(1e-5));
  CHECK(summary.sparse_perplexity() == Approx(1 / std::sqrt(0.2 * 0.3)).epsilon(1e-5));
  CHECK(summary.perplexity_ratio() == Approx(std::sqrt(2.0)).epsilon(1e-5));
}

TEST_CASE("percentiles interpolate between ranks") {
  CHECK(Percentile({4, 1, 3, 2}, 50) == Approx(2.5));
  CHECK(Percentile({4, 1, 3, 2}, 0) == 1);
  CHECK(Percentile({4, 1, 3, 2}, 100) == 4);
  CHECK(Percentile({}, 50) == 0);
}

}  // namespace
}  // namespace spin::eval
