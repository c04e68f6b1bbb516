// What sequences need, and who is demoted for others: counts in, counts out.
#include "memory/admission.h"

#include <catch2/catch.hpp>

namespace spin {
namespace {

constexpr KvGeometry kGeometry = {.num_layers = 2,
                                  .num_kv_heads = 2,
                                  .num_q_heads = 4,
                                  .head_dim = 64,
                                  .page_tokens = 16,
                                  .max_rows = 8,
                                  .max_extents = 16,
                                  .summary_elements = 128};
constexpr LayerDemand kWhole = {};
constexpr LayerDemand kSparse = {.whole_context = false, .fixed_pages = 2, .selectable_pages = 10};

TEST_CASE("a sparse layer gets its mandatory slots and the buffer, never more than its pages") {
  const LayerDemand layers[] = {kWhole, kSparse};
  const Footprint footprint(kGeometry, layers, 2.25, 2.25);
  CHECK(footprint.NumSlots(0, 1000, 2) == 63);  // whole context: every page
  CHECK(footprint.NumSlots(1, 1000, 2) == 35);  // 2 + ceil(10 * 3.25)
  CHECK(footprint.NumSlots(1, 100, 1) == 7);    // all of 7 pages
  CHECK(footprint.TieredSlotExtents(0, 1000) == 2);
  CHECK(footprint.TieredSlotExtents(1, 1000) == 2);  // 35 slots, 32 an extent
  CHECK(footprint.AllTieredSlotExtents(8000) == 16 + 2);
}

TEST_CASE("what a step may select, over all layers and heads") {
  const LayerDemand layers[] = {kWhole, kSparse};
  const Footprint footprint(kGeometry, layers, 2.25, 2.25);
  // 1000 tokens are 63 pages; two heads. The whole layer has no buffer: all of its pages are mandatory.
  CHECK(footprint.MandatorySlots(1000) == 2 * (63 + 12));
  CHECK(footprint.MandatorySlots(100) == 2 * (7 + 7));
}

TEST_CASE("a budget of its own takes its own slots, where the context is not mandatory") {
  const LayerDemand layers[] = {kWhole, kSparse};
  const Footprint footprint(kGeometry, layers, 2.25, 2.25);
  CHECK(footprint.min_budget_pages() == 3);
  CHECK(footprint.max_mandatory_pages() == 12);
  CHECK(footprint.NumSlots(0, 1000, 2, 4) == 63);
  CHECK(footprint.NumSlots(1, 1000, 2, 4) == 9);    // 2 + ceil(2 * 3.25)
  CHECK(footprint.NumSlots(1, 1000, 2, 20) == 61);  // 2 + ceil(18 * 3.25)
  CHECK(footprint.NumSlots(1, 1000, 1, 20) == 32);  // all of one extent
  CHECK(footprint.NumSlots(1, 100, 1, 20) == 7);
  CHECK(footprint.NumSlots(1, 1000, 2, 12) == footprint.NumSlots(1, 1000, 2));
  CHECK(footprint.AllTieredSlotExtents(8000, 100) == 16 + 11);  // 321 slots
  CHECK(footprint.MostSlotExtents(1, 8000, 100) == 11);
  CHECK(footprint.Tiered(100, 8000, 1, 100).slots == 27);
  CHECK(footprint.MandatorySlots(1000, 4) == 2 * (63 + 4));
  const LayerDemand dense[] = {kWhole, kWhole};
  CHECK(Footprint(kGeometry, dense, 2, 2).min_budget_pages() == 0);
}

TEST_CASE("an enormous buffer ratio is all pages, not an overflow") {
  const LayerDemand layers[] = {kSparse, kSparse};
  CHECK(Footprint(kGeometry, layers, 1e300, 1e300).NumSlots(0, 8192, 16) == 512);
}

TEST_CASE("a stream uses all slots of its extents up to the larger buffer") {
  const LayerDemand layers[] = {kWhole, kSparse};
  const Footprint footprint(kGeometry, layers, 2, 9);  // 32 slots, or 102
  CHECK(footprint.TieredSlotExtents(1, 8000) == 1);
  CHECK(footprint.MostSlotExtents(1, 8000) == 4);
  CHECK(footprint.NumSlots(1, 8000, 1) == 32);
  CHECK(footprint.NumSlots(1, 8000, 3) == 96);
  CHECK(footprint.NumSlots(1, 8000, 4) == 102);
  CHECK(footprint.NumSlots(1, 8000, 0) == 0);
  CHECK(footprint.MostSlotExtents(1, 1000) == 2);  // 63 pages in all
  CHECK(footprint.NumSlots(1, 1000, 2) == 63);
  CHECK(footprint.MostSlotExtents(0, 8000) == footprint.TieredSlotExtents(0, 8000));
}

TEST_CASE("forks share the full extents of the prompt, not segments or cache slots") {
  const LayerDemand layers[] = {kSparse, kSparse};
  const Footprint footprint(kGeometry, layers, 1, 1);
  // 1100 tokens: two full extents; 2000 reserved: four in all, hence two of its own each.
  CHECK(footprint.Resident(1100, 2000, 3) ==
        PoolCounts{.slots = 2 * 8, .host = 0, .summaries = 2 * 8, .meta = 0});
  CHECK(footprint.Tiered(1100, 2000, 3) ==
        PoolCounts{.slots = 3 * 2, .host = 2 * 8, .summaries = 2 * 8, .meta = 3 * 2 * 4});
  CHECK(footprint.Resident(1024, 1024, 3).slots == 2 * 2);  // nothing behind the prompt
}

TEST_CASE("forks share no extent that may still change") {
  KvGeometry geometry = kGeometry;
  geometry.unsettled_tokens = 64;
  const LayerDemand layers[] = {kSparse, kSparse};
  const Footprint footprint(geometry, layers, 1, 1);
  CHECK(footprint.Resident(1087, 2000, 3).slots == 2 * (4 + 2 * 3));
  CHECK(footprint.Resident(1088, 2000, 3).slots == 2 * (4 + 2 * 2));
  CHECK(footprint.Resident(63, 64, 3).slots == 2 * 3);
  CHECK(footprint.Tiered(1024, 1024, 3) ==
        PoolCounts{.slots = 3 * 2, .host = 2 * 4, .summaries = 2 * 4, .meta = 3 * 2 * 2});
}

TEST_CASE("dense layers alone save nothing by tiering") {
  const LayerDemand layers[] = {kWhole, kWhole};
  const Footprint footprint(kGeometry, layers, 2, 2);
  CHECK(footprint.Tiered(1, 3000, 1).slots == footprint.Resident(1, 3000, 1).slots);
}

DemotionUnit Unit(int32_t row, int64_t held, int64_t kept, int64_t host) {
  return {.first_row = row,
          .held = {.slots = held, .host = 0, .summaries = 0, .meta = 0},
          .wanted = {.slots = kept, .host = host, .summaries = 0, .meta = host}};
}

TEST_CASE("the unit that frees most goes first, ties to the lowest row, and no more than needed") {
  const DemotionUnit units[] = {Unit(0, 10, 4, 10), Unit(3, 20, 4, 20), Unit(5, 20, 4, 20)};
  std::vector<int32_t> chosen;
  REQUIRE(PlanDemotions({.slots = 1, .host = 99, .summaries = 0, .meta = 99}, {.slots = 15}, units,
                        kNoUnit, chosen));
  CHECK(chosen == std::vector<int32_t>{1});
  REQUIRE(PlanDemotions({.slots = 0, .host = 99, .summaries = 0, .meta = 99}, {.slots = 35}, units,
                        kNoUnit, chosen));
  CHECK(chosen == std::vector<int32_t>{1, 2, 0});
}

TEST_CASE("a unit that the host tier cannot take beside the need is passed over") {
  const DemotionUnit units[] = {Unit(0, 10, 4, 10), Unit(1, 30, 4, 30)};
  std::vector<int32_t> chosen;
  REQUIRE(PlanDemotions({.slots = 0, .host = 25, .summaries = 0, .meta = 99},
                        {.slots = 6, .host = 10}, units, kNoUnit, chosen));
  CHECK(chosen == std::vector<int32_t>{0});
  CHECK_FALSE(PlanDemotions({.slots = 0, .host = 25, .summaries = 0, .meta = 99},
                            {.slots = 6, .host = 20}, units, kNoUnit, chosen));
  CHECK(chosen.empty());
}

TEST_CASE("what frees nothing is never demoted") {
  const DemotionUnit units[] = {Unit(0, 4, 4, 4), Unit(1, 4, 6, 4)};
  std::vector<int32_t> chosen;
  CHECK_FALSE(PlanDemotions({.slots = 0, .host = 99, .summaries = 0, .meta = 99}, {.slots = 1},
                            units, kNoUnit, chosen));
}

TEST_CASE("a growing row that is demoted settles its own need and comes last") {
  const DemotionUnit units[] = {Unit(0, 12, 5, 14), Unit(1, 10, 4, 10)};
  std::vector<int32_t> chosen;
  REQUIRE(PlanDemotions({.slots = 1, .host = 99, .summaries = 0, .meta = 99}, {.slots = 2}, units,
                        0, chosen));
  CHECK(chosen == std::vector<int32_t>{0});
  const DemotionUnit growing[] = {Unit(0, 12, 14, 14), Unit(1, 10, 4, 10)};
  REQUIRE(PlanDemotions({.slots = 0, .host = 99, .summaries = 0, .meta = 99}, {.slots = 20},
                        growing, 0, chosen));
  CHECK(chosen == std::vector<int32_t>{1, 0});
}

}  // namespace
}  // namespace spin
