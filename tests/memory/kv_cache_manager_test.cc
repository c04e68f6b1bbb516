// The contract of the façade, case by case; the random walk is tests/sim/memory_sim_test.cc.
#include "tests/memory/small_cache.h"

namespace spin::testing {
namespace {

using Catch::Matchers::Contains;

TEST_CASE("a reservation is prompt and max_tokens, or a growth step, within the model's length") {
  const KvCacheManager m(Options({}));
  CHECK(m.ReservationTokens(100, 50) == 150);
  CHECK(m.ReservationTokens(100, std::nullopt) == 2148);
  CHECK(m.ReservationTokens(3000, 5000) == 4096);
  CHECK(m.ReservationTokens(3000, std::nullopt) == 4096);
  CHECK(m.ReservationTokens(100, 0) == 100);
}

TEST_CASE("what fits in free HBM is Resident, what does not is Tiered") {
  KvCacheManager m(Options({.slot_extents = 10}));
  const RowId a = Start(m, 1000, 2000);  // 4 extents x 2 layers
  CHECK(m.placement(a) == Placement::kResident);
  CHECK(m.usage().slot_extents == 8);
  CHECK(m.usage().host_extents == 0);
  const RowId b = Start(m, 1000, 2000);  // one cache extent a layer
  CHECK(m.placement(b) == Placement::kTiered);
  CHECK(m.usage().slot_extents == 10);
  CHECK(m.usage().host_extents == 8);
  CHECK(m.usage().meta_segments == 8);
  CHECK(m.usage().demotions == 0);
}

TEST_CASE("usage tells tokens by placement, and granted slots by their use") {
  KvCacheManager m(Options({.slot_extents = 10}));
  const RowId a = Start(m, 1000, 2000);
  const RowId b = Start(m, 900, 2000);
  REQUIRE(m.placement(b) == Placement::kTiered);
  const RowId rows[] = {a, b};
  m.Advance(rows);
  KvUsage usage = m.usage();
  CHECK(usage.resident_tokens == 1001);
  CHECK(usage.tiered_tokens == 901);
  CHECK(usage.suspended_tokens == 0);
  CHECK(usage.tiered_slots.mandatory == kLayers * 5);
  CHECK(usage.tiered_slots.buffering == kLayers * 3);
  m.Suspend(b);
  usage = m.usage();
  CHECK(usage.tiered_tokens == 0);
  CHECK(usage.suspended_tokens == 901);
  CHECK(usage.tiered_slots.mandatory == 0);
  CHECK(m.ReadsOf(900).attended_tokens == kLayers * (4 * 64 + 4));  // 5 pages, 4 tokens in the tail
  CHECK(m.WritesOf(a, 1000, 1001).offload_bytes == 0);
  CHECK(m.WritesOf(b, 900, 901).offload_bytes == kLayers * 2 * 64 * 2);
}

TEST_CASE("when HBM is full the Resident row that frees most becomes Tiered") {
  KvCacheManager m(Options({.slot_extents = 16}));
  const RowId small = Start(m, 600, 1500);   // 3 extents a layer
  const RowId large = Start(m, 2000, 2500);  // 5 extents a layer
  CHECK(m.usage().slot_extents == 16);
  m.TakeCommands();
  CHECK_FALSE(m.Admit(500, 512, 1).has_value());
  CHECK(m.room_is_coming());
  CHECK(m.placement(large) == Placement::kResident);
  CHECK(m.usage().demotions == 0);
  PassSpills(m);
  CHECK(m.placement(large) == Placement::kTiered);
  CHECK(m.placement(small) == Placement::kResident);
  CHECK(m.usage().demotions == 1);
  CHECK(m.Admit(500, 512, 1).has_value());
  m.CheckInvariants();
}

TEST_CASE("a demotion spills what holds tokens, keeps the last extents, and binds their pages") {
  KvCacheManager m(Options({.slot_extents = 8}));
  const RowId a = Start(m, 1100, 2000);  // 4 extents a layer, 3 hold tokens, 18 pages
  m.TakeCommands();
  REQUIRE_FALSE(m.Admit(10, 10, 1).has_value());
  CHECK(PassSpills(m) == std::vector<int32_t>{0, 1, 4, 5});  // what is full, in the background
  REQUIRE(m.placement(a) == Placement::kTiered);
  REQUIRE(m.Admit(10, 10, 1).has_value());
  const auto taken = m.TakeCommands();
  const std::vector<TableCommand> commands(taken.begin(), taken.end());
  std::vector<int32_t> spilled;
  size_t last_spill = 0, first_slot = commands.size();
  for (size_t i = 0; i < commands.size(); ++i) {
    const TableCommand& c = commands[i];
    if (c.kind == Kind::kSpillExtent) {
      spilled.push_back(c.value);
      last_spill = i;
    }
    if (c.kind == Kind::kSetSlotExtent) first_slot = std::min(first_slot, i);
    if (c.kind == Kind::kBindSlots) {
      CHECK(c.row == a.value);
      CHECK(c.index == 16);  // first page of the third extent
      CHECK(c.value == 18);
    }
  }
  CHECK(spilled == std::vector<int32_t>{2, 6});  // the tail
  CHECK(last_spill < first_slot);                // read before anything is granted again
  CHECK(std::count_if(commands.begin(), commands.end(),
                      [](const auto& c) { return c.kind == Kind::kBindSlots; }) == kLayers);
  CHECK(m.usage().spilled_bytes == 6 * m.geometry().extent_bytes());
}

TEST_CASE("rows in prefill are not demoted, and a refusal changes nothing") {
  KvCacheManager m(Options({.slot_extents = 8}));
  const auto rows = m.Admit(1000, 2000, 1);
  REQUIRE(rows.has_value());
  m.TakeCommands();
  CHECK_FALSE(m.Admit(100, 100, 1).has_value());
  CHECK(m.TakeCommands().empty());
  CHECK_FALSE(m.room_is_coming());
  m.FinishPrefill(*rows);
  CHECK_FALSE(m.Admit(100, 100, 1).has_value());
  PassSpills(m);
  CHECK(m.Admit(100, 100, 1).has_value());
}

TEST_CASE("a row without a full extent is demoted at once") {
  KvCacheManager m(Options({.slot_extents = 8}));
  const RowId a = Start(m, 500, 2000);
  CHECK(m.Admit(100, 100, 1).has_value());
  CHECK(m.placement(a) == Placement::kTiered);
  CHECK_FALSE(m.room_is_coming());
}

TEST_CASE("while its room is coming nobody is demoted for it again") {
  KvCacheManager m(Options({.slot_extents = 16}));
  const RowId a = Start(m, 2000, 2048);
  const RowId b = Start(m, 2000, 2048);
  m.TakeCommands();
  for (int i = 0; i < 3; ++i) {
    CHECK_FALSE(m.Admit(1000, 1024, 1).has_value());  // 4 extents, or 2 as Tiered; 6 are coming
    CHECK(m.TakeCommands().size() == (i == 0 ? 2 * 4 * kLayers : 0));  // host and meta of a
    CHECK(m.TakeSpills(2).size() == (i == 0 ? 2 : 0));
  }
  CHECK(m.usage().host_extents == 4 * kLayers);
  CHECK(m.usage().fraction == Approx(4.0 / 16));  // what is coming counts as free
  SECTION("so much is enough") {
    PassSpills(m);
    CHECK(m.placement(a) == Placement::kTiered);
    CHECK(m.placement(b) == Placement::kResident);
    CHECK(m.Admit(1000, 1024, 1).has_value());
  }
  SECTION("a need that is larger begins what it lacks") {
    CHECK_FALSE(m.Admit(1000, 1024, 4).has_value());  // 8 as Tiered
    CHECK(m.usage().host_extents == 8 * kLayers);
    PassSpills(m);
    CHECK(m.placement(b) == Placement::kTiered);
    CHECK(m.Admit(1000, 1024, 4).has_value());
  }
}

TEST_CASE("a row that is being demoted decodes, and grows into what is free") {
  KvCacheManager m(Options({.slot_extents = 12}));
  const RowId a = Start(m, 1000, 2048);  // 4 extents a layer
  const RowId b = Start(m, 100, 512);    // 2 are left free
  CHECK_FALSE(m.Admit(1500, 2048, 2).has_value());
  REQUIRE(m.room_is_coming());
  m.Advance({&a, 1});
  REQUIRE(m.Grow(a, 2049));
  CHECK(m.placement(a) == Placement::kResident);
  CHECK(m.usage().slot_extents == 12);
  CHECK(m.usage().host_extents == 5 * kLayers);
  m.CheckInvariants();
  CHECK_FALSE(m.Grow(a, 2561));  // nothing is free: it waits
  PassSpills(m);
  CHECK(m.placement(a) == Placement::kTiered);
  CHECK(m.placement(b) == Placement::kResident);
  CHECK(m.Grow(a, 2561));
  m.CheckInvariants();
}

TEST_CASE("a row that ends in the middle of its demotion leaves when its copies have passed") {
  KvCacheManager m(Options({.slot_extents = 8}));
  const RowId a = Start(m, 1100, 2000);
  REQUIRE_FALSE(m.Admit(2000, 2048, 1).has_value());
  m.TakeCommands();
  REQUIRE(m.TakeSpills(3).size() == 3);
  m.Release(a);
  m.CheckInvariants();
  CHECK(m.usage().slot_extents == 3);
  CHECK(m.usage().host_extents == 3);
  CHECK(m.room_is_coming());
  m.FinishSpills();
  CHECK_FALSE(m.room_is_coming());
  CHECK(m.usage().demotions == 0);
  CHECK(m.usage().fraction == 0);
  CHECK(m.Admit(2000, 2048, 1).has_value());
}

TEST_CASE("a fork that ends takes its own copies along; the others need not wait for them") {
  KvCacheManager m(Options({.slot_extents = 12}));
  const auto pair = m.Admit(512, 1536, 2);  // 1 shared + 2 own extents a layer: 10
  REQUIRE(pair.has_value());
  m.FinishPrefill(*pair);
  const RowId a = (*pair)[0], b = (*pair)[1];
  for (int i = 0; i < 520; ++i) m.Advance({&a, 1});
  CHECK_FALSE(m.Admit(2000, 2048, 2).has_value());
  m.TakeCommands();
  REQUIRE(m.TakeSpills(3).size() == 3);  // of a: both layers' prompt, its own in the first
  m.FinishSpills();
  REQUIRE(m.room_is_coming());
  m.Release(a);
  CHECK_FALSE(m.room_is_coming());
  CHECK(m.placement(b) == Placement::kTiered);
  CHECK(m.usage().demotions == 1);
  m.CheckInvariants();
}

TEST_CASE("dense layers wait for room: nothing is demoted for them") {
  KvCacheManager m(Options({.slot_extents = 8, .demand = {}}));
  const RowId a = Start(m, 1000, 2000);
  CHECK_FALSE(m.Admit(100, 100, 1).has_value());
  CHECK(m.placement(a) == Placement::kResident);
  m.Release(a);
  CHECK(m.Admit(100, 100, 1).has_value());
}

TEST_CASE("a host pool is of use where a layer is sparse, or the policy asks for it") {
  const LayerDemand whole = {};
  const LayerDemand sparse = {.whole_context = false, .fixed_pages = 1, .selectable_pages = 4};
  const std::vector<LayerDemand> dense(2, whole), mixed = {whole, sparse};
  CHECK(MayTier(PlacementPolicy::kAuto, mixed));
  CHECK_FALSE(MayTier(PlacementPolicy::kAuto, dense));
  CHECK(MayTier(PlacementPolicy::kTiered, dense));
  CHECK_FALSE(MayTier(PlacementPolicy::kResident, mixed));
}

TEST_CASE("the policy tiered gives every sequence its budget and no more") {
  KvCacheManager m(Options({.placement = PlacementPolicy::kTiered}));
  const RowId a = Start(m, 3000, 4000);
  CHECK(m.placement(a) == Placement::kTiered);
  CHECK(m.usage().slot_extents == kLayers);
  for (const TableCommand& c : Take(m, Kind::kSetNumSlots)) CHECK(c.value == 8);
  const RowId b = Start(m, 100, 130);
  for (const TableCommand& c : Take(m, Kind::kSetNumSlots)) CHECK(c.value == 3);  // all its pages
  CHECK(m.placement(b) == Placement::kTiered);
}

TEST_CASE("the policy resident and an absent host pool never tier") {
  for (const Config& c : {Config{.slot_extents = 8, .placement = PlacementPolicy::kResident},
                          Config{.slot_extents = 8, .host_extents = 0}}) {
    KvCacheManager m(Options(c));
    Start(m, 1000, 2000);
    CHECK_FALSE(m.Admit(100, 100, 1).has_value());
  }
}

TEST_CASE("forks share the prompt's full extents and own a copy of its end") {
  for (const PlacementPolicy policy : {PlacementPolicy::kResident, PlacementPolicy::kTiered}) {
    KvCacheManager m(Options({.slot_extents = 32, .placement = policy, .summary_elements = 128}));
    const auto rows = m.Admit(1100, 1500, 3);  // two full extents, one more each
    REQUIRE(rows.has_value());
    const bool tiered = policy == PlacementPolicy::kTiered;
    CHECK(m.usage().slot_extents == (tiered ? 3 * 2 : 2 * 5));
    CHECK(m.usage().host_extents == (tiered ? 2 * 5 : 0));
    CHECK(m.usage().summary_extents == 2 * 5);
    m.TakeCommands();
    m.FinishPrefill(*rows);
    const auto commands = m.TakeCommands();
    CHECK(commands.size() == 2 * 2 * kLayers);  // page and summary extents, two children
    for (const TableCommand& c : commands) {
      CHECK((c.kind == (tiered ? Kind::kCopyHostExtent : Kind::kCopySlotExtent) ||
             c.kind == Kind::kCopySummaryExtent));
    }
    m.CheckInvariants();
    m.Release((*rows)[0]);  // the others keep what they share
    m.CheckInvariants();
    CHECK(m.usage().summary_extents == 2 * 4);
    m.Release((*rows)[1]);
    m.Release((*rows)[2]);
    CHECK(m.usage().fraction == 0);
  }
}

TEST_CASE("forks get a basis of keys of their own") {
  KvCacheOptions options = Options({.slot_extents = 32});
  options.plan.geometry.key_rank = 16;
  KvCacheManager m(options);
  const auto rows = m.Admit(1024, 1500, 2);
  m.TakeCommands();
  m.FinishPrefill(*rows);
  const auto commands = m.TakeCommands();
  REQUIRE(commands.size() == kLayers);
  for (int32_t layer = 0; layer < kLayers; ++layer) {
    const TableCommand& c = commands[static_cast<size_t>(layer)];
    CHECK(c.kind == Kind::kCopyKeyBasis);
    CHECK(c.index == (*rows)[1].value * kLayers + layer);
    CHECK(c.value == (*rows)[0].value * kLayers + layer);
  }
}

TEST_CASE("a prompt that ends with an extent is shared whole: nothing to copy") {
  KvCacheManager m(Options({.slot_extents = 32}));
  const auto rows = m.Admit(1024, 1500, 2);
  m.TakeCommands();
  m.FinishPrefill(*rows);
  CHECK(m.TakeCommands().empty());
}

TEST_CASE("forks own copies of all extents of their prompt that may still change") {
  const PlacementPolicy policy = GENERATE(PlacementPolicy::kResident, PlacementPolicy::kTiered);
  const bool tiered = policy == PlacementPolicy::kTiered;
  KvCacheManager m(Options(
      {.slot_extents = 32, .placement = policy, .summary_elements = 128, .unsettled_tokens = 64}));
  // Of 1,087 tokens the second extent is full, but not settled; with one more it is.
  for (const auto& [prompt, own] : {std::pair{1087, 2}, std::pair{1088, 1}, std::pair{1024, 1}}) {
    const auto rows = m.Admit(prompt, 1500, 2);
    REQUIRE(rows.has_value());
    m.TakeCommands();
    m.FinishPrefill(*rows);
    const auto commands = m.TakeCommands();
    std::vector<TableCommand> pages;
    for (const TableCommand& c : commands) {
      if (c.kind == (tiered ? Kind::kCopyHostExtent : Kind::kCopySlotExtent)) pages.push_back(c);
    }
    CHECK(static_cast<int32_t>(pages.size()) == own * kLayers);
    CHECK(commands.size() == 2 * pages.size());  // and their summaries
    m.CheckInvariants();
    for (const RowId row : *rows) m.Release(row);
  }
}

TEST_CASE("forks are demoted together and spill their prompt once") {
  KvCacheManager m(Options({.slot_extents = 12}));
  const auto rows = m.Admit(1100, 1500, 2);  // 2 shared + 2 own extents a layer
  m.FinishPrefill(*rows);
  CHECK(m.usage().slot_extents == 8);
  m.TakeCommands();
  const auto other = m.Admit(2000, 2048, 1);  // 8 extents, or 2 as Tiered
  REQUIRE(other.has_value());
  CHECK(m.placement(other->front()) == Placement::kTiered);
  CHECK(m.usage().demotions == 0);
  CHECK_FALSE(m.usage().slot_extents < 10);
  CHECK_FALSE(m.Admit(2000, 2048, 2).has_value());  // 4 more cache extents
  CHECK(PassSpills(m).size() == kLayers * 2);
  CHECK(m.usage().demotions == 2);
  CHECK(Take(m, Kind::kSpillExtent).size() == kLayers * 2);
  CHECK(m.Admit(2000, 2048, 2).has_value());
  m.CheckInvariants();
}

TEST_CASE("a row advances to its reservation and grows beyond it") {
  KvCacheManager m(Options({}));
  const RowId a = Start(m, 500, 512);
  for (int i = 0; i < 12; ++i) m.Advance({&a, 1});
  CHECK(m.length(a) == 512);
  CHECK(m.reserved_tokens(a) == 512);
  REQUIRE(m.Grow(a, 1200));
  CHECK(m.reserved_tokens(a) == 1200);
  CHECK(m.usage().slot_extents == 3 * kLayers);
  m.Advance({&a, 1});
  m.CheckInvariants();
}

TEST_CASE("a row that cannot grow in HBM is demoted itself when that frees most") {
  KvCacheManager m(Options({.slot_extents = 8}));
  const RowId a = Start(m, 1500, 2048);
  CHECK_FALSE(m.Grow(a, 4096));
  CHECK(m.reserved_tokens(a) == 2048);
  PassSpills(m);
  REQUIRE(m.Grow(a, 4096));
  CHECK(m.placement(a) == Placement::kTiered);
  CHECK(m.usage().host_extents == 8 * kLayers);
  m.CheckInvariants();
}

TEST_CASE("growth that no pool can back is refused") {
  KvCacheManager m(Options({.slot_extents = 8, .host_extents = 0}));
  const RowId a = Start(m, 1500, 2048);
  m.TakeCommands();
  CHECK_FALSE(m.Grow(a, 2049));
  CHECK(m.reserved_tokens(a) == 2048);
  CHECK(m.TakeCommands().empty());
}

TEST_CASE("a suspended row holds no slots and comes back cold") {
  KvCacheManager m(Options({.placement = PlacementPolicy::kTiered}));
  const RowId a = Start(m, 1000, 2000);
  m.TakeCommands();
  m.Suspend(a);
  CHECK(m.usage().slot_extents == 0);
  CHECK(m.usage().suspended_rows == 1);
  CHECK(m.usage().host_extents == 8);
  CHECK(Take(m, Kind::kSetMetaSegment).size() == 8);  // every entry absent again
  m.CheckInvariants();
  REQUIRE(m.Resume(a));
  CHECK(m.usage().slot_extents == kLayers);
  CHECK(Take(m, Kind::kBindSlots).empty());
  m.CheckInvariants();
}

TEST_CASE("what can never run is refused with the key to raise") {
  const KvCacheManager dense(Options({.slot_extents = 8, .demand = {}}));
  CHECK(dense.CheckFits(100, 2048, 1).ok());
  const absl::Status hbm = dense.CheckFits(100, 2049, 1);
  REQUIRE(hbm.code() == absl::StatusCode::kResourceExhausted);
  CHECK_THAT(MessageOf(hbm), Contains("memory.hbm_budget"));
  const KvCacheManager sparse(Options({.slot_extents = 8, .host_extents = 10}));
  const absl::Status host = sparse.CheckFits(100, 4096, 1);
  REQUIRE(host.code() == absl::StatusCode::kResourceExhausted);
  CHECK_THAT(MessageOf(host), Contains("memory.host_pool"));
  CHECK_THAT(MessageOf(sparse.CheckFits(1, 2, 7)), Contains("max_num_seqs"));
  CHECK(sparse.CheckFits(100, 5000, 1).code() == absl::StatusCode::kInvalidArgument);
  const KvCacheManager forced(Options({.host_extents = 0, .placement = PlacementPolicy::kTiered}));
  CHECK_THAT(MessageOf(forced.CheckFits(1, 2, 1)), Contains("memory.host_pool"));
}

TEST_CASE("usage counts slots that demotion would give back as free") {
  KvCacheManager m(Options({.slot_extents = 16}));
  Start(m, 3000, 4096);
  CHECK(m.usage().slot_extents == 16);
  CHECK(m.usage().fraction == Approx(2.0 / 16));  // two cache extents are all it needs
  KvCacheManager dense(Options({.slot_extents = 16, .demand = {}}));
  Start(dense, 3000, 4096);
  CHECK(dense.usage().fraction == 1);
}

}  // namespace
}  // namespace spin::testing
