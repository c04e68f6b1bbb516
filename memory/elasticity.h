// Who gets buffering slots that are free, and who gives them back: pure functions of counts. A row is
// a holder, weighed by its length; within a row each layer is one, all alike. memory/README.md,
// section 4, has the policy in words.
//
// The k-th extent (from 0) of a holder has the rank k / weight; among equals the first holder's is
// lower. Extents are handed out in ascending rank and taken back in descending rank, so that what is
// held is always in proportion to the weights, as far as limits and whole extents allow, and
// taking back undoes handing out.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace spin {

// Who holds extents above what it must have.
struct BufferHolder {
  int64_t weight = 1;  // > 0
  int64_t held = 0;    // extents above the least
  int64_t most = 0;    // that it may hold
  int64_t change = 0;  // result: extents that it is handed, or that it gives back
};

// Hands out at most `extents`. Returns how many: fewer only when all hold their most. `heap` is
// scratch.
int64_t PlanHandOut(int64_t extents, std::span<BufferHolder> holders, std::vector<int32_t>& heap);

// Takes back at most `extents`. Returns how many: fewer only when nobody holds any more.
int64_t PlanReclaim(int64_t extents, std::span<BufferHolder> holders, std::vector<int32_t>& heap);

}  // namespace spin
