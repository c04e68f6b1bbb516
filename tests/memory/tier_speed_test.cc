// The measurement at start: it measures what there is, in pools of any size, and leaves the tables as they were.
#include "memory/tier_speed.h"

#include <catch2/catch.hpp>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "common/units.h"
#include "kernels/backend.h"

namespace spin {
namespace {

constexpr KvGeometry kGeometry = {.num_layers = 2,
                                  .num_kv_heads = 2,
                                  .num_q_heads = 4,
                                  .head_dim = 64,
                                  .page_tokens = 16,
                                  .max_rows = 4,
                                  .max_extents = 64,
                                  .summary_elements = 128};

struct Measured {
  Measured(int64_t hbm_bytes, int64_t host_bytes)
      : backend(CreateBackend({.device = "cpu", .threads = 2}).value()),
        stream(backend.device->CreateStream("test")),
        store(KvStore::Create(*backend.device, *stream,
                              PlanMemory(kGeometry, hbm_bytes, host_bytes).value())
                  .value()),
        speed(MeasureTierSpeed(*store, *backend.device, *backend.ops, *stream)) {}

  Backend backend;
  std::unique_ptr<Stream> stream;
  std::unique_ptr<KvStore> store;
  TierSpeed speed;
};

template <typename T>
bool AllEqual(const T* begin, int64_t n, T value) {
  return std::all_of(begin, begin + n, [&](T x) { return x == value; });
}

TEST_CASE("copies both ways and gathers of five page sizes are measured") {
  // Small enough that not every stream of the gather has a page of 32 KiB, and no power of two.
  const auto [hbm, host] = GENERATE(std::pair{40 * kMiB, 30 * kMiB}, std::pair{5 * kMiB, 3 * kMiB});
  const Measured m(hbm, host);
  CHECK(m.speed.hbm_copy > 1e6);
  CHECK(m.speed.host_to_device > 1e6);
  CHECK(m.speed.device_to_host > 1e6);
  REQUIRE(m.speed.gathers.size() == 5);
  for (size_t i = 0; i < 5; ++i) {
    CHECK(m.speed.gathers[i].page_bytes == (2 * kKiB) << i);
    CHECK(m.speed.gathers[i].rate > 1e6);
    CHECK(m.speed.gathers[i].rate < 1e13);
  }
  const std::string text = m.speed.ToText();
  CHECK_THAT(text, Catch::Matchers::Contains("host to device") &&
                       Catch::Matchers::Contains("2 KiB ") &&
                       Catch::Matchers::Contains(", 32 KiB ") &&
                       !Catch::Matchers::Contains("not measured"));

  const KvTables& t = m.store->tables();
  const int64_t slots = int64_t{m.store->plan().num_slot_extents} * kGeometry.pages_per_extent();
  CHECK(AllEqual(t.slot_dir, 4 * 2 * 64, kAbsent));
  CHECK(AllEqual(t.slot_owner, slots, kAbsent));
  CHECK(AllEqual(t.slot_age, slots, uint8_t{0}));
  CHECK(AllEqual(t.placement, 4, int32_t{0}));
}

TEST_CASE("without a host tier only HBM is measured") {
  const Measured m(8 * kMiB, 0);
  CHECK(m.speed.hbm_copy > 1e6);
  CHECK(m.speed.host_to_device == 0);
  CHECK(m.speed.gathers.empty());
  CHECK_THAT(m.speed.ToText(), Catch::Matchers::Contains("host to device not measured"));
}

TEST_CASE("pools too small to measure anything in are left alone") {
  const Measured m(HbmBytes(kGeometry, 2, 2), 2 * kGeometry.extent_bytes());
  CHECK(m.speed.hbm_copy == 0);
  CHECK(m.speed.gathers.empty());
}

}  // namespace
}  // namespace spin
