// Lookup on the GPU and on the CPU, step by step on the same cache: lists, copies, counters and every table agree bit
// for bit, for thousands of seeded steps.
#include <algorithm>
#include <map>
#include <set>

#include "tests/twin/twin_testing.h"

namespace spin {
namespace {

using testing::Gpu;
using testing::KvOnDevice;
using testing::KvWorld;
using testing::OnDevice;

constexpr int32_t kSparePlaces = 3;  // of the bucket, never in use

struct Setting {
  Eviction eviction = Eviction::kBucketed;
  bool everything = false;  // no ids: all pages of the sequence
  bool ready_first = false;
  bool masks = false;  // pages have them
  int32_t page_tokens = 8;
  int32_t max_extents = 3;
  int32_t tokens = 1480;              // where a sequence starts again
  int32_t max_selected = 40;          // a step
  std::map<int32_t, int32_t> budget;  // Tiered row -> local slots
  uint64_t seed = 1;
};

// Where a call's inputs and outputs lie in one block of memory, the same on both sides.
struct Layout {
  Layout(const KvGeometry& g, int32_t bucket, int32_t max_selected, int32_t max_list) {
    const int64_t streams = int64_t{bucket} * g.num_kv_heads;
    const auto take = [this](int64_t words) {
      const int64_t at = size;
      size += words;
      return at;
    };
    copy_src = take(2 * streams * max_list);  // of 64 bits
    num_rows = take(1);
    rows = take(bucket);
    position = take(g.max_rows);
    ids = take(streams * max_selected);
    count = take(streams);
    page_list = take(streams * max_list);
    list_len = take(streams);
    copy_dst = take(streams * max_list);
    copy_len = take(streams);
    ready_tokens = take(streams);
    page_mask = take(CeilDiv<int64_t>(streams * max_selected, 4));  // of bytes, as the next
    list_mask = take(CeilDiv<int64_t>(streams * max_list, 4));
  }
  int64_t size = 0;  // in words of 32 bits
  int64_t copy_src, num_rows, rows, position, ids, count, page_list, list_len, copy_dst, copy_len;
  int64_t ready_tokens, page_mask, list_mask;
};

class Twins {
 public:
  explicit Twins(const Setting& setting)
      : s_(setting),
        world_(Geometry(setting), setting.seed),
        random_(setting.seed),
        max_list_(setting.everything ? world_.geometry.max_pages() : setting.max_selected),
        layout_(world_.geometry, kRows + kSparePlaces, setting.max_selected, max_list_) {
    world_.AddRow(0, Placement::kResident, s_.tokens);
    for (const auto& [row, slots] : s_.budget) {
      world_.AddRow(row, Placement::kTiered, s_.tokens, slots);
      position_[row] = s_.tokens / (row + 1);
    }
    gpu_ = std::make_unique<KvOnDevice>(world_);
    memory_ = std::make_unique<OnDevice<int32_t>>(
        std::vector<int32_t>(static_cast<size_t>(layout_.size)));
  }

  void Step(int32_t index) {
    std::vector<int32_t> cpu = Inputs(index);
    const std::vector<int32_t> inputs = cpu;
    const auto bytes = static_cast<int64_t>(cpu.size() * sizeof(int32_t));
    Gpu::Get().CopyIn(memory_->data(), inputs.data(), bytes);
    Gpu::Get().ops().Lookup(Params(memory_->data(), gpu_->tables, device_counters_.data()),
                            Gpu::Get().stream());
    cpu::Lookup(Params(cpu.data(), world_.tables, counters_.data()), world_.pool);
    REQUIRE(memory_->Read() == cpu);
    REQUIRE(cpu != inputs);
  }

  void CheckTables() const {
    REQUIRE(gpu_->meta.Read() == world_.meta);
    REQUIRE(gpu_->slot_owner.Read() == world_.slot_owner);
    REQUIRE(gpu_->slot_age.Read() == world_.slot_age);
    REQUIRE(device_counters_.Read() == counters_);
  }

  // Nothing but meta, owners and ages has changed.
  void CheckEverything() const { gpu_->CheckEquals(world_); }

  RetrieveCounters counters() const {
    RetrieveCounters total;
    for (const RetrieveCounters& row : counters_) total += row;
    return total;
  }
  const KvWorld& world() const { return world_; }

 private:
  static constexpr int32_t kRows = 4;

  static KvGeometry Geometry(const Setting& s) {
    // Thin pages: what is in them is nothing to a lookup.
    KvGeometry g = testing::SmallGeometry(DType::kBf16, 8, s.page_tokens);
    g.max_rows = kRows;
    g.max_extents = s.max_extents;
    return g;
  }

