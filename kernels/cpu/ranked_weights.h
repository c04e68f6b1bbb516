// The tokens of one row in descending weight (ties: lower id), without sorting the vocabulary.
//
// Weights in (0, 1] are counted into buckets by their leading bits (32 buckets an octave), each
// with its mass. A question about the order is answered by walking the buckets and sorting the one
// bucket that the answer lies in. Weights of peaked rows are mostly negligible: buckets first hold
// only the head (weights >= 2^-16); everything enters when a question goes beyond the head's mass
// or number. Masses are doubles added in one order, so equal prefixes have equal masses.
//
// One object serves a thread for good; buffers grow with the first row.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace spin::cpu {

class RankedWeights {
 public:
  // `weights` [n] stays the caller's and must not change while questions are asked. `total`: their
  // sum.
  void Reset(const float* weights, int32_t n, double total);

  double total() const { return total_; }

  // Mass of the k heaviest tokens; the total when fewer have weight. REQUIRES: k > 0.
  double MassOfTop(int32_t k);
  // Mass of the tokens that weigh at least `least`.
  double MassFrom(float least);

  struct Hit {
    int32_t token = 0;
    double mass = 0;  // of the token and all before it
  };
  // The first token at which the mass reaches `mass`; the last token with weight if rounding leaves
  // none.
  Hit Reach(double mass);

 private:
  static constexpr int kShift = 18;  // of a float's bits: sign, exponent, five bits of mantissa
  static constexpr int32_t kNumBuckets = (0x3f800000 >> kShift) + 1;

  struct Bucket {
    double mass = 0;
    int32_t count = 0;
  };

  static int32_t BucketOf(float weight);  // 0 holds the heaviest
  void Fill(float least);
  bool Widen();               // takes in what the head left out; false if nothing is left
  void Sort(int32_t bucket);  // into sorted_

  const float* weights_ = nullptr;
  int32_t n_ = 0;
  double total_ = 0;
  bool whole_ = false;  // all weights are in the buckets, not the head alone
  double mass_ = 0;     // of all buckets
  int64_t count_ = 0;
  int32_t last_bucket_ = 0;  // the last one in use
  std::array<Bucket, kNumBuckets> buckets_;
  int32_t sorted_bucket_ = -1;
  std::vector<uint64_t>
      sorted_;  // complemented bits of the weight, then id: ascending is the order
};

}  // namespace spin::cpu
