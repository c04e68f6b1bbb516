// Requests with budgets of their own: what they may ask for, and the slots that they get.
#include "tests/memory/small_cache.h"

namespace spin::testing {
namespace {

using Catch::Matchers::Contains;

TEST_CASE("a request's own budget is within the server's, or the refusal names the limit") {
  KvCacheOptions options = Options({});  // pages of 64; 5 selected, 2 of them fixed
  const KvCacheManager own(options);
  CHECK(own.BudgetPages(std::nullopt, false, 4000).value() == 0);
  CHECK(own.BudgetPages(192, false, 4000).value() == 3);
  CHECK(own.BudgetPages(383, false, 4000).value() == 5);
  CHECK(MessageOf(own.BudgetPages(384, false, 4000).status()) ==
        "sparse: budget_tokens must be between 192 and 320 (sparse.max_budget_tokens), not 384");
  CHECK(absl::IsInvalidArgument(own.BudgetPages(191, false, 4000).status()));
  CHECK(own.BudgetPages(std::nullopt, true, 320).value() == 5);
  CHECK(own.BudgetPages(std::nullopt, true, 10).value() == 3);
  CHECK(MessageOf(own.BudgetPages(std::nullopt, true, 321).status()) ==
        "sparse: exact needs a budget for all 321 tokens of prompt and output; this server's goes "
        "to 320 (sparse.max_budget_tokens)");

  options.max_budget_pages = 40;
  const KvCacheManager more(options);
  CHECK(more.BudgetPages(2560, false, 4000).value() == 40);
  CHECK(more.BudgetPages(std::nullopt, true, 2560).value() == 40);
  CHECK_FALSE(more.BudgetPages(2624, false, 4000).ok());
  options.max_budget_pages = 4;  // less than the algorithm selects by itself
  CHECK(KvCacheManager(options).BudgetPages(320, false, 4000).value() == 5);

  options.row_budgets = RowBudgets::kCovering;
  const KvCacheManager covering(options);
  CHECK(covering.BudgetPages(std::nullopt, true, 320).value() == 5);
  CHECK(covering.BudgetPages(std::nullopt, false, 320).value() == 0);
  CHECK(MessageOf(covering.BudgetPages(320, false, 320).status()) ==
        "sparse: this server's algorithm has one budget, the same for all requests, or exact, "
        "which attends to everything");
  options.row_budgets = RowBudgets::kNone;
  CHECK(MessageOf(KvCacheManager(options).BudgetPages(std::nullopt, true, 320).status()) ==
        "sparse: this server's algorithm has one budget, the same for all requests");

  const KvCacheManager dense(Options({.demand = {}}));
  CHECK(dense.BudgetPages(std::nullopt, true, 4000).value() == 0);
  CHECK(MessageOf(dense.BudgetPages(320, false, 4000).status()) ==
        "sparse: this server attends to the whole context: there is no budget_tokens to choose");
}

TEST_CASE("a row's own budget decides its slots, from admission to demotion and resumption") {
  KvCacheOptions options =
      Options({.slot_extents = 16, .placement = PlacementPolicy::kTiered, .demand = kSparse});
  options.max_budget_pages = 20;
  KvCacheManager m(options);
  // Least: 3 slots. Own: 2 + 2 * 18 = 38 slots, of 48 pages: five extents a layer.
  const auto small = m.Admit(1000, 3000, 1, 3);
  REQUIRE(small.has_value());
  m.FinishPrefill(*small);
  CHECK(m.usage().tiered_slots.mandatory == kLayers * 3);
  CHECK(m.usage().tiered_slots.buffering == kLayers * 1);
  const auto large = m.Admit(1000, 3000, 1, 20);
  REQUIRE(large.has_value());
  m.FinishPrefill(*large);
  m.CheckInvariants();
  CHECK(m.usage().slot_extents == kLayers * (1 + 5));
  CHECK_FALSE(m.Admit(1000, 3000, 1, 20).has_value());
  m.Suspend(large->front());
  CHECK(m.usage().slot_extents == kLayers);
  CHECK(m.Resume(large->front()));
  CHECK(m.Grow(large->front(), 3500));
  CHECK(m.usage().slot_extents == kLayers * (1 + 5));
  m.CheckInvariants();
  CHECK(m.CheckFits(1000, 3000, 1, 20).ok());
}

}  // namespace
}  // namespace spin::testing