  std::vector<int32_t> Inputs(int32_t index) {
    const KvGeometry& g = world_.geometry;
    std::vector<int32_t> words(static_cast<size_t>(layout_.size), -5);
    std::vector<int32_t> rows;
    for (const auto& [row, position] : position_) rows.push_back(row);
    if (index % 3 == 0) std::swap(rows.front(), rows.back());
    if (index % 7 == 6) rows.pop_back();
    words[static_cast<size_t>(layout_.num_rows)] = static_cast<int32_t>(rows.size());
    for (int64_t i = layout_.page_mask; s_.masks && i < layout_.list_mask; ++i) {
      words[static_cast<size_t>(i)] = static_cast<int32_t>(random_.NextU32());
    }
    for (int32_t place = 0; place < kRows + kSparePlaces; ++place) {
      const bool used = place < static_cast<int32_t>(rows.size());
      const int32_t row = used ? rows[static_cast<size_t>(place)] : 1 << 30;
      words[static_cast<size_t>(layout_.rows + place)] = row;
      if (!used) continue;
      position_[row] = (position_[row] + 1) % s_.tokens;
      words[static_cast<size_t>(layout_.position + row)] = position_[row];
      for (int32_t head = 0; head < g.num_kv_heads && !s_.everything; ++head) {
        const int64_t stream = int64_t{place} * g.num_kv_heads + head;
        const std::vector<int32_t> chosen = Select(position_[row] / g.page_tokens);
        words[static_cast<size_t>(layout_.count + stream)] = static_cast<int32_t>(chosen.size());
        std::copy(chosen.begin(), chosen.end(),
                  words.begin() + layout_.ids + stream * s_.max_selected);
      }
    }
    return words;
  }

  // The tail and, of what lies before it, mostly recent and mostly repeating partitions; now and then as many as may
  // be.
  std::vector<int32_t> Select(int32_t tail) {
    std::set<int32_t> chosen = {tail};
    const auto most = static_cast<uint32_t>(s_.max_selected);
    const uint32_t wanted = random_.Below(8) == 0 ? most : 1 + random_.Below(most);
    const auto span = static_cast<uint32_t>(tail + 1);
    for (uint32_t i = 0; chosen.size() < wanted && i < 2 * most; ++i) {
      chosen.insert(static_cast<int32_t>(random_.Below(4) == 0 ? random_.Below(span)
                                                               : random_.Below(1 + span / 4)));
    }
    return {chosen.begin(), chosen.end()};
  }

  LookupParams Params(int32_t* words, const KvTables& tables, RetrieveCounters* counters) const {
    return {.decode = {.max_batch = kRows + kSparePlaces,
                       .num_rows = words + layout_.num_rows,
                       .rows = words + layout_.rows,
                       .position = words + layout_.position},
            .ids = s_.everything ? nullptr : words + layout_.ids,
            .count = words + layout_.count,
            .max_selected = s_.max_selected,
            .layer = 1,
            .eviction = s_.eviction,
            .tables = tables,
            .page_list = words + layout_.page_list,
            .list_len = words + layout_.list_len,
            .max_list = max_list_,
            .copy_src = reinterpret_cast<int64_t*>(words + layout_.copy_src),
            .copy_dst = words + layout_.copy_dst,
            .copy_len = words + layout_.copy_len,
            .ready_tokens = s_.ready_first ? words + layout_.ready_tokens : nullptr,
            .page_mask = s_.masks ? reinterpret_cast<uint8_t*>(words + layout_.page_mask) : nullptr,
            .list_mask = s_.masks ? reinterpret_cast<uint8_t*>(words + layout_.list_mask) : nullptr,
            .counters = counters};
  }

