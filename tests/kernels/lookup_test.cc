// Lookup against a cache simulated with maps and sorts over thousands of seeded steps, and the
// invariants of its tables.
#include <map>
#include <set>

#include "tests/kernels/kv_testing.h"

namespace spin {
namespace {

using testing::KvWorld;
using testing::StepRows;

// What one Tiered stream should do: partitions in a map, slots sorted by age to find victims.
struct ReferenceCache {
  struct Slot {
    int32_t owner = kAbsent;
    int32_t age = 0;
  };
  struct Result {
    std::vector<int32_t> slots;                       // local, in the ids' order
    std::vector<std::pair<int32_t, int32_t>> copies;  // partition, local slot
  };

  explicit ReferenceCache(int32_t num_slots) : slots(static_cast<size_t>(num_slots)) {}

  Result Step(const std::vector<int32_t>& ids, int32_t tail, bool fresh, Eviction eviction) {
    const std::set<int32_t> selected(ids.begin(), ids.end());
    std::vector<int32_t> missing;
    for (const int32_t id : ids) {
      const bool hit = where.contains(id) && (eviction != Eviction::kNone || id == tail);
      if (!hit) missing.push_back(id);
      if (id == tail && fresh) continue;
      ++(hit ? hits : misses);
    }
    std::vector<int32_t> candidates;  // may be evicted
    int32_t free = 0;
    for (int32_t j = 0; j < static_cast<int32_t>(slots.size()); ++j) {
      Slot& slot = slots[static_cast<size_t>(j)];
      if (slot.owner == kAbsent) {
        ++free;
        continue;
      }
      const bool kept =
          eviction == Eviction::kNone ? slot.owner == tail : selected.contains(slot.owner);
      slot.age = selected.contains(slot.owner) ? 0 : std::min(slot.age + 1, 63);
      if (!kept) candidates.push_back(j);
    }
    int32_t victims = static_cast<int32_t>(candidates.size());
    if (eviction == Eviction::kBucketed) {
      std::stable_sort(candidates.begin(), candidates.end(), [&](int32_t a, int32_t b) {
        return slots[static_cast<size_t>(a)].age > slots[static_cast<size_t>(b)].age;
      });
      victims = std::max(0, static_cast<int32_t>(missing.size()) - free);
    }
    for (int32_t i = 0; i < victims; ++i) {
      Slot& slot = slots[static_cast<size_t>(candidates[static_cast<size_t>(i)])];
      where.erase(slot.owner);
      slot = {};
      ++evictions;
    }
    Result result;
    int32_t j = 0;
    for (const int32_t id : missing) {
      while (slots[static_cast<size_t>(j)].owner != kAbsent) ++j;
      slots[static_cast<size_t>(j)] = {.owner = id, .age = 0};
      where[id] = j;
      if (id != tail || !fresh) result.copies.emplace_back(id, j);
    }
    for (const int32_t id : ids) result.slots.push_back(where.at(id));
    return result;
  }

  std::vector<Slot> slots;
  std::map<int32_t, int32_t> where;  // partition -> local slot
  uint64_t hits = 0, misses = 0, evictions = 0;
};

constexpr int32_t kMaxSelected = 40;

// A world with Tiered rows 1 and 3 and a Resident row 0, and one reference cache for each Tiered
// stream of the layer.
class Simulation {
 public:
  Simulation(Eviction eviction, bool everything, uint64_t seed, bool ready_first = false)
      : world(testing::SmallGeometry(DType::kBf16, 64, 8), seed),
        random(seed),
        eviction_(eviction),
        everything_(everything),
        ready_first_(ready_first),
        budgets_{{1, everything ? 190 : 70}, {3, everything ? 186 : 44}} {
    world.AddRow(0, Placement::kResident, kTokens);
    for (const auto& [row, budget] : budgets_) {
      world.AddRow(row, Placement::kTiered, kTokens, budget);
      for (int32_t head = 0; head < 3; ++head) caches.emplace(std::pair(row, head), budget);
    }
    max_list_ = everything ? 192 : kMaxSelected;
  }

