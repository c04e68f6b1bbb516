// Rotary embedding in double precision, and its table as kernels have it.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

namespace spin::testing {

// A rotary table with a magnitude, as YaRN's.
class Rotation {
 public:
  static constexpr double kMagnitude = 1.25;

  Rotation(int32_t d, int32_t positions) : d_(d) {
    for (int32_t p = 0; p < positions; ++p) {
      for (int32_t i = 0; i < d; ++i) {
        const double angle = Angle(p, i % (d / 2));
        table_.push_back(
            static_cast<float>(kMagnitude * (i < d / 2 ? std::cos(angle) : std::sin(angle))));
      }
    }
  }

  const std::vector<float>& table() const { return table_; }

  std::vector<double> operator()(const std::vector<double>& x, int32_t position) const {
    std::vector<double> y(x.size());
    const int32_t half = d_ / 2;
    for (int32_t i = 0; i < half; ++i) {
      const double c = kMagnitude * std::cos(Angle(position, i));
      const double s = kMagnitude * std::sin(Angle(position, i));
      y[i] = x[i] * c - x[half + i] * s;
      y[half + i] = x[half + i] * c + x[i] * s;
    }
    return y;
  }

  // The inverse.
  std::vector<double> Back(const std::vector<double>& y, int32_t position) const {
    std::vector<double> x(y.size());
    const int32_t half = d_ / 2;
    for (int32_t i = 0; i < half; ++i) {
      const double c = std::cos(Angle(position, i)) / kMagnitude;
      const double s = std::sin(Angle(position, i)) / kMagnitude;
      x[i] = y[i] * c + y[half + i] * s;
      x[half + i] = y[half + i] * c - y[i] * s;
    }
    return x;
  }

 private:
  double Angle(int32_t position, int32_t i) const {
    return position * std::pow(1e4, -2.0 * i / d_);
  }
  int32_t d_;
  std::vector<float> table_;
};

}  // namespace spin::testing
