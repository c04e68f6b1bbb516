// Where runs part.
#include "tools/eval/greedy.h"

#include <catch2/catch.hpp>

namespace spin::eval {
namespace {

TEST_CASE("common beginnings, equal runs and lengths of pairs of runs") {
  const Runs dense = {{1, 2, 3, 4}, {5, 6}, {7, 8, 9, 10}};
  const GreedyAgreement agreement = CompareRuns(dense, {{1, 2, 3, 4}, {5, 6, 6, 6}, {7, 1}});
  CHECK(agreement.identical == Approx(1.0 / 3));
  CHECK(agreement.common_tokens == Approx((4 + 2 + 1) / 3.0));
  CHECK(agreement.common_share == Approx((1 + 1 + 0.25) / 3));
  CHECK(agreement.length_ratio == Approx(1));
}

TEST_CASE("empty runs: equal to each other, unlike all others") {
  CHECK(CompareRuns({{}}, {{}}).common_share == 1);
  CHECK(CompareRuns({{}}, {{}}).identical == 1);
  CHECK(CompareRuns({{}}, {{3}}).common_share == 0);
  CHECK(CompareRuns({{}}, {{3}}).identical == 0);
}

}  // namespace
}  // namespace spin::eval
