// Each command of the table list, and the bookkeeping of prompts.
#include "tests/kernels/kv_testing.h"

namespace spin {
namespace {

using enum TableCommandKind;
using testing::KvWorld;

KvGeometry Geometry() {
  return testing::SmallGeometry(DType::kF32, 64, 64);
}

TEST_CASE("placement, slot counts and directories are set and unset") {
  KvWorld w(Geometry());
  w.Apply({{kSetPlacement, 2, 0, 0, 2}, {kSetNumSlots, 2, 1, 0, 9}, {kSetHostExtent, 2, 1, 2, 5}});
  CHECK(w.placement == std::vector<int32_t>{0, 0, 2, 0});
  CHECK(w.num_slots[2 * 2 + 1] == 9);
  const auto entry = static_cast<size_t>(w.geometry.DirIndex(2, 1, 2));
  CHECK(w.host_dir[entry] == 5);
  CHECK(std::count(w.host_dir.begin(), w.host_dir.end(), kAbsent) == w.num_extents - 1);
  w.Apply({{kSetSummaryExtent, 2, 1, 2, 3}, {kSetHostExtent, 2, 1, 2, kAbsent}});
  CHECK(w.host_dir[entry] == kAbsent);
  CHECK(w.summary_dir[entry] == 3);
}

TEST_CASE("a mapped slot extent and a mapped meta segment start empty, and only they") {
  KvWorld w(Geometry());
  w.Apply({{kSetSlotExtent, 0, 1, 0, 4}, {kSetMetaSegment, 0, 1, 0, 7}});
  const int32_t n = w.geometry.pages_per_extent();
  for (size_t i = 0; i < w.slot_owner.size(); ++i) {
    const auto extent = static_cast<int32_t>(i) / n;
    CHECK(w.slot_owner[i] == (extent == 4 ? kAbsent : 12345));
    CHECK(int{w.slot_age[i]} == (extent == 4 ? 0 : 77));
    CHECK(w.meta[i] == (extent == 7 ? kAbsent : 12345));
  }
}

TEST_CASE("a shared slot extent keeps owners and ages") {
  KvWorld w(Geometry());
  w.Apply({{kShareSlotExtent, 1, 0, 1, 6}});
  CHECK(w.slot_dir[static_cast<size_t>(w.geometry.DirIndex(1, 0, 1))] == 6);
  CHECK(std::count(w.slot_owner.begin(), w.slot_owner.end(), 12345) ==
        static_cast<int64_t>(w.slot_owner.size()));
}

TEST_CASE("extents are copied whole within a pool and spilled between pools") {
  KvWorld w(Geometry());
  Random random(3);
  for (auto* pool : {&w.slots, &w.host, &w.summaries}) {
    for (uint8_t& byte : *pool) byte = static_cast<uint8_t>(random.NextU32());
  }
  auto slots = w.slots, host = w.host, summaries = w.summaries;
  const auto copy = [](auto& to, int32_t to_extent, const auto& from, int32_t from_extent,
                       int64_t n) {
    std::copy_n(from.begin() + from_extent * n, n, to.begin() + to_extent * n);
  };
  const int64_t bytes = w.geometry.extent_bytes();
  copy(slots, 1, slots, 2, bytes);
  copy(host, 3, host, 0, bytes);
  copy(summaries, 5, summaries, 4, w.geometry.summary_extent_bytes());
  copy(host, 6, slots, 1, bytes);  // after the copy above: order counts
  w.Apply({{kCopySlotExtent, 0, 0, 1, 2},
           {kCopyHostExtent, 0, 0, 3, 0},
           {kCopySummaryExtent, 0, 0, 5, 4},
           {kSpillExtent, 0, 0, 6, 1}});
  CHECK(w.slots == slots);
  CHECK(w.host == host);
  CHECK(w.summaries == summaries);
}

TEST_CASE("bases of keys are copied from row to row") {
  KvGeometry g = Geometry();
  g.key_rank = 16;
  KvWorld w(g);
  Random random(4);
  for (uint8_t& byte : w.key_basis) byte = static_cast<uint8_t>(random.NextU32());
  auto bases = w.key_basis;
  const int64_t bytes = g.key_basis_bytes();
  std::copy_n(bases.begin() + g.BasisIndex(2, 1) * bytes, bytes,
              bases.begin() + g.BasisIndex(3, 1) * bytes);
  w.Apply({{kCopyKeyBasis, 3, 1, g.BasisIndex(3, 1), g.BasisIndex(2, 1)}});
  CHECK(w.key_basis == bases);
}

TEST_CASE("bound slots hold consecutive partitions, and a smaller budget evicts from the end") {
  KvWorld w(Geometry());
  w.AddRow(1, Placement::kTiered, 700, 10);  // pages 0..10
  w.Apply({{kBindSlots, 1, 0, 3, 11}});      // slots 0..7 hold 3..10
  const auto owner = [&](int32_t head, int32_t j) {
    return w.slot_owner[static_cast<size_t>(w.Index(w.slot_dir, 1, 0, head, j))];
  };
  const auto meta = [&](int32_t head, int32_t p) {
    return w.meta[static_cast<size_t>(w.Index(w.meta_dir, 1, 0, head, p))];
  };
  for (int32_t head = 0; head < 3; ++head) {
    for (int32_t j = 0; j < 10; ++j) CHECK(owner(head, j) == (j < 8 ? j + 3 : kAbsent));
    for (int32_t p = 0; p < 11; ++p) CHECK(meta(head, p) == (p >= 3 ? p - 3 : kAbsent));
  }
  w.Apply({{kSetNumSlots, 1, 0, 0, 5}});
  for (int32_t head = 0; head < 3; ++head) {
    for (int32_t j = 0; j < 10; ++j) CHECK(owner(head, j) == (j < 5 ? j + 3 : kAbsent));
    for (int32_t p = 0; p < 11; ++p) CHECK(meta(head, p) == (p >= 3 && p < 8 ? p - 3 : kAbsent));
  }
}

TEST_CASE("history marks prompt tokens, counts generated ones and is cleared by row") {
  KvWorld w(Geometry());
  const int32_t vocab = 50;
  std::vector<uint32_t> history(4 * 50, 0);
  const std::vector<int32_t> ids = {7, 3, 7};
  for (const int32_t row : {1, 2}) {
    MarkPromptParams mark{
        .ids = ids.data(), .n = 3, .row = row, .history = history.data(), .vocab = vocab};
    cpu::MarkPrompt(mark, w.pool);
    mark.generated = true;
    cpu::MarkPrompt(mark, w.pool);
  }
  CHECK(history[50 + 7] == 0x80000002u);
  CHECK(history[50 + 3] == 0x80000001u);
  const TableCommand clear{.kind = kClearHistory, .row = 1};
  cpu::UpdateTables({.commands = &clear,
                     .num_commands = 1,
                     .tables = w.tables,
                     .history = history.data(),
                     .vocab = vocab},
                    w.pool);
  CHECK(std::count(history.begin(), history.end(), 0u) == 4 * 50 - 2);
  CHECK(history[100 + 7] == 0x80000002u);
}

}  // namespace
}  // namespace spin
