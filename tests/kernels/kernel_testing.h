// What the kernel tests share: seeded data in either activation type, and every instruction set of
// this machine in turn.
#pragma once

#include <catch2/catch.hpp>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "common/random.h"
#include "common/thread_pool.h"
#include "kernels/cpu/isa.h"
#include "kernels/dtype.h"

namespace spin::testing {

// Runs the rest of a test case once per instruction set: `const ScopedIsa
// isa(GENERATE(from_range(...)))`.
class ScopedIsa {
 public:
  explicit ScopedIsa(cpu::Isa isa) : before_(cpu::ActiveIsa()) { cpu::ForceIsa(isa); }
  ~ScopedIsa() { cpu::ForceIsa(before_); }

 private:
  cpu::Isa before_;
};

// Calls body(isa) with each instruction set in force.
template <typename Body>
void ForEachIsa(Body body) {
  for (const cpu::Isa isa : cpu::SupportedIsas()) {
    const ScopedIsa scoped(isa);
    INFO("instruction set " << cpu::NameOf(isa));
    body(isa);
  }
}

// Elements of act type `dtype` (float32 or bfloat16) with float access.
class Elements {
 public:
  Elements(DType dtype, int64_t size) : dtype_(dtype), bytes_(size_t(size * SizeOf(dtype))) {}

  void Set(int64_t i, float value) {
    if (dtype_ == DType::kF32) {
      std::memcpy(bytes_.data() + i * 4, &value, 4);
    } else {
      const uint16_t bits = FloatToBf16(value);
      std::memcpy(bytes_.data() + i * 2, &bits, 2);
    }
  }
  float operator[](int64_t i) const {
    if (dtype_ == DType::kF32) {
      float value;
      std::memcpy(&value, bytes_.data() + i * 4, 4);
      return value;
    }
    uint16_t bits;
    std::memcpy(&bits, bytes_.data() + i * 2, 2);
    return Bf16ToFloat(bits);
  }
  int64_t size() const { return int64_t(bytes_.size()) / SizeOf(dtype_); }
  void* data() { return bytes_.data(); }
  const void* data() const { return bytes_.data(); }
  bool operator==(const Elements& other) const { return bytes_ == other.bytes_; }  // bit for bit
  DType dtype() const { return dtype_; }

  void Randomize(Random& random, float scale) {
    for (int64_t i = 0; i < size(); ++i) Set(i, scale * (2 * random.Uniform() - 1));
  }
  void Fill(float value) {
    for (int64_t i = 0; i < size(); ++i) Set(i, value);
  }

 private:
  DType dtype_;
  std::vector<unsigned char> bytes_;
};

inline std::vector<float> RandomFloats(Random& random, int64_t n, float scale) {
  std::vector<float> values(static_cast<size_t>(n));
  for (float& v : values) v = scale * (2 * random.Uniform() - 1);
  return values;
}

// Largest |a - b| relative to the largest |b|. NaN anywhere gives NaN, which fails every
// comparison.
template <typename A>
double RelativeError(const A& a, const std::vector<double>& b) {
  double error = 0;
  double scale = 1e-30;
  for (size_t i = 0; i < b.size(); ++i) {
    const double d = std::abs(double{a[static_cast<int64_t>(i)]} - b[i]);
    if (!(d <= error)) error = d;
    scale = std::max(scale, std::abs(b[i]));
  }
  return error / scale;
}

// Half a unit in the last place of bf16, and what float32 sums lose.
inline double Tolerance(DType dtype) {
  return dtype == DType::kF32 ? 2e-6 : 5e-3;
}

}  // namespace spin::testing
