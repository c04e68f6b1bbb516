// FNV-1a (Fowler, Noll, Vo), 64 bits: a stable hash of short texts. Not for untrusted keys.
#pragma once

#include <cstdint>
#include <string_view>

namespace spin {

inline constexpr uint64_t kFnv1aBasis = 1469598103934665603u;

// Continues from `hash`, so that pieces may be hashed one after another.
constexpr uint64_t Fnv1a(std::string_view text, uint64_t hash = kFnv1aBasis) {
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211u;
  return hash;
}

}  // namespace spin
