// Who is handed buffers and who gives them back, against a list of all extents in the order of their
// ranks.
#include "memory/elasticity.h"

#include <catch2/catch.hpp>

#include <algorithm>
#include <numeric>
#include <vector>

#include "common/random.h"

namespace spin {
namespace {

std::vector<int64_t> Changes(const std::vector<BufferHolder>& holders) {
  std::vector<int64_t> changes;
  for (const BufferHolder& holder : holders) changes.push_back(holder.change);
  return changes;
}

// Every extent that a holder has or may have, lowest rank first.
struct Ranked {
  size_t holder;
  int64_t k;
};
std::vector<Ranked> AllRanked(const std::vector<BufferHolder>& holders) {
  std::vector<Ranked> all;
  for (size_t i = 0; i < holders.size(); ++i) {
    for (int64_t k = 0; k < holders[i].most; ++k) all.push_back({i, k});
  }
  std::stable_sort(all.begin(), all.end(), [&](const Ranked& a, const Ranked& b) {
    return a.k * holders[b.holder].weight < b.k * holders[a.holder].weight;
  });
  return all;
}

TEST_CASE("shares are in proportion to the weights") {
  std::vector<BufferHolder> holders = {
      {.weight = 1000, .most = 100}, {.weight = 3000, .most = 100}, {.weight = 500, .most = 100}};
  std::vector<int32_t> heap;
  CHECK(PlanHandOut(90, holders, heap) == 90);
  CHECK(Changes(holders) == std::vector<int64_t>{20, 60, 10});
}

TEST_CASE("who holds least for its weight comes first, and the first among equals") {
  std::vector<BufferHolder> holders = {
      {.held = 2, .most = 9}, {.held = 0, .most = 9}, {.held = 0, .most = 9}};
  std::vector<int32_t> heap;
  CHECK(PlanHandOut(3, holders, heap) == 3);
  CHECK(Changes(holders) == std::vector<int64_t>{0, 2, 1});
  CHECK(PlanHandOut(0, holders, heap) == 0);
  CHECK(Changes(holders) == std::vector<int64_t>{0, 0, 0});
}

TEST_CASE("nobody is handed more than the most, and nobody gives what it has not") {
  std::vector<BufferHolder> holders = {{.weight = 9, .held = 1, .most = 3},
                                       {.weight = 1, .held = 2, .most = 2}};
  std::vector<int32_t> heap;
  CHECK(PlanHandOut(50, holders, heap) == 2);
  CHECK(Changes(holders) == std::vector<int64_t>{2, 0});
  CHECK(PlanReclaim(50, holders, heap) == 3);
  CHECK(Changes(holders) == std::vector<int64_t>{1, 2});
  CHECK(PlanHandOut(5, {}, heap) == 0);
}

TEST_CASE("the ranks decide, one extent after another, in both directions") {
  Random random(11);
  std::vector<int32_t> heap;
  for (int round = 0; round < 500; ++round) {
    std::vector<BufferHolder> holders(1 + random.Below(6));
    for (BufferHolder& h : holders) {
      h.weight = random.Between(1, 9);
      h.most = random.Between(0, 12);
      h.held = h.most > 0 ? random.Between(0, static_cast<int32_t>(h.most)) : 0;
    }
    const auto ranked = AllRanked(holders);
    const int64_t wanted = random.Between(0, 30);
    std::vector<int64_t> expected(holders.size());
    int64_t left = wanted;
    for (const Ranked& r : ranked) {
      if (left > 0 && r.k >= holders[r.holder].held) ++expected[r.holder], --left;
    }
    CHECK(PlanHandOut(wanted, holders, heap) == wanted - left);
    CHECK(Changes(holders) == expected);

    std::fill(expected.begin(), expected.end(), 0);
    left = wanted;
    for (auto r = ranked.rbegin(); r != ranked.rend(); ++r) {
      if (left > 0 && r->k < holders[r->holder].held) ++expected[r->holder], --left;
    }
    CHECK(PlanReclaim(wanted, holders, heap) == wanted - left);
    CHECK(Changes(holders) == expected);
  }
}

TEST_CASE("taking back undoes handing out, whatever the pieces") {
  Random random(12);
  std::vector<int32_t> heap;
  for (int round = 0; round < 200; ++round) {
    std::vector<BufferHolder> holders(1 + random.Below(5));
    for (BufferHolder& h : holders) {
      h.weight = random.Between(1, 5000);
      h.most = random.Between(0, 20);
    }
    PlanHandOut(random.Between(0, 40), holders, heap);
    for (BufferHolder& h : holders) h.held = h.change;
    const auto before = Changes(holders);
    const int64_t given = PlanHandOut(random.Between(1, 20), holders, heap);
    for (BufferHolder& h : holders) h.held += h.change;
    for (int64_t left = given; left > 0;) {
      left -= PlanReclaim(std::min<int64_t>(left, random.Between(1, 5)), holders, heap);
      for (BufferHolder& h : holders) h.held -= h.change;
    }
    for (size_t i = 0; i < holders.size(); ++i) CHECK(holders[i].held == before[i]);
  }
}

}  // namespace
}  // namespace spin
