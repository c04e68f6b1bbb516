#include "tools/eval/logit_distance.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "common/check.h"

namespace spin::eval {
namespace {

constexpr int32_t kTop = 5;

double LogSumExp(std::span<const float> logits) {
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - top);
  return top + std::log(sum);
}

std::array<int32_t, kTop> TopTokens(std::span<const float> logits) {
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::partial_sort(order.begin(), order.begin() + kTop, order.end(), [&](int32_t a, int32_t b) {
    const float left = logits[static_cast<size_t>(a)];
    const float right = logits[static_cast<size_t>(b)];
    return left != right ? left > right : a < b;
  });
  std::array<int32_t, kTop> top;
  std::copy_n(order.begin(), kTop, top.begin());
  return top;
}

}  // namespace

LogitDistance CompareLogits(std::span<const float> p, std::span<const float> q) {
  SPIN_CHECK_EQ(p.size(), q.size());
  SPIN_CHECK_GE(static_cast<int64_t>(p.size()), int64_t{kTop});
  const double p_norm = LogSumExp(p);
  const double q_norm = LogSumExp(q);
  LogitDistance distance;
  for (size_t i = 0; i < p.size(); ++i) {
    const double log_p = p[i] - p_norm;
    distance.kl += std::exp(log_p) * (log_p - (q[i] - q_norm));
  }
  distance.kl = std::max(distance.kl, 0.0);  // what rounding leaves of equal ones
  const auto p_top = TopTokens(p);
  const auto q_top = TopTokens(q);
  distance.same_top = p_top[0] == q_top[0];
  for (const int32_t token : p_top) {
    distance.top5_shared += std::find(q_top.begin(), q_top.end(), token) != q_top.end() ? 1 : 0;
  }
  return distance;
}

double NegativeLogLikelihood(std::span<const float> logits, int32_t token) {
  return LogSumExp(logits) - logits[static_cast<size_t>(token)];
}

void LogitSummary::Add(std::span<const float> dense, std::span<const float> sparse, int32_t next) {
  const LogitDistance distance = CompareLogits(dense, sparse);
  kl_.push_back(distance.kl);
  same_top_ += distance.same_top ? 1 : 0;
  top5_shared_ += distance.top5_shared;
  if (next < 0) return;
  ++known_;
  dense_nll_ += NegativeLogLikelihood(dense, next);
  sparse_nll_ += NegativeLogLikelihood(sparse, next);
}

double LogitSummary::mean_kl() const {
  return Mean(kl_);
}

double LogitSummary::kl_percentile(double percent) const {
  return Percentile(kl_, percent);
}

double LogitSummary::top1_agreement() const {
  return static_cast<double>(same_top_) / static_cast<double>(std::max<int64_t>(positions(), 1));
}

double LogitSummary::top5_overlap() const {
  return static_cast<double>(top5_shared_) /
         static_cast<double>(kTop * std::max<int64_t>(positions(), 1));
}

double LogitSummary::dense_perplexity() const {
  return std::exp(dense_nll_ / static_cast<double>(std::max<int64_t>(known_, 1)));
}

double LogitSummary::sparse_perplexity() const {
  return std::exp(sparse_nll_ / static_cast<double>(std::max<int64_t>(known_, 1)));
}

double Percentile(std::vector<double> values, double percent) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const double rank = percent / 100 * static_cast<double>(values.size() - 1);
  const auto low = static_cast<size_t>(rank);
  const size_t high = std::min(low + 1, values.size() - 1);
  return values[low] + (values[high] - values[low]) * (rank - static_cast<double>(low));
}

double Mean(std::span<const double> values) {
  if (values.empty()) return 0;
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

}  // namespace spin::eval
