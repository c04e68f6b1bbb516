// (left token, right token) -> rank of their merge: a flat hash table, linear probing, at most half
// full.
//
// Built once, then read by any thread. 12 bytes a slot: Llama-3.1's 280,147 merges take 12 MiB.
#pragma once

#include <bit>
#include <cstdint>
#include <vector>

namespace spin {

class PairTable {
 public:
  static constexpr uint32_t kNone = UINT32_MAX;

  explicit PairTable(std::size_t num_pairs = 0)
      : mask_(std::bit_ceil(2 * num_pairs + 2) - 1),
        keys_(mask_ + 1, kFree),
        ranks_(mask_ + 1, kNone) {}

  // A pair set twice has its last rank. REQUIRES: at most num_pairs different pairs.
  void Set(int32_t left, int32_t right, uint32_t rank) {
    const std::size_t slot = Probe(Key(left, right));
    keys_[slot] = Key(left, right);
    ranks_[slot] = rank;
  }

  // kNone when the pair does not merge.
  uint32_t Find(int32_t left, int32_t right) const { return ranks_[Probe(Key(left, right))]; }

 private:
  static constexpr uint64_t kFree = UINT64_MAX;  // no pair of ids >= 0

  static uint64_t Key(int32_t left, int32_t right) {
    return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
  }
  // The slot that holds `key`, or the free one where it belongs.
  std::size_t Probe(uint64_t key) const {
    uint64_t hash = key * 0x9E3779B97F4A7C15u;
    hash ^= hash >> 32;
    std::size_t slot = hash & mask_;
    while (keys_[slot] != key && keys_[slot] != kFree) slot = (slot + 1) & mask_;
    return slot;
  }

  std::size_t mask_;
  std::vector<uint64_t> keys_;
  std::vector<uint32_t> ranks_;
};

}  // namespace spin
