// Slots that are free are lent to Tiered rows, and come back before anybody gives way. Contents are
// checked in tests/sim/memory_sim_test.cc.
#include "memory/slot_buffers.h"

#include <catch2/catch.hpp>

#include <algorithm>
#include <vector>

#include "memory/kv_cache_manager.h"

namespace spin {
namespace {

using Kind = TableCommandKind;
constexpr int32_t kLayers = 2;
constexpr LayerDemand kWhole = {};
// 8 slots at least, 20 at most: 1 or 3 extents of 8 pages.
constexpr LayerDemand kSparse = {.whole_context = false, .fixed_pages = 2, .selectable_pages = 3};

struct Config {
  int32_t slot_extents = 40;
  int32_t host_extents = 64;
  PlacementPolicy placement = PlacementPolicy::kTiered;
  std::vector<LayerDemand> layers = {kSparse, kSparse};
  double max_buffer_ratio = 5;
  int32_t max_rows = 6;
};

KvCacheOptions Options(const Config& c) {
  const KvGeometry g = {.num_layers = kLayers,
                        .num_kv_heads = 1,
                        .num_q_heads = 1,
                        .head_dim = 64,
                        .page_tokens = 64,
                        .max_rows = c.max_rows,
                        .max_extents = 8};
  KvCacheOptions o;
  o.plan =
      PlanMemory(g, HbmBytes(g, c.slot_extents, c.host_extents), c.host_extents * g.extent_bytes())
          .value();
  o.placement = c.placement;
  o.min_buffer_ratio = 1;
  o.max_buffer_ratio = c.max_buffer_ratio;
  o.max_model_len = 4096;
  o.layers = c.layers;
  return o;
}

RowId Start(KvCacheManager& m, int64_t prompt, int64_t reserve) {
  const auto rows = m.Admit(prompt, reserve, 1);
  REQUIRE(rows.has_value());
  m.FinishPrefill(*rows);
  return rows->front();
}

std::vector<TableCommand> TakeAll(KvCacheManager& m) {
  m.CheckInvariants();
  const auto taken = m.TakeCommands();
  return {taken.begin(), taken.end()};
}

// The last count of slots that each layer of a row was set to, and the slot extents it was granted
// less those unmapped.
struct Change {
  int32_t num_slots[kLayers] = {-1, -1};
  int32_t extents[kLayers] = {};
};
Change ChangeOf(const std::vector<TableCommand>& commands, RowId row) {
  Change change;
  for (const TableCommand& c : commands) {
    if (c.row != row.value) continue;
    if (c.kind == Kind::kSetNumSlots) change.num_slots[c.layer] = c.value;
    if (c.kind == Kind::kSetSlotExtent) change.extents[c.layer] += c.value == kAbsent ? -1 : 1;
  }
  return change;
}

TEST_CASE("free slots go to Tiered rows up to their most, but for a request's need") {
  KvCacheManager m(Options({.slot_extents = 8}));
  const RowId a = Start(m, 2000, 4096);
  TakeAll(m);
  m.HandOutSlots(false);
  const auto commands = TakeAll(m);
  CHECK(ChangeOf(commands, a).num_slots[0] == 20);
  CHECK(ChangeOf(commands, a).num_slots[1] == 20);
  CHECK(ChangeOf(commands, a).extents[0] == 2);
  CHECK(m.usage().slot_extents == 6);
  CHECK(m.usage().buffer_extents == 4);
  CHECK(m.usage().handed_out_extents == 4);
  CHECK(m.usage().fraction == Approx(8.0 * kLayers / 64));  // host: a buffer is not in use
  m.HandOutSlots(false);
  CHECK(TakeAll(m).empty());
  // The next one of its kind needs nothing back, and leaves nothing to lend.
  const RowId b = Start(m, 2000, 4096);
  CHECK(m.usage().reclaimed_extents == 0);
  TakeAll(m);
  m.HandOutSlots(false);
  CHECK(TakeAll(m).empty());
  m.Release(b);
  m.HandOutSlots(false);
  CHECK(m.usage().handed_out_extents == 4);
}

TEST_CASE("buffers grow with the rows' length, the layers of a row alike") {
  KvCacheManager m(Options({.slot_extents = 2 * kLayers + 6 + 2}));
  const RowId a = Start(m, 1000, 4096);
  const RowId b = Start(m, 2000, 4096);
  TakeAll(m);
  m.HandOutSlots(false);  // 6
  const auto commands = TakeAll(m);
  CHECK(ChangeOf(commands, a).extents[0] == 1);
  CHECK(ChangeOf(commands, a).extents[1] == 1);
  CHECK(ChangeOf(commands, b).extents[0] == 2);
  CHECK(ChangeOf(commands, b).extents[1] == 2);
  CHECK(ChangeOf(commands, a).num_slots[1] == 16);
}

TEST_CASE("what somebody needs comes back, in proportion, evicted before it is unmapped") {
  KvCacheManager m(Options({.slot_extents = 10}));
  const RowId a = Start(m, 1000, 4096);
  const RowId b = Start(m, 3000, 4096);
  for (int i = 0; i < 3; ++i) m.HandOutSlots(false);
  REQUIRE(m.usage().buffer_extents == 4);  // 2 of 10 are left free
  TakeAll(m);
  const auto rows = m.Admit(100, 1024, 2);  // one extent a layer each
  REQUIRE(rows.has_value());
  CHECK(m.usage().reclaimed_extents == 2);
  CHECK(m.usage().buffer_extents == 2);
  const auto commands = TakeAll(m);
  const Change of_a = ChangeOf(commands, a), of_b = ChangeOf(commands, b);
  CHECK(of_a.extents[0] + of_a.extents[1] + of_b.extents[0] + of_b.extents[1] == -2);
  CHECK(of_b.extents[0] + of_b.extents[1] == -2);  // it held 3, a one
  CHECK(of_b.extents[0] == -1);
  CHECK(of_b.num_slots[1] == 8);
  for (int32_t layer = 0; layer < kLayers; ++layer) {
    const auto at = [&](Kind kind) {
      return std::find_if(commands.begin(), commands.end(), [&](const TableCommand& c) {
        return c.row == b.value && c.layer == layer && c.kind == kind;
      });
    };
    CHECK(at(Kind::kSetNumSlots) < at(Kind::kSetSlotExtent));
    // Unmapped before it is granted anew.
    const TableCommand& unmapped = *at(Kind::kSetSlotExtent);
    CHECK(unmapped.value == kAbsent);
  }
  CHECK_FALSE(m.Admit(3000, 4096, 6).has_value());
}

TEST_CASE("buffers come back before anybody is demoted or refused") {
  KvCacheManager m(Options({.slot_extents = 14, .placement = PlacementPolicy::kAuto}));
  const RowId resident = Start(m, 1500, 2048);  // 8 extents
  const RowId tiered = Start(m, 2000, 3000);    // 2 of the 6 that are left
  REQUIRE(m.placement(tiered) == Placement::kTiered);
  m.HandOutSlots(false);
  CHECK(m.usage().buffer_extents == 2);  // 2 are kept for the next
  SECTION("for a newcomer") {
    const auto rows = m.Admit(1000, 1024, 1);  // 2 extents a layer
    REQUIRE(rows.has_value());
    CHECK(m.placement(rows->front()) == Placement::kResident);
  }
  SECTION("for a growing row") {
    REQUIRE(m.Grow(resident, 3072));
    CHECK(m.placement(resident) == Placement::kResident);
  }
  CHECK(m.usage().buffer_extents == 0);
  CHECK(m.usage().reclaimed_extents == 2);
  CHECK(m.usage().demotions == 0);
  CHECK_FALSE(m.room_is_coming());
  CHECK(m.placement(resident) == Placement::kResident);
  m.CheckInvariants();
}

TEST_CASE("a row that grows takes its own buffer, where another layer needs it") {
  // The first layer holds every page: it grows with the row.
  KvCacheManager m(Options({.slot_extents = 10, .layers = {kWhole, kSparse}}));
  const RowId a = Start(m, 1000, 1024);  // 2 + 1
  m.HandOutSlots(false);
  REQUIRE(m.usage().buffer_extents == 1);  // all its pages
  REQUIRE(m.Grow(a, 3072));                // 6 + 1; what it had stays
  CHECK(m.usage().slot_extents == 8);
  m.HandOutSlots(false);
  CHECK(m.usage().slot_extents == 8);  // 2 are left, which are kept
  TakeAll(m);
  REQUIRE(m.Grow(a, 4096));  // 8 + 1
  CHECK(m.usage().reclaimed_extents == 0);
  CHECK(m.usage().slot_extents == 10);
  CHECK(m.usage().buffer_extents == 1);
  m.CheckInvariants();
}

TEST_CASE("a row alone grows into all there is, its own buffer included") {
  KvCacheManager m(Options({.slot_extents = 9, .layers = {kWhole, kSparse}}));
  const RowId a = Start(m, 1000, 1024);
  m.HandOutSlots(false);
  REQUIRE(m.usage().buffer_extents == 1);
  TakeAll(m);
  REQUIRE(m.Grow(a, 4096));  // 8 + 1: all
  CHECK(m.usage().reclaimed_extents == 1);
  CHECK(m.usage().buffer_extents == 0);
  CHECK(ChangeOf(TakeAll(m), a).num_slots[1] == 8);
}

TEST_CASE("a refusal takes nothing back, and says whether slots alone were short") {
  KvCacheManager m(Options({.slot_extents = 8, .host_extents = 20}));
  const RowId a = Start(m, 2000, 2048);
  for (int i = 0; i < 2; ++i) m.HandOutSlots(false);
  REQUIRE(m.usage().buffer_extents == 4);
  TakeAll(m);
  CHECK_FALSE(m.Admit(100, 500, 5).has_value());  // 10 slot extents
  CHECK(m.short_of_slots_alone());
  CHECK_FALSE(m.Admit(100, 4096, 1).has_value());  // 16 host extents
  CHECK_FALSE(m.short_of_slots_alone());
  CHECK_FALSE(m.Admit(100, 4096, 4).has_value());  // both
  CHECK_FALSE(m.short_of_slots_alone());
  CHECK_FALSE(m.Admit(100, 500, 6).has_value());  // rows
  CHECK_FALSE(m.short_of_slots_alone());
  CHECK(TakeAll(m).empty());
  CHECK(m.usage().buffer_extents == 4);
  m.Release(a);
}

TEST_CASE("while somebody waits, what it was refused stays free") {
  KvCacheManager m(Options({.slot_extents = 14, .host_extents = 24}));
  const RowId a = Start(m, 2000, 4096);
  CHECK_FALSE(m.Admit(100, 1000, 5).has_value());  // 10 slot extents, and more host than there is
  m.HandOutSlots(true);
  CHECK(m.usage().buffer_extents == 2);
  m.HandOutSlots(true);
  CHECK(m.usage().buffer_extents == 2);
  m.HandOutSlots(false);
  CHECK(m.usage().buffer_extents == 4);
  m.Suspend(a);
  CHECK(m.usage().slot_extents == 0);
  CHECK(m.usage().buffer_extents == 0);
  REQUIRE(m.Resume(a));
  CHECK(m.usage().slot_extents == kLayers);
  m.CheckInvariants();
}

TEST_CASE("rows in prefill, Resident rows and an equal ratio get nothing") {
  KvCacheManager m(Options({}));
  const auto rows = m.Admit(2000, 4096, 1);
  m.HandOutSlots(false);
  CHECK(m.usage().buffer_extents == 0);
  m.FinishPrefill(*rows);
  m.HandOutSlots(false);
  CHECK(m.usage().buffer_extents == 4);
  KvCacheManager resident(Options({.placement = PlacementPolicy::kAuto}));
  Start(resident, 2000, 4096);
  resident.HandOutSlots(false);
  CHECK(resident.usage().slot_extents == 16);
  KvCacheManager fixed(Options({.max_buffer_ratio = 1}));
  Start(fixed, 2000, 4096);
  fixed.HandOutSlots(false);
  CHECK(fixed.usage().slot_extents == kLayers);
}

KvCacheOptions Demoting(Config c) {
  c.placement = PlacementPolicy::kAuto;
  KvCacheOptions options = Options(c);
  options.demote_for_buffers = true;
  return options;
}

void FinishDemotions(KvCacheManager& m) {
  while (m.room_is_coming()) {
    m.TakeCommands();
    m.TakeSpills(64);
    m.FinishSpills();
  }
}

// Two Resident rows fill HBM but for the two extents of a third row, which is Tiered and lacks four.
std::vector<RowId> StartThree(KvCacheManager& m, int64_t prompt, int64_t reserve) {
  std::vector<RowId> rows;
  for (int i = 0; i < 3; ++i) rows.push_back(Start(m, prompt, reserve));
  REQUIRE(m.placement(rows[1]) == Placement::kResident);
  REQUIRE(m.placement(rows[2]) == Placement::kTiered);
  REQUIRE(m.usage().slot_extents == m.usage().slot_extents_total);
  return rows;
}

TEST_CASE("Resident rows are demoted, one after the other, for buffers of Tiered ones") {
  KvCacheManager m(Demoting({.slot_extents = 14}));
  const std::vector<RowId> rows = StartThree(m, 1500, 1536);
  m.HandOutSlots(true);
  CHECK_FALSE(m.room_is_coming());
  m.HandOutSlots(false);
  CHECK(m.room_is_coming());
  CHECK(m.placement(rows[0]) == Placement::kResident);
  m.HandOutSlots(false);  // nothing more before it has finished
  FinishDemotions(m);
  CHECK(m.placement(rows[0]) == Placement::kTiered);
  CHECK(m.usage().demotions == 1);
  m.HandOutSlots(false);
  CHECK(m.usage().buffer_extents == 2);  // the rest of four is the reserve
  SECTION("what was freed is there for a newcomer, in the demoted row's place") {
    const RowId newcomer = Start(m, 1000, 1024);
    CHECK(m.placement(newcomer) == Placement::kResident);
    CHECK(m.usage().reclaimed_extents == 2);
  }
  SECTION("until no Resident row is left") {
    m.HandOutSlots(false);
    FinishDemotions(m);
    CHECK(m.usage().demotions == 2);
    m.HandOutSlots(false);
    CHECK(m.usage().buffer_extents == 6);
    m.HandOutSlots(false);
    CHECK_FALSE(m.room_is_coming());
  }
  m.CheckInvariants();
}

TEST_CASE("nobody is demoted for few buffers, beyond the host pool, or without the option") {
  const auto quiet = [](const KvCacheOptions& options, int64_t prompt, int64_t reserve) {
    KvCacheManager m(options);
    StartThree(m, prompt, reserve);
    m.HandOutSlots(false);
    return !m.room_is_coming() && m.usage().demotions == 0;
  };
  CHECK(quiet(Demoting({.slot_extents = 34}), 4000, 4096));  // four lack, it would free 14
  CHECK(quiet(Demoting({.slot_extents = 14, .host_extents = 11}), 1500, 1536));
  CHECK_FALSE(quiet(Demoting({.slot_extents = 14, .host_extents = 12}), 1500, 1536));
  CHECK(quiet(Options({.slot_extents = 14, .placement = PlacementPolicy::kAuto}), 1500, 1536));
}

TEST_CASE("a round hands out a bounded number of extents") {
  KvCacheManager m(Options({.slot_extents = 600, .host_extents = 600, .max_rows = 60}));
  for (int i = 0; i < 40; ++i) Start(m, 1000 + i, 2048);  // 160 extents of buffers
  TakeAll(m);
  m.HandOutSlots(false);
  const int64_t first = m.usage().handed_out_extents;
  CHECK(first > 0);
  CHECK(first < 160);
  const auto commands = TakeAll(m);
  CHECK(commands.size() <= 2 * static_cast<size_t>(first));  // a count and an extent each
  for (int i = 0; i < 3; ++i) m.HandOutSlots(false);
  CHECK(m.usage().buffer_extents == 160);
}

}  // namespace
}  // namespace spin
