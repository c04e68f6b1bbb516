// The bytes of a plan: allocated in full, disjoint, empty.
#include "memory/kv_store.h"

#include <catch2/catch.hpp>

#include <algorithm>
#include <vector>

#include "tests/testing/host_device.h"

namespace spin {
namespace {

constexpr KvGeometry kGeometry = {.num_layers = 3,
                                  .num_kv_heads = 3,
                                  .num_q_heads = 9,
                                  .head_dim = 64,
                                  .page_tokens = 16,
                                  .max_rows = 5,
                                  .max_extents = 3,
                                  .summary_elements = 128};

MemoryPlan SmallPlan(int64_t host_extents) {
  return PlanMemory(kGeometry, HbmBytes(kGeometry, 7, host_extents),
                    host_extents * kGeometry.extent_bytes())
      .value();
}

template <typename T>
bool AllEqual(const T* begin, int64_t n, T value) {
  return std::all_of(begin, begin + n, [&](T x) { return x == value; });
}

TEST_CASE("a new store has empty directories, and nothing resident") {
  testing::HostDevice device;
  const auto stream = device.CreateStream("test");
  const MemoryPlan plan = SmallPlan(4);
  const auto store = KvStore::Create(device, *stream, plan).value();
  CHECK(device.allocated_bytes() == plan.hbm_bytes() + plan.host_bytes);

  const KvTables& t = store->tables();
  const int64_t entries = int64_t{5} * 3 * 3;
  for (const int32_t* dir : {t.slot_dir, t.host_dir, t.summary_dir, t.meta_dir}) {
    CHECK(AllEqual(dir, entries, kAbsent));
  }
  CHECK(AllEqual(t.placement, 5, int32_t{0}));
  CHECK(AllEqual(t.num_slots, 15, int32_t{0}));
  const int64_t slots = int64_t{7} * kGeometry.pages_per_extent();
  CHECK(AllEqual(t.slot_owner, slots, kAbsent));
  CHECK(AllEqual(t.slot_age, slots, uint8_t{0}));
  CHECK(AllEqual(t.meta, int64_t{4} * kGeometry.pages_per_extent(), kAbsent));
}

TEST_CASE("arrays that share an allocation are aligned and do not overlap") {
  testing::HostDevice device;
  const auto stream = device.CreateStream("test");
  const auto store = KvStore::Create(device, *stream, SmallPlan(4)).value();
  const KvTables& t = store->tables();
  const int64_t directory = int64_t{5} * 3 * 3 * 4;
  std::vector<std::pair<const char*, int64_t>> arrays;
  const auto add = [&](const void* begin, int64_t bytes) {
    CHECK(reinterpret_cast<uintptr_t>(begin) % kArrayAlignment == 0);
    arrays.emplace_back(static_cast<const char*>(begin), bytes);
  };
  for (const int32_t* dir : {t.slot_dir, t.host_dir, t.summary_dir, t.meta_dir})
    add(dir, directory);
  add(t.placement, 5 * 4);
  add(t.num_slots, 15 * 4);
  std::sort(arrays.begin(), arrays.end());
  for (size_t i = 1; i < arrays.size(); ++i) {
    CHECK(arrays[i - 1].first + arrays[i - 1].second <= arrays[i].first);
  }
}

TEST_CASE("without a host tier and summaries there are none of their arrays") {
  testing::HostDevice device;
  const auto stream = device.CreateStream("test");
  KvGeometry g = kGeometry;
  g.summary_elements = 0;
  const MemoryPlan plan = PlanMemory(g, HbmBytes(g, 6, 0), 0).value();
  const auto store = KvStore::Create(device, *stream, plan).value();
  CHECK(store->tables().host_pages == nullptr);
  CHECK(store->tables().meta == nullptr);
  CHECK(store->tables().summaries == nullptr);
  CHECK(store->tables().key_basis == nullptr);
}

TEST_CASE("a rank of keys asks for their bases") {
  testing::HostDevice device;
  const auto stream = device.CreateStream("test");
  KvGeometry g = kGeometry;
  g.key_rank = 32;
  const MemoryPlan plan = PlanMemory(g, HbmBytes(g, 6, 0), 0).value();
  const auto store = KvStore::Create(device, *stream, plan).value();
  CHECK(store->tables().key_basis != nullptr);
  CHECK(plan.key_basis_bytes == 5 * 3 * 3 * 64 * 32 * 2);
  CHECK(device.allocated_bytes() == plan.hbm_bytes());
}

TEST_CASE("the host pool's allocation reports how far it has come, no other does") {
  testing::HostDevice device;
  const auto stream = device.CreateStream("test");
  const MemoryPlan plan = SmallPlan(4);
  std::vector<std::pair<int64_t, int64_t>> reports;
  const auto store = KvStore::Create(device, *stream, plan, [&](int64_t ready, int64_t bytes) {
                       reports.emplace_back(ready, bytes);
                     }).value();
  const int64_t bytes = plan.host_bytes;
  CHECK(reports == std::vector<std::pair<int64_t, int64_t>>{{bytes / 2, bytes}, {bytes, bytes}});
}

TEST_CASE("memory that is not there is an error with the key to lower, and leaks nothing") {
  const MemoryPlan plan = SmallPlan(4);
  testing::HostDevice device(plan.hbm_bytes() + plan.host_bytes - 1);
  const auto stream = device.CreateStream("test");
  const auto store = KvStore::Create(device, *stream, plan);
  REQUIRE(store.status().code() == absl::StatusCode::kResourceExhausted);
  CHECK_THAT(MessageOf(store.status()), Catch::Matchers::Contains("memory.host_pool"));
  CHECK(device.allocated_bytes() == 0);
}

}  // namespace
}  // namespace spin
