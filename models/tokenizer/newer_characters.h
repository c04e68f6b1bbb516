// Characters assigned after Unicode 14, by category. The table is written by
// tools/make_newer_characters.py.
#pragma once

#include <cstdint>
#include <span>

namespace spin {

struct NewerCharacters {
  uint32_t first;
  uint32_t last;
  uint32_t like;  // an old character of the same category and length in UTF-8
};

// Sorted, disjoint.
std::span<const NewerCharacters> NewerCharacterTable();

}  // namespace spin
