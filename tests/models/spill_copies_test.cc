// Copies of demotions against the compute stream: they wait for what was written, and it does not
// wait for them.
#include "models/spill_copies.h"

#include <catch2/catch.hpp>

#include <algorithm>

#include "kernels/backend.h"

namespace spin {
namespace {

constexpr int32_t kExtents = 4;
constexpr int64_t kSlowBytes = 256 << 20;

TEST_CASE("copies see all that was enqueued before them, and say when they have passed") {
  const Backend backend = CreateBackend({.device = "cpu", .threads = 1}).value();
  Device& device = *backend.device;
  KvTables tables;
  tables.geometry = {.num_layers = 1,
                     .num_kv_heads = 2,
                     .num_q_heads = 2,
                     .head_dim = 64,
                     .page_tokens = 16,
                     .max_rows = 1,
                     .max_extents = kExtents};
  const int64_t bytes = tables.geometry.extent_bytes();
  const Buffer slots = device.Allocate(MemoryKind::kDevice, kExtents * bytes).value();
  const Buffer host = device.Allocate(MemoryKind::kPinned, kExtents * bytes).value();
  const Buffer slow = device.Allocate(MemoryKind::kDevice, kSlowBytes).value();
  tables.slots = slots.data();
  tables.host_pages = host.data();
  const auto compute = device.CreateStream("compute");
  const auto copy = device.CreateStream("copy");
  SpillCopies spill(&device, tables);
  CHECK(spill.Passed());
  for (uint8_t round = 1; round <= 3; ++round) {
    device.Fill(slow.data(), round, kSlowBytes, *compute);
    device.Fill(slots.data(), round, kExtents * bytes, *compute);
    const TableCommand copies[] = {
        {.kind = TableCommandKind::kSpillExtent, .index = 3, .value = 0},
        {.kind = TableCommandKind::kSpillExtent, .index = 1, .value = 2}};
    spill.Enqueue(copies, *compute, *copy);
    spill.Await();
    CHECK(spill.Passed());
    const auto filled = [&](int32_t extent) {
      const uint8_t* begin = host.as<uint8_t>() + extent * bytes;
      return std::all_of(begin, begin + bytes, [&](uint8_t b) { return b == round; });
    };
    CHECK(filled(3));
    CHECK(filled(1));
    CHECK_FALSE(filled(0));
  }
}

TEST_CASE("a piece is at most 400 MB, and at least one extent") {
  KvGeometry g = {.num_layers = 36, .num_kv_heads = 8, .num_q_heads = 32, .head_dim = 128};
  g.page_tokens = 16;
  CHECK(SpillCopies::MaxExtents(g) == 190);  // of 2 MiB
  g.num_kv_heads = 1;
  CHECK(SpillCopies::MaxExtents(g) == 512);
}

}  // namespace
}  // namespace spin