  const Setting s_;
  KvWorld world_;
  Random random_;
  const int32_t max_list_;
  const Layout layout_;
  std::map<int32_t, int32_t> position_ = {{0, 100}};
  std::vector<RetrieveCounters> counters_ = std::vector<RetrieveCounters>(kRows);  // a row
  OnDevice<RetrieveCounters> device_counters_{std::vector<RetrieveCounters>(kRows)};
  std::unique_ptr<KvOnDevice> gpu_;
  std::unique_ptr<OnDevice<int32_t>> memory_;
};

void RunSteps(Twins& twins, int32_t steps) {
  for (int32_t i = 0; i < steps; ++i) {
    INFO("step " << i);
    twins.Step(i);
    if (i % 8 == 0) twins.CheckTables();
  }
  twins.CheckTables();
  twins.CheckEverything();
}

TEST_CASE("lookups agree over thousands of steps") {
  Setting setting;
  setting.eviction = GENERATE(Eviction::kBucketed, Eviction::kLastStep, Eviction::kNone);
  setting.page_tokens = GENERATE(8, 16);
  setting.ready_first = GENERATE(false, true);
  setting.tokens = 185 * setting.page_tokens;
  setting.max_extents = CeilDiv(setting.tokens, kExtentTokens);
  setting.budget = {{1, 70}, {3, 44}, {2, 40}};  // row 2 has room for one selection and no more
  setting.seed = 11;
  Twins twins(setting);
  RunSteps(twins, 1000);
  CHECK(twins.counters().evictions > 1000);
  CHECK(twins.counters().misses > 1000);
  if (setting.eviction != Eviction::kNone) CHECK(twins.counters().hits > 1000);
}

TEST_CASE("a few lookups", "[small]") {
  Setting setting = {.max_selected = 3, .budget = {{1, 9}, {2, 4}}, .seed = 17};
  setting.eviction = GENERATE(Eviction::kBucketed, Eviction::kLastStep, Eviction::kNone);
  Twins twins(setting);
  RunSteps(twins, 6);
  CHECK(twins.counters().misses > 0);
}

TEST_CASE("masks go with their pages, whatever becomes of those") {
  Setting setting = {.masks = true, .budget = {{1, 70}, {3, 44}, {2, 40}}, .seed = 17};
  setting.eviction = GENERATE(Eviction::kBucketed, Eviction::kLastStep, Eviction::kNone);
  setting.ready_first = GENERATE(false, true);
  SECTION("in registers") {
    Twins twins(setting);
    RunSteps(twins, 300);
  }
  SECTION("and beyond") {
    setting.max_extents = 40;
    setting.tokens = 20000;
    setting.max_selected = 1300;
    setting.budget = {{1, 1700}, {2, 1300}, {3, 2047}};
    Twins twins(setting);
    RunSteps(twins, 20);
  }
}

TEST_CASE("ages saturate and the oldest leave, lowest slot first") {
  Twins twins({.max_selected = 3, .budget = {{1, 90}, {2, 33}}, .seed = 12});
  RunSteps(twins, 1000);
  CHECK(twins.counters().evictions > 100);
  const std::vector<uint8_t>& ages = twins.world().slot_age;
  CHECK(std::count(ages.begin(), ages.end(), kMaxAge) > 30);
}

TEST_CASE("pages of 64 tokens, eight to an extent") {
  Setting setting = {.page_tokens = 64, .max_selected = 7, .budget = {{1, 9}, {3, 7}}, .seed = 13};
  setting.eviction = GENERATE(Eviction::kBucketed, Eviction::kLastStep, Eviction::kNone);
  Twins twins(setting);
  RunSteps(twins, 600);
  CHECK(twins.counters().evictions > 500);
}

TEST_CASE("without ids every page of the sequence is looked up") {
  Twins twins({.everything = true,
               .ready_first = GENERATE(false, true),
               .budget = {{1, 190}, {3, 186}},
               .seed = 14});
  RunSteps(twins, 300);
}

TEST_CASE("streams longer than what a CTA holds in registers") {
  Setting setting = {.max_extents = 40, .tokens = 20000, .budget = {}, .seed = 15};
  setting.ready_first = GENERATE(false, true);
  SECTION("all pages") {
    setting.everything = true;
    setting.budget = {{1, 2560}, {3, 2501}};
  }
  SECTION("long selections") {
    setting.eviction = GENERATE(Eviction::kBucketed, Eviction::kLastStep, Eviction::kNone);
    setting.max_selected = 1300;
    setting.budget = {{1, 1700}, {2, 1300}, {3, 2047}};
  }
  Twins twins(setting);
  RunSteps(twins, 40);
  CHECK(twins.counters().misses > 1000);
}

TEST_CASE("Qwen3-8B's budgets: 128 pages of 32K tokens, up to 384 slots") {
  Setting setting = {.page_tokens = 16,
                     .max_extents = 64,
                     .tokens = 32768,
                     .max_selected = 128,
                     .budget = {{1, 384}, {2, 256}, {3, 129}},
                     .seed = 16};
  Twins twins(setting);
  RunSteps(twins, 100);
  CHECK(twins.counters().evictions > 1000);
}

}  // namespace
}  // namespace spin
