// How far apart two distributions over the next token are, from their logits. Plain arithmetic in double.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace spin::eval {

struct LogitDistance {
  double kl = 0;            // KL(p || q) in nats, p of the first logits
  bool same_top = false;    // the most probable token is the same (ties: the lower id)
  int32_t top5_shared = 0;  // of the five most probable tokens of each
};

// REQUIRES: as many logits in both, at least 5, finite.
LogitDistance CompareLogits(std::span<const float> p, std::span<const float> q);

// -log of the probability of `token`, in nats.
double NegativeLogLikelihood(std::span<const float> logits, int32_t token);

// CompareLogits and the likelihoods of the true tokens, summed up over positions.
class LogitSummary {
 public:
  // `next` is the token that the text goes on with; -1: unknown (the text's end), no likelihood.
  void Add(std::span<const float> dense, std::span<const float> sparse, int32_t next);

  int64_t positions() const { return static_cast<int64_t>(kl_.size()); }
  double mean_kl() const;
  // Linear between ranks, as numpy does.
  double kl_percentile(double percent) const;
  double top1_agreement() const;  // share of positions
  double top5_overlap() const;    // mean shared / 5
  double dense_perplexity() const;
  double sparse_perplexity() const;
  double perplexity_ratio() const { return sparse_perplexity() / dense_perplexity(); }

 private:
  std::vector<double> kl_;
  int64_t same_top_ = 0, top5_shared_ = 0, known_ = 0;
  double dense_nll_ = 0, sparse_nll_ = 0;
};

// The value below which `percent` % of `values` lie, linear between ranks; 0 without any.
double Percentile(std::vector<double> values, double percent);
double Mean(std::span<const double> values);  // 0 without any

}  // namespace spin::eval
