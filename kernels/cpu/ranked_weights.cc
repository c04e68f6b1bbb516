#include "kernels/cpu/ranked_weights.h"

#include <algorithm>
#include <bit>

#include "common/check.h"

namespace spin::cpu {
namespace {

constexpr float kHead = 0x1p-16f;
constexpr float kAll = 0x1p-126f;  // weights below are zero
constexpr int32_t kBlock = 16;     // elements that are skipped together

float WeightOf(uint64_t sorted) {
  return std::bit_cast<float>(~static_cast<uint32_t>(sorted >> 32));
}

// Calls visit(i) for each i with in(x[i]), in order; tests blocks at a time, since hits are rare.
template <typename In, typename Visit>
void ForEachHit(const float* x, int32_t n, In in, Visit visit) {
  int32_t i = 0;
  for (; i + kBlock <= n; i += kBlock) {
    int any = 0;
    for (int32_t k = 0; k < kBlock; ++k) any |= static_cast<int>(in(x[i + k]));
    if (any == 0) continue;
    for (int32_t k = i; k < i + kBlock; ++k) {
      if (in(x[k])) visit(k);
    }
  }
  for (; i < n; ++i) {
    if (in(x[i])) visit(i);
  }
}

}  // namespace

int32_t RankedWeights::BucketOf(float weight) {
  return kNumBuckets - 1 - static_cast<int32_t>(std::bit_cast<uint32_t>(weight) >> kShift);
}

void RankedWeights::Reset(const float* weights, int32_t n, double total) {
  SPIN_CHECK_GT(total, 0.0);
  weights_ = weights;
  n_ = n;
  total_ = total;
  whole_ = false;
  if (sorted_.capacity() < static_cast<size_t>(n)) sorted_.reserve(static_cast<size_t>(n));
  Fill(kHead);
}

void RankedWeights::Fill(float least) {
  buckets_.fill({});
  sorted_bucket_ = -1;
  ForEachHit(
      weights_, n_, [least](float w) { return w >= least; },
      [this](int32_t i) {
        Bucket& bucket = buckets_[static_cast<size_t>(BucketOf(weights_[i]))];
        bucket.mass += weights_[i];
        ++bucket.count;
      });
  mass_ = 0;
  count_ = 0;
  for (int32_t b = 0; b < kNumBuckets; ++b) {
    const Bucket& bucket = buckets_[static_cast<size_t>(b)];
    if (bucket.count == 0) continue;
    mass_ += bucket.mass;
    count_ += bucket.count;
    last_bucket_ = b;
  }
  SPIN_CHECK_GT(count_, 0);
}

bool RankedWeights::Widen() {
  if (whole_) return false;
  whole_ = true;
  Fill(kAll);
  return true;
}

void RankedWeights::Sort(int32_t bucket) {
  if (sorted_bucket_ == bucket) return;
  sorted_bucket_ = bucket;
  sorted_.clear();
  const auto bits = static_cast<uint32_t>(kNumBuckets - 1 - bucket);
  ForEachHit(
      weights_, n_, [bits](float w) { return std::bit_cast<uint32_t>(w) >> kShift == bits; },
      [this](int32_t i) {
        const uint64_t key = ~std::bit_cast<uint32_t>(weights_[i]);
        sorted_.push_back(key << 32 | static_cast<uint32_t>(i));
      });
  if (!std::is_sorted(sorted_.begin(), sorted_.end())) std::sort(sorted_.begin(), sorted_.end());
}

double RankedWeights::MassOfTop(int32_t k) {
  SPIN_CHECK_GT(k, 0);
  while (k > count_) {
    if (!Widen()) return total_;
  }
  double mass = 0;
  int32_t b = 0;
  for (; k > buckets_[static_cast<size_t>(b)].count; ++b) {
    mass += buckets_[static_cast<size_t>(b)].mass;
    k -= buckets_[static_cast<size_t>(b)].count;
  }
  Sort(b);
  for (int32_t i = 0; i < k; ++i) mass += WeightOf(sorted_[static_cast<size_t>(i)]);
  return mass;
}

double RankedWeights::MassFrom(float least) {
  if (least < kHead) Widen();
  double mass = 0;
  const int32_t edge = least < kAll ? kNumBuckets : BucketOf(std::min(least, 1.0f));
  for (int32_t b = 0; b < std::min(edge, kNumBuckets); ++b) {
    mass += buckets_[static_cast<size_t>(b)].mass;
  }
  if (edge == kNumBuckets) return mass;
  Sort(edge);
  for (const uint64_t entry : sorted_) {
    if (WeightOf(entry) >= least) mass += WeightOf(entry);
  }
  return mass;
}

RankedWeights::Hit RankedWeights::Reach(double target) {
  if (target > mass_) Widen();
  double mass = 0;
  int32_t b = 0;
  for (; b < last_bucket_; ++b) {
    const Bucket& bucket = buckets_[static_cast<size_t>(b)];
    if (mass + bucket.mass >= target) break;
    mass += bucket.mass;
  }
  for (;; ++b) {
    Sort(b);
    for (size_t i = 0; i < sorted_.size(); ++i) {
      mass += WeightOf(sorted_[i]);
      const bool last = b == last_bucket_ && i + 1 == sorted_.size();
      if (mass >= target || last) return {static_cast<int32_t>(sorted_[i]), mass};
    }
  }
}

}  // namespace spin::cpu
