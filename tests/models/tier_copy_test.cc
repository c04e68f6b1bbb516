// The two tiers hold the same bytes: each page in a slot equals its host page, and the host has
// every page of a Tiered row, equal to what a Resident row holds. Keys that were rebuilt are the exception.
#include <catch2/catch.hpp>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "tests/models/ladder.h"

namespace spin::testing {
namespace {

constexpr int32_t kSteps = 50;

const std::byte* PageAt(const KvGeometry& g, const void* pool, int64_t page) {
  return static_cast<const std::byte*>(pool) + page * g.page_bytes();
}

// The first `tokens` tokens of two pages, keys and values or values alone.
bool SameTokens(const KvGeometry& g, const std::byte* a, const std::byte* b, int64_t tokens,
                bool with_keys = true) {
  const auto bytes = static_cast<std::size_t>(tokens * g.head_dim * SizeOf(g.dtype));
  const int64_t values = g.ValueOffset(0) * SizeOf(g.dtype);
  return (!with_keys || std::memcmp(a, b, bytes) == 0) &&
         std::memcmp(a + values, b + values, bytes) == 0;
}

// One stream of a row, as a snapshot of the tables has it.
struct StreamTables {
  const KvTables& t;
  int32_t row, layer, head;

  int64_t Page(const int32_t* dir, int32_t page) const {
    const KvGeometry& g = t.geometry;
    const int32_t extent = dir[g.DirIndex(row, layer, page / g.extent_pages())];
    REQUIRE(extent >= 0);
    return g.PageIndex(extent, head, page % g.extent_pages());
  }
};

template <typename Visit>
void ForEachStream(const KvGeometry& g, Visit visit) {
  for (int32_t layer = 0; layer < g.num_layers; ++layer) {
    for (int32_t head = 0; head < g.num_kv_heads; ++head) visit(layer, head);
  }
}

int64_t TokensOf(const KvGeometry& g, int64_t length, int32_t page) {
  return std::min<int64_t>(g.page_tokens, length - int64_t{page} * g.page_tokens);
}

// Every owned slot holds its host page's bytes, but for keys before page `first_exact`, which may be rebuilt; and the
// meta entries say the same as the owners. Returns the number of slots in use.
int64_t CheckSlots(ModelRunner& runner, RowId row, int32_t first_exact = 0) {
  const KvTables t = runner.Snapshot();
  const KvGeometry& g = t.geometry;
  const int64_t length = runner.memory().length(row);
  const auto pages = static_cast<int32_t>((length + g.page_tokens - 1) / g.page_tokens);
  int64_t used = 0;
  bool same = true, bound = true;
  ForEachStream(g, [&](int32_t layer, int32_t head) {
    const StreamTables stream = {t, row.value, layer, head};
    int64_t owned = 0, mapped = 0;
    const int32_t num_slots = t.num_slots[row.value * g.num_layers + layer];
    for (int32_t j = 0; j < num_slots; ++j) {
      const int64_t slot = stream.Page(t.slot_dir, j);
      const int32_t page = t.slot_owner[slot];
      if (page == kAbsent) continue;
      ++owned;
      REQUIRE((page >= 0 && page < pages));
      bound = bound && t.meta[stream.Page(t.meta_dir, page)] == j;
      same = same && SameTokens(g, PageAt(g, t.slots, slot),
                                PageAt(g, t.host_pages, stream.Page(t.host_dir, page)),
                                TokensOf(g, length, page), page >= first_exact);
    }
    for (int32_t page = 0; page < pages; ++page) {
      mapped += t.meta[stream.Page(t.meta_dir, page)] != kAbsent;
    }
    bound = bound && mapped == owned;
    used += owned;
  });
  CHECK(same);
  CHECK(bound);
  return used;
}

// The first `tokens` tokens in the host pages of a Tiered row equal those in the slots of the same sequence, Resident
// elsewhere.
void CheckHostHas(int64_t tokens, ModelRunner& tiered, RowId row, ModelRunner& resident,
                  RowId twin) {
  const KvGeometry& g = tiered.geometry();
  const KvTables tiered_tables = tiered.Snapshot();
  const KvTables resident_tables = resident.Snapshot();
  bool same = true;
  ForEachStream(g, [&](int32_t layer, int32_t head) {
    const StreamTables a = {tiered_tables, row.value, layer, head};
    const StreamTables b = {resident_tables, twin.value, layer, head};
    for (int32_t page = 0; int64_t{page} * g.page_tokens < tokens; ++page) {
      same = same && SameTokens(g, PageAt(g, a.t.host_pages, a.Page(a.t.host_dir, page)),
                                PageAt(g, b.t.slots, b.Page(b.t.slot_dir, page)),
                                TokensOf(g, tokens, page));
    }
  });
  CHECK(same);
}

void CheckHostHasAll(ModelRunner& tiered, RowId row, ModelRunner& resident, RowId twin) {
  const int64_t length = tiered.memory().length(row);
  REQUIRE(resident.memory().length(twin) == length);
  CheckHostHas(length, tiered, row, resident, twin);
}

TEST_CASE("Slots equal their host pages, and the host has every page") {
  const std::string algorithm = GENERATE("dense", "quest", "shadowkv", "seer", "retroinfer");
  const DType dtype = GENERATE(DType::kF32, DType::kBf16);
  const int32_t length = GENERATE(17, 500, 1024);
  INFO(length << " tokens"
              << ", " << algorithm);
  ModelRunnerOptions options = SmallRunner(kLlama, dtype);
  options.sparse = Sparse(algorithm, 128);
  options.min_buffer_ratio = 0.5;
  options.placement = PlacementPolicy::kResident;
  ModelRunner resident(options);
  options.placement = PlacementPolicy::kTiered;
  ModelRunner tiered(options);
  const std::vector<int32_t> prompt = RandomPrompt(length, 1);
  const auto row = tiered.Start(prompt, length + kSteps);
  const auto twin = resident.Start(prompt, length + kSteps);
  CHECK(CheckSlots(tiered, row[0]) > 0);
  CheckHostHasAll(tiered, row[0], resident, twin[0]);
  for (int step = 1; step < kSteps; ++step) {
    tiered.Step(row);
    resident.Step(twin);
    if (step % 16 == 1) CheckSlots(tiered, row[0]);
  }
  CHECK(CheckSlots(tiered, row[0]) > 0);
  CheckHostHasAll(tiered, row[0], resident, twin[0]);
}

TEST_CASE(
    "With rebuilt keys values equal the host's, keys of the window too; the host's are exact") {
  const DType dtype = GENERATE(DType::kF32, DType::kBf16);
  const int32_t length = GENERATE(500, 1024);
  ModelRunnerOptions options = SmallRunner(kLlama, dtype);
  options.sparse = LowRankKeys(128);
  options.placement = PlacementPolicy::kResident;
  ModelRunner resident(options);
  ModelRunner tiered(Starved(options));
  const std::vector<int32_t> prompt = RandomPrompt(length, 1);
  const auto row = tiered.Start(prompt, length + kSteps);
  const auto twin = resident.Start(prompt, length + kSteps);
  CHECK(CheckSlots(tiered, row[0]) > 0);  // all were written, none fetched
  CheckHostHasAll(tiered, row[0], resident, twin[0]);
  const auto first_exact = [&] {
    const auto last = static_cast<int32_t>((tiered.memory().length(row[0]) - 1) / kLandmarkTokens);
    return last - options.sparse.shadowkv_local_pages;
  };
  for (int step = 1; step < kSteps; ++step) {
    tiered.Step(row);
    if (step % 16 == 1) CheckSlots(tiered, row[0], first_exact());
  }
  CHECK(tiered.counters(row[0]).rebuilt > 100);
  CHECK(CheckSlots(tiered, row[0], first_exact()) > 0);
  // What was generated has other keys and values behind the first layer, as other keys were attended to.
  CheckHostHas(length, tiered, row[0], resident, twin[0]);
}

TEST_CASE("A demoted row's host pages are what its slots were") {
  ModelRunnerOptions options = SmallRunner(kLlama);
  options.sparse = Quest(128);
  options.min_buffer_ratio = 0.5;
  ModelRunner resident(options);
  SetPools(options, 19, 32);
  options.max_spills = 1;
  ModelRunner runner(options);
  const std::vector<int32_t> prompt = RandomPrompt(1014, 1);
  const auto row = runner.Start(prompt, 1160);
  const auto twin = resident.Start(prompt, 1160);
  const auto step_both = [&] {
    runner.Step(row);
    resident.Step(twin);
  };
  for (int step = 0; step < 9; ++step) step_both();
  runner.Start(RandomPrompt(1000, 2), 1040);
  REQUIRE(runner.memory().placement(row[0]) == Placement::kResident);
  REQUIRE_FALSE(runner.memory().Admit(1000, 1040, 1).has_value());
  while (runner.memory().room_is_coming()) {
    step_both();  // past 1024: an extent becomes full behind the copies
    runner.executor().AwaitSpill();
  }
  REQUIRE(runner.memory().length(row[0]) > 1024);
  REQUIRE(runner.memory().placement(row[0]) == Placement::kTiered);
  runner.Start(RandomPrompt(1000, 3), 1040);
  CHECK(CheckSlots(runner, row[0]) > 0);
  CheckHostHasAll(runner, row[0], resident, twin[0]);
  for (int step = 0; step < 20; ++step) step_both();
  CHECK(CheckSlots(runner, row[0]) > 0);
  CheckHostHasAll(runner, row[0], resident, twin[0]);
}

TEST_CASE("An extent that is clustered while its row is demoted is so on both tiers") {
  const DType dtype = GENERATE(DType::kF32, DType::kBf16);
  ModelRunnerOptions options = SmallRunner(kLlama, dtype);
  options.sparse = RetroInfer();
  options.min_buffer_ratio = 0.5;
  ModelRunner resident(options);
  // Of 3 layers the first sequence takes 3 extents each and leaves no room for another.
  SetPools(options, 11, 32);
  options.max_spills = 1;
  ModelRunner runner(options);
  const std::vector<int32_t> prompt = RandomPrompt(1060, 1);
  const auto row = runner.Start(prompt, 1500);
  const auto twin = resident.Start(prompt, 1500);
  const auto step_both = [&] {
    runner.Step(row);
    resident.Step(twin);
  };
  while (runner.memory().length(row[0]) < 1086) step_both();
  REQUIRE_FALSE(runner.memory().Admit(400, 450, 1).has_value());
  int beside = 0;
  for (; runner.memory().room_is_coming(); ++beside) {
    step_both();  // the step at 1,087 clusters the second extent
    runner.executor().AwaitSpill();
  }
  CHECK(beside == 4);  // one extent of 3 layers, and the one that finishes
  REQUIRE(runner.memory().placement(row[0]) == Placement::kTiered);
  runner.Start(RandomPrompt(400, 3), 450);  // on what it gave back
  CHECK(CheckSlots(runner, row[0]) > 0);
  CheckHostHasAll(runner, row[0], resident, twin[0]);
  for (int step = 0; step < 20; ++step) step_both();
  CheckHostHasAll(runner, row[0], resident, twin[0]);
}

}  // namespace
}  // namespace spin::testing