  void Step(int32_t index) {
    StepRows step(index % 3 == 0 ? std::vector<int32_t>{3, 0, 1} : std::vector<int32_t>{1, 3},
                  world.geometry.max_rows);
    const auto streams = static_cast<size_t>(step.count * 3);
    for (const int32_t row : step.rows) {
      // Sequences grow a token a step; now and then one starts again where all is full.
      positions[row] = (positions[row] + 1) % (kTokens - 1);
      step.position[static_cast<size_t>(row)] = positions[row];
    }
    std::vector<int32_t> ids(streams * kMaxSelected, -5), count(streams);
    std::vector<int32_t> list(streams * max_list_, -5), len(streams), dst(list), copies(streams);
    std::vector<int32_t> ready(streams, -5);
    std::vector<int64_t> src(list.size(), -5);
    std::vector<std::vector<int32_t>> selected;
    for (size_t i = 0; i < streams; ++i) {
      selected.push_back(Select(step.position[static_cast<size_t>(step.rows[i / 3])] / 8));
      if (everything_) continue;
      count[i] = static_cast<int32_t>(selected[i].size());
      std::copy(selected[i].begin(), selected[i].end(),
                ids.begin() + static_cast<int64_t>(i) * kMaxSelected);
    }
    cpu::Lookup({.decode = step.view(),
                 .ids = everything_ ? nullptr : ids.data(),
                 .count = count.data(),
                 .max_selected = kMaxSelected,
                 .layer = 1,
                 .eviction = eviction_,
                 .tables = world.tables,
                 .page_list = list.data(),
                 .list_len = len.data(),
                 .max_list = max_list_,
                 .copy_src = src.data(),
                 .copy_dst = dst.data(),
                 .copy_len = copies.data(),
                 .ready_tokens = ready_first_ ? ready.data() : nullptr,
                 .counters = counters.data()},
                world.pool);
    for (size_t i = 0; i < streams; ++i) {
      const int32_t row = step.rows[i / 3];
      const auto head = static_cast<int32_t>(i % 3);
      REQUIRE(len[i] == static_cast<int32_t>(selected[i].size()));
      const auto at = static_cast<int64_t>(i) * max_list_;
      const int32_t tokens = (len[i] - 1) * 8 + positions[row] % 8 + 1;
      if (row == 0) {
        REQUIRE(copies[i] == 0);
        REQUIRE(ready[i] == (ready_first_ ? tokens : -5));
        for (int32_t k = 0; k < len[i]; ++k) {
          REQUIRE(list[at + k] == world.Index(world.slot_dir, 0, 1, head, selected[i][k]));
        }
        continue;
      }
      const int32_t position = positions[row];
      auto& cache = caches.at({row, head});
      auto want = cache.Step(selected[i], position / 8, position % 8 == 0, eviction_);
      REQUIRE(copies[i] == static_cast<int32_t>(want.copies.size()));
      if (ready_first_) REQUIRE(ready[i] == PutReadyFirst(want, position));
      for (int32_t k = 0; k < len[i]; ++k) {
        REQUIRE(list[at + k] == world.Index(world.slot_dir, row, 1, head, want.slots[k]));
      }
      for (int32_t k = 0; k < copies[i]; ++k) {
        REQUIRE(src[at + k] == world.Index(world.host_dir, row, 1, head, want.copies[k].first));
        REQUIRE(dst[at + k] == world.Index(world.slot_dir, row, 1, head, want.copies[k].second));
      }
      CheckTables(row, head, cache, selected[i]);
      if (ready_first_ && copies[i] > 0) {
        ++(ready[i] == tokens - 8 * copies[i] ? tails_ready : tails_copied);
      }
    }
  }

  void CheckCounters() const {
    std::vector<RetrieveCounters> want(counters.size());
    for (const auto& [stream, cache] : caches) {
      want[static_cast<size_t>(stream.first)] += {cache.hits, cache.misses, cache.evictions};
    }
    CHECK(counters == want);
  }

  RetrieveCounters Total() const {
    RetrieveCounters total;
    for (const RetrieveCounters& row : counters) total += row;
    return total;
  }

  KvWorld world;
  Random random;
  std::map<std::pair<int32_t, int32_t>, ReferenceCache> caches;
  std::map<int32_t, int32_t> positions = {{0, 100}, {1, 260}, {3, 511}};
  std::vector<RetrieveCounters> counters = std::vector<RetrieveCounters>(4);  // a row
  int tails_ready = 0, tails_copied = 0;  // of lists with copies

 private:
  static constexpr int32_t kTokens = 1480;  // 185 pages

  // Slots that something is copied to go to the end, in order. Returns the tokens of the others.
  static int32_t PutReadyFirst(ReferenceCache::Result& want, int32_t position) {
    const auto copied = [&](int32_t slot) {
      return std::any_of(want.copies.begin(), want.copies.end(),
                         [&](const auto& copy) { return copy.second == slot; });
    };
    const bool tail_ready = !copied(want.slots.back());
    const auto end = std::stable_partition(want.slots.begin(), want.slots.end(),
                                           [&](int32_t slot) { return !copied(slot); });
    const auto ready = static_cast<int32_t>(end - want.slots.begin());
    return tail_ready ? (ready - 1) * 8 + position % 8 + 1 : ready * 8;
  }

  // The tail and, of what lies before it, mostly recent and mostly repeating partitions.
  std::vector<int32_t> Select(int32_t tail) {
    std::set<int32_t> chosen = {tail};
    if (everything_) {
      for (int32_t p = 0; p < tail; ++p) chosen.insert(p);
    } else {
      const uint32_t wanted = 1 + random.Below(kMaxSelected - 1);
      for (uint32_t i = 0; i < wanted; ++i) {
        const auto span = static_cast<uint32_t>(tail + 1);
        chosen.insert(static_cast<int32_t>(random.Below(4) == 0 ? random.Below(span)
                                                                : random.Below(1 + span / 4)));
      }
    }
    return {chosen.begin(), chosen.end()};
  }

