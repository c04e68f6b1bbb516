// Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC'11).
//
// A draw is a pure function of (key, counter), so that a sampled token depends on the request's seed and the token's
// index alone, never on the batch, and a GPU kernel draws the same numbers as the CPU.
#pragma once

#include <array>
#include <cstdint>

namespace spin {

// Four 32-bit draws for a 64-bit key and a 128-bit counter (lo, hi).
constexpr std::array<uint32_t, 4> Philox(uint64_t key, uint64_t counter_lo, uint64_t counter_hi) {
  std::array<uint32_t, 4> c = {
      static_cast<uint32_t>(counter_lo), static_cast<uint32_t>(counter_lo >> 32),
      static_cast<uint32_t>(counter_hi), static_cast<uint32_t>(counter_hi >> 32)};
  uint32_t k0 = static_cast<uint32_t>(key);
  uint32_t k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53} * c[0];
    const uint64_t p1 = uint64_t{0xCD9E8D57} * c[2];
    c = {static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k0, static_cast<uint32_t>(p1),
         static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k1, static_cast<uint32_t>(p0)};
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  return c;
}

// A float in (0, 1]: never 0, so that its logarithm is finite.
constexpr float UniformOpenClosed(uint32_t bits) {
  return (static_cast<float>(bits >> 8) + 1.0f) * 0x1p-24f;
}

// A small sequential generator over Philox for tests, dummy weights and load generation. One thread.
class Random {
 public:
  explicit Random(uint64_t seed) : seed_(seed) {}

  uint32_t NextU32() {
    if (index_ == 4) {
      block_ = Philox(seed_, counter_++, 0);
      index_ = 0;
    }
    return block_[index_++];
  }
  uint64_t NextU64() { return (uint64_t{NextU32()} << 32) | NextU32(); }
  // Uniform in [0, n). REQUIRES: n > 0.
  uint32_t Below(uint32_t n) { return static_cast<uint32_t>((uint64_t{NextU32()} * n) >> 32); }
  // Uniform in [lo, hi].
  int64_t Between(int64_t lo, int64_t hi) {
    return lo + static_cast<int64_t>(NextU64() % static_cast<uint64_t>(hi - lo + 1));
  }
  float Uniform() { return UniformOpenClosed(NextU32()); }

 private:
  uint64_t seed_;
  uint64_t counter_ = 0;
  std::array<uint32_t, 4> block_ = {};
  int index_ = 4;
};

}  // namespace spin
