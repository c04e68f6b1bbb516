// How many tokens a prompt or an answer has: a distribution between two bounds.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "common/random.h"
#include "common/status.h"

namespace spin {

struct LengthSpec {
  enum class Shape { kUniform, kNormal, kLognormal };

  LengthSpec(int length) : low(length), high(length) {}  // NOLINT: a number is a fixed length
  LengthSpec(Shape shape, int low, int high, double mean, double stddev)
      : shape(shape), low(low), high(high), mean(mean), stddev(stddev) {}
  static LengthSpec Uniform(int low, int high) { return {Shape::kUniform, low, high, 0, 0}; }

  Shape shape = Shape::kUniform;
  int low;  // no draw lies outside [low, high]
  int high;
  // Not for kUniform. `mean` is that of the draws, after the curve was cut at the bounds; `stddev`
  // is that of the curve before.
  double mean = 0;
  double stddev = 0;

  bool fixed() const { return low == high; }
  double Mean() const { return shape == Shape::kUniform ? (low + high) / 2.0 : mean; }
  // Every length times `factor`, at least 1.
  LengthSpec Scaled(double factor) const;
};

// "N", "LOW-HIGH" (uniform), "normal:LOW-HIGH,mean=M[,std=S]", "lognormal:..."; without std a quarter of the range.
absl::StatusOr<LengthSpec> ParseLengths(std::string_view text);

// What ParseLengths reads.
std::string ToString(const LengthSpec& spec);

// Draws lengths; each takes exactly one 64-bit number of the generator, whatever the shape.
class LengthSampler {
 public:
  explicit LengthSampler(const LengthSpec& spec);

  int Draw(Random& random) const;

 private:
  int low_;
  int high_;
  std::vector<double> cumulative_;  // at equal steps from low to high; empty: uniform
};

}  // namespace spin
