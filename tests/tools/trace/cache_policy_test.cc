// Policies against the server's own lookup, and against references that are plain and slow.
#include "tools/trace/cache_policy.h"

#include <bit>
#include <map>
#include <set>
#include <tuple>

#include "tests/kernels/kv_testing.h"
#include "tests/tools/trace/random_trace.h"

namespace spin::trace {
namespace {

using spin::testing::KvWorld;
using spin::testing::StepRows;

HitCounts Sum(const std::vector<HitCounts>& layers) {
  HitCounts sum;
  for (const HitCounts& layer : layers) sum += layer;
  return sum;
}

// What the server's lookup counts for the selections of each layer, on a Tiered row as a prefill leaves it.
std::vector<HitCounts> ThroughLookup(const SelectionTrace& trace, Eviction eviction,
                                     int32_t num_slots) {
  const TraceHeader& header = trace.header();
  KvWorld world(spin::testing::SmallGeometry(DType::kBf16, 64, header.page_tokens));
  REQUIRE(world.geometry.num_layers == header.num_layers);
  REQUIRE(world.geometry.num_kv_heads == header.num_kv_heads);
  constexpr int32_t kRow = 2;
  world.AddRow(kRow, Placement::kTiered, header.num_pages() * header.page_tokens, num_slots);
  const int32_t pages = header.Tail(-1) + 1;
  const int32_t first = std::max(0, pages - num_slots);
  std::vector<HitCounts> layers(static_cast<size_t>(header.num_layers));
  StepRows step({kRow}, world.geometry.max_rows);
  const auto entries = static_cast<size_t>(header.num_kv_heads * header.budget_pages);
  std::vector<int32_t> ids(entries), count(entries), list(entries), len(entries), dst(entries),
      copies(entries);
  std::vector<int64_t> src(entries);
  for (int32_t layer = 0; layer < header.num_layers; ++layer) {
    world.Apply({{TableCommandKind::kBindSlots, kRow, layer, first, pages}});
    std::vector<RetrieveCounters> rows(static_cast<size_t>(world.geometry.max_rows));
    for (int32_t s = 0; s < header.num_steps; ++s) {
      step.position[kRow] = header.prompt_tokens + s;
      for (int32_t head = 0; head < header.num_kv_heads; ++head) {
        const std::span<const int32_t> selected = trace.stream(layer, head).At(s);
        count[static_cast<size_t>(head)] = static_cast<int32_t>(selected.size());
        std::ranges::copy(selected, ids.begin() + int64_t{head} * header.budget_pages);
      }
      cpu::Lookup({.decode = step.view(),
                   .ids = ids.data(),
                   .count = count.data(),
                   .max_selected = header.budget_pages,
                   .layer = layer,
                   .eviction = eviction,
                   .tables = world.tables,
                   .page_list = list.data(),
                   .list_len = len.data(),
                   .max_list = header.budget_pages,
                   .copy_src = src.data(),
                   .copy_dst = dst.data(),
                   .copy_len = copies.data(),
                   .counters = rows.data()},
                  world.pool);
    }
    const RetrieveCounters& counters = rows[kRow];
    layers[static_cast<size_t>(layer)] = {static_cast<int64_t>(counters.hits),
                                          static_cast<int64_t>(counters.misses)};
  }
  return layers;
}

TraceHeader ForLookup() {
  return {.num_layers = 2,
          .num_kv_heads = 3,
          .page_tokens = 8,
          .budget_pages = 12,
          .fixed_pages = 2,
          .prompt_tokens = 601,
          .num_steps = 700};
}

TEST_CASE("hits and misses are those of the server's lookup, whatever the size and the rule") {
  const auto [policy, eviction] =
      GENERATE(table<Policy, Eviction>({{Policy::kBucketed, Eviction::kBucketed},
                                        {Policy::kLastStep, Eviction::kLastStep},
                                        {Policy::kNone, Eviction::kNone}}));
  TraceHeader header = ForLookup();
  header.prompt_tokens = GENERATE(601, 608, 40);
  const SelectionTrace trace = RandomTrace(header, 21);
  for (const double ratio : {1.0, 1.3, 2.0, 4.0, 9.0}) {
    const int32_t num_slots = SlotsAt(header, ratio);
    INFO("slots " << num_slots);
    REQUIRE(ReplayLayers(trace, policy, num_slots, 0) == ThroughLookup(trace, eviction, num_slots));
  }
}

TEST_CASE("ages that do not saturate make a difference where pages stay long") {
  TraceHeader header = ForLookup();
  const SelectionTrace trace = RandomTrace(header, 22);
  const int32_t num_slots = SlotsAt(header, 9);
  CHECK(Sum(ReplayLayers(trace, Policy::kBucketed, num_slots, 0)) !=
        Sum(ReplayLayers(trace, Policy::kExactLru, num_slots, 0)));
}

// Least recently used in other words: pages sorted by the step of their last use, then by slot.
HitCounts ReferenceLru(const TraceHeader& header, const StreamTrace& stream, int32_t num_slots) {
  std::map<int32_t, std::pair<int32_t, int32_t>> held;  // page -> last use, slot
  std::set<int32_t> free;
  const int32_t pages = header.Tail(-1) + 1;
  for (int32_t j = 0; j < num_slots; ++j) {
    if (j < pages) {
      held[std::max(0, pages - num_slots) + j] = {-1, j};
    } else {
      free.insert(j);
    }
  }
  HitCounts counts;
  for (int32_t step = 0; step < header.num_steps; ++step) {
    const std::span<const int32_t> ids = stream.At(step);
    std::vector<int32_t> missing;
    for (const int32_t id : ids) {
      const auto it = held.find(id);
      if (it == held.end()) missing.push_back(id);
      if (it != held.end()) it->second.first = step;
      if (id == ids.back() && header.FreshTail(step)) continue;
      ++(it == held.end() ? counts.misses : counts.hits);
    }
    while (free.size() < missing.size()) {
      const auto oldest =
          std::ranges::min_element(held, {}, [](const auto& entry) { return entry.second; });
      REQUIRE(oldest->second.first < step);
      free.insert(oldest->second.second);
      held.erase(oldest);
    }
    for (const int32_t id : missing) {
      held[id] = {step, *free.begin()};
      free.erase(free.begin());
    }
  }
  return counts;
}

TEST_CASE("exact LRU is the reference's") {
  const SelectionTrace trace = RandomTrace(ForLookup(), 23);
  for (const double ratio : {1.0, 1.5, 3.0, 8.0}) {
    const int32_t num_slots = SlotsAt(trace.header(), ratio);
    for (int32_t head = 0; head < 3; ++head) {
      const StreamTrace& stream = trace.stream(1, head);
      REQUIRE(ReplayStream(trace.header(), stream, Policy::kExactLru, num_slots, 0) ==
              ReferenceLru(trace.header(), stream, num_slots));
    }
  }
}

// The fewest misses that any sequence of evictions has: over every set of pages that slots may hold.
int64_t FewestMisses(const TraceHeader& header, const StreamTrace& stream, int32_t num_slots) {
  const int32_t pages = header.Tail(-1) + 1;
  uint32_t start = 0;
  for (int32_t p = std::max(0, pages - num_slots); p < pages; ++p) start |= 1u << p;
  std::map<uint32_t, int64_t> best = {{start, 0}};
  for (int32_t step = 0; step < header.num_steps; ++step) {
    uint32_t selected = 0;
    for (const int32_t id : stream.At(step)) selected |= 1u << id;
    const uint32_t free_of_charge = header.FreshTail(step) ? 1u << header.Tail(step) : 0;
    std::map<uint32_t, int64_t> next;
    for (const auto& [held, misses] : best) {
      const int64_t cost = misses + std::popcount(selected & ~held & ~free_of_charge);
      const uint32_t others = held & ~selected;
      for (uint32_t kept = others;; kept = (kept - 1) & others) {
        if (std::popcount(kept | selected) <= num_slots) {
          const auto [it, is_new] = next.try_emplace(kept | selected, cost);
          it->second = std::min(it->second, cost);
        }
        if (kept == 0) break;
      }
    }
    best = std::move(next);
  }
  return std::ranges::min_element(best, {}, [](const auto& e) { return e.second; })->second;
}

TEST_CASE("Belady has the fewest misses there can be") {
  TraceHeader header = {.num_layers = 1,
                        .num_kv_heads = 1,
                        .page_tokens = 4,
                        .budget_pages = 3,
                        .fixed_pages = 2,
                        .prompt_tokens = 21,
                        .num_steps = 16};
  int32_t better_than_lru = 0;
  for (uint64_t seed = 0; seed < 60; ++seed) {
    header.num_steps = 10 + static_cast<int32_t>(seed % 7);
    header.budget_pages = 3 + static_cast<int32_t>(seed % 2);
    const SelectionTrace trace = RandomTrace(header, seed);
    const StreamTrace& stream = trace.stream(0, 0);
    for (int32_t num_slots = header.budget_pages; num_slots < 7; ++num_slots) {
      INFO("seed " << seed << " slots " << num_slots);
      const int64_t fewest = FewestMisses(header, stream, num_slots);
      REQUIRE(ReplayStream(header, stream, Policy::kBelady, num_slots, 0).misses == fewest);
      const int64_t lru = ReplayStream(header, stream, Policy::kExactLru, num_slots, 0).misses;
      REQUIRE(lru >= fewest);
      better_than_lru += lru > fewest;
    }
  }
  CHECK(better_than_lru > 20);
}

TEST_CASE("last step hits what two selections in a row share; none hits the tail alone") {
  const TraceHeader header = ForLookup();
  const SelectionTrace trace = RandomTrace(header, 24);
  const StreamTrace& stream = trace.stream(0, 1);
  HitCounts shared, tail;
  for (int32_t step = 1; step < header.num_steps; ++step) {
    const auto ids = stream.At(step), before = stream.At(step - 1);
    for (const int32_t id : ids) {
      if (id == ids.back() && header.FreshTail(step)) continue;
      ++(std::ranges::binary_search(before, id) ? shared.hits : shared.misses);
      ++(id == ids.back() ? tail.hits : tail.misses);
    }
  }
  CHECK(ReplayStream(header, stream, Policy::kLastStep, 40, 1) == shared);
  CHECK(ReplayStream(header, stream, Policy::kLastStep, 12, 1) == shared);
  CHECK(ReplayStream(header, stream, Policy::kNone, 40, 1) == tail);
}

TEST_CASE("on a real model's traces bucketed LRU is within a point of exact LRU") {
  const auto [algorithm, pages] = GENERATE(table<std::string, int32_t>(
      {{"quest", 512}, {"shadowkv", 1024}, {"seer", 256}, {"retroinfer", 1024}}));
  const auto trace =
      SelectionTrace::ReadFile("tools/bench/traces/smollm2-" + algorithm + "-8k.trace");
  REQUIRE(trace.ok());
  const TraceHeader& header = trace->header();
  CHECK(header.num_layers == 30);
  CHECK(header.num_kv_heads == 3);
  CHECK(header.num_pages() == pages);
  for (const double ratio : {2.0, 5.0}) {
    const auto hit_ratio = [&](Policy policy) {
      return Sum(ReplayLayers(*trace, policy, SlotsAt(header, ratio), 64)).ratio();
    };
    const double bucketed = hit_ratio(Policy::kBucketed), exact = hit_ratio(Policy::kExactLru);
    INFO(algorithm << ": " << bucketed << " and " << exact);
    CHECK(bucketed > exact - 0.01);
    CHECK(exact < hit_ratio(Policy::kBelady));
    CHECK(bucketed > hit_ratio(Policy::kLastStep) + 0.05);
  }
}

TEST_CASE("slots at a ratio are the server's") {
  const TraceHeader header = ForLookup();  // 10 selectable pages, 163 in all
  CHECK(SlotsAt(header, 1) == 12);
  CHECK(SlotsAt(header, 1.25) == 2 + 13);
  CHECK(SlotsAt(header, 3) == 32);
  CHECK(SlotsAt(header, 1000) == 163);
}

}  // namespace
}  // namespace spin::trace