  // Owners, ages and meta equal the reference; owner and meta are each other's inverse; the
  // selected are resident.
  void CheckTables(int32_t row, int32_t head, const ReferenceCache& cache,
                   const std::vector<int32_t>& selected) {
    for (int32_t j = 0; j < static_cast<int32_t>(cache.slots.size()); ++j) {
      const auto slot = static_cast<size_t>(world.Index(world.slot_dir, row, 1, head, j));
      REQUIRE(world.slot_owner[slot] == cache.slots[static_cast<size_t>(j)].owner);
      REQUIRE(int{world.slot_age[slot]} == cache.slots[static_cast<size_t>(j)].age);
      REQUIRE(world.slot_age[slot] <= kMaxAge);
    }
    for (int32_t p = 0; p < CeilDiv(kTokens, 8); ++p) {
      const int32_t local =
          world.meta[static_cast<size_t>(world.Index(world.meta_dir, row, 1, head, p))];
      REQUIRE(local == (cache.where.contains(p) ? cache.where.at(p) : kAbsent));
    }
    for (const int32_t id : selected) REQUIRE(cache.where.contains(id));
  }

  const Eviction eviction_;
  const bool everything_;
  const bool ready_first_;
  const std::map<int32_t, int32_t> budgets_;
  int32_t max_list_ = 0;
};

TEST_CASE("lookup follows the reference cache over thousands of steps") {
  const Eviction eviction = GENERATE(Eviction::kBucketed, Eviction::kLastStep, Eviction::kNone);
  const bool ready_first = GENERATE(false, true);
  Simulation simulation(eviction, false, 11, ready_first);
  for (int32_t i = 0; i < 1500; ++i) {
    INFO("step " << i);
    simulation.Step(i);
  }
  simulation.CheckCounters();
  CHECK((simulation.tails_ready > 1000) == ready_first);
  CHECK((simulation.tails_copied > 0) == ready_first);
  CHECK(simulation.Total().evictions > 1000);
  if (eviction != Eviction::kNone) CHECK(simulation.Total().hits > 1000);
}

TEST_CASE("without ids every page of the sequence is looked up") {
  Simulation simulation(Eviction::kBucketed, true, 12, GENERATE(false, true));
  for (int32_t i = 0; i < 300; ++i) simulation.Step(i);
  simulation.CheckCounters();
}

TEST_CASE("ages saturate, and the oldest partitions leave first, lowest slot first") {
  KvWorld w(testing::SmallGeometry(DType::kF32, 64, 64));
  w.AddRow(2, Placement::kTiered, 640, 4);
  StepRows step({2}, 4);
  const auto lookup = [&](int32_t position, std::vector<int32_t> ids) {
    step.position[2] = position;
    std::vector<int32_t> all, count(3, static_cast<int32_t>(ids.size())), list(12), len(3), dst(12),
        copies(3);
    for (int32_t head = 0; head < 3; ++head) {
      all.insert(all.end(), ids.begin(), ids.end());
      all.resize(static_cast<size_t>(4 * (head + 1)));
    }
    std::vector<int64_t> src(12);
    std::vector<RetrieveCounters> counters(4);
    cpu::Lookup({.decode = step.view(),
                 .ids = all.data(),
                 .count = count.data(),
                 .max_selected = 4,
                 .tables = w.tables,
                 .page_list = list.data(),
                 .list_len = len.data(),
                 .max_list = 4,
                 .copy_src = src.data(),
                 .copy_dst = dst.data(),
                 .copy_len = copies.data(),
                 .counters = counters.data()},
                w.pool);
    std::vector<int32_t> owners;
    for (int32_t j = 0; j < 4; ++j) {
      owners.push_back(w.slot_owner[static_cast<size_t>(w.Index(w.slot_dir, 2, 0, 0, j))]);
    }
    return owners;
  };
  CHECK(lookup(130, {0, 1, 2}) == std::vector<int32_t>{0, 1, 2, kAbsent});
  CHECK(lookup(192, {1, 3}) == std::vector<int32_t>{0, 1, 2, 3});  // a fresh tail takes a slot
  CHECK(lookup(256, {3, 4}) == std::vector<int32_t>{4, 1, 2, 3});  // 0 and 2 are oldest: lower slot
  for (int32_t i = 0; i < 100; ++i) lookup(257 + i % 8, {4});
  CHECK(int{w.slot_age[static_cast<size_t>(w.Index(w.slot_dir, 2, 0, 1, 2))]} == 63);
  CHECK(lookup(320, {1, 4, 5}) == std::vector<int32_t>{4, 1, 5, 3});  // both at 63: lower slot
}

}  // namespace
}  // namespace spin
