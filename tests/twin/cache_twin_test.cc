// What moves the KV cache on the GPU against the CPU twin, bit for bit over whole pools and tables: append, gather,
// offload, table commands.
#include "tests/twin/twin_testing.h"

namespace spin::testing {
namespace {

using enum TableCommandKind;

TEST_CASE("appended tokens and fetched pages leave the same pools") {
  const DType dtype = GENERATE(DType::kF32, DType::kBf16);
  const int32_t d = GENERATE(64, 128);
  const int32_t page_tokens = GENERATE(8, 16, 64);
  Gpu& gpu = Gpu::Get();
  KvWorld w(SmallGeometry(dtype, d, page_tokens));
  const KvGeometry& g = w.geometry;
  constexpr int32_t kLayer = 1;
  w.AddRow(0, Placement::kResident, 600);
  w.AddRow(3, Placement::kTiered, 600, 4);
  StepRows step({3, 0}, g.max_rows);
  step.position[0] = 550;
  step.position[3] = 3 * page_tokens + 5;
  w.Apply({{kBindSlots, 3, kLayer, 1, 4}});
  Random random(5);
  Elements qkv(dtype, 3 * (g.num_q_heads + 2 * g.num_kv_heads) * d);
  qkv.Randomize(random, 1);
  for (uint8_t& byte : w.host) byte = static_cast<uint8_t>(random.NextU32());
  const KvOnDevice device(w);
  const RowsOnDevice rows(step, 3);
  const ElementsOnDevice qkv_device(qkv);
  cpu::AppendKv({.decode = step.view(), .qkv = qkv.data(), .layer = kLayer, .tables = w.tables},
                w.pool);
  gpu.ops().AppendKv(
      {.decode = rows.view(), .qkv = qkv_device.data(), .layer = kLayer, .tables = device.tables},
      gpu.stream());

  // Every stream fetches another number of pages, one none at all.
  constexpr int32_t kMaxList = 5;
  const int32_t streams = 3 * g.num_kv_heads;
  std::vector<int64_t> src(size_t(streams) * kMaxList);
  std::vector<int32_t> dst(src.size()), len(static_cast<size_t>(streams));
  for (size_t i = 0; i < src.size(); ++i) {
    src[i] = int64_t(i * 7 % (w.host.size() / size_t(g.page_bytes())));
    dst[i] = int32_t(i * 3 + 1);
  }
  for (size_t s = 0; s < len.size(); ++s) len[s] = int32_t(s * 2 % (kMaxList + 1));
  RetrieveCounters counted;
  const OnDevice<int64_t> src_device(src);
  const OnDevice<int32_t> dst_device(dst), len_device(len);
  const OnDevice<uint8_t> counters(std::vector<uint8_t>(sizeof(RetrieveCounters)));
  cpu::GatherPages({.decode = step.view(),
                    .tables = w.tables,
                    .copy_src = src.data(),
                    .copy_dst = dst.data(),
                    .copy_len = len.data(),
                    .max_list = kMaxList,
                    .counters = &counted},
                   w.pool);
  gpu.ops().GatherPages({.decode = rows.view(),
                         .tables = device.tables,
                         .copy_src = src_device.data(),
                         .copy_dst = dst_device.data(),
                         .copy_len = len_device.data(),
                         .max_list = kMaxList,
                         .counters = reinterpret_cast<RetrieveCounters*>(counters.data())},
                        gpu.stream());
  gpu.Finish();
  device.CheckEquals(w);
  RetrieveCounters on_device;
  std::memcpy(&on_device, counters.Read().data(), sizeof(on_device));
  CHECK(on_device.bytes == counted.bytes);
  CHECK(counted.bytes > 0);
}

// Staging pages of the CPU in the GPU's arrangement: planes of keys and values a head.
Elements Planes(const Elements& pages, const KvGeometry& g, int32_t num_pages) {
  Elements planes(pages.dtype(), pages.size());
  const int64_t plane = int64_t{num_pages} * g.plane_elements();
  for (int64_t head = 0; head < g.num_kv_heads; ++head) {
    for (int64_t page = 0; page < num_pages; ++page) {
      for (int64_t i = 0; i < g.plane_elements(); ++i) {
        const int64_t from = (head * num_pages + page) * g.page_elements() + i;
        const int64_t to = 2 * head * plane + page * g.plane_elements() + i;
        planes.Set(to, pages[from]);
        planes.Set(to + plane, pages[from + g.plane_elements()]);
      }
    }
  }
  return planes;
}

TEST_CASE("offload leaves the same pools and tables for Resident and Tiered rows") {
  const DType dtype = GENERATE(DType::kF32, DType::kBf16);
  const int32_t d = GENERATE(64, 128);
  const int32_t page_tokens = GENERATE(8, 16, 64);
  const int32_t budget = GENERATE(1, 3, 20);
  KvWorld w(SmallGeometry(dtype, d, page_tokens));
  const KvGeometry& g = w.geometry;
  const int32_t resident_tokens = 2 * page_tokens + 3, tiered_tokens = 530, small_tokens = 5;
  w.AddRow(0, Placement::kResident, resident_tokens);
  w.AddRow(1, Placement::kTiered, tiered_tokens, budget);
  w.AddRow(2, Placement::kTiered, small_tokens, budget);
  const int32_t tiered_pages = CeilDiv(tiered_tokens, page_tokens);
  const std::vector<PrefillSlice> slices = {
      {.row = 0, .num_tokens = resident_tokens, .page_begin = 1},
      {.row = 1,
       .num_tokens = tiered_tokens - page_tokens,
       .page_begin = 4,
       .prefix_tokens = page_tokens},
      {.row = 2, .num_tokens = small_tokens, .page_begin = 4 + tiered_pages}};
  const int32_t pages = 5 + tiered_pages;
  Random random(4);
  const Elements staging = w.MakeStaging(pages, slices, random);
  Elements copy = staging;
  const ElementsOnDevice planes(Planes(staging, g, pages));
  const KvOnDevice device(w);
  const OnDevice<PrefillSlice> slices_device(slices);
  Gpu& gpu = Gpu::Get();
  for (int repeat = 0; repeat < 2; ++repeat) {  // a second prefill of the rows replaces the first
    cpu::Offload({.slices = slices.data(),
                  .num_slices = 3,
                  .layer = 1,
                  .tables = w.tables,
                  .staging = {copy.data(), pages}},
                 w.pool);
    gpu.ops().Offload({.slices = slices_device.data(),
                       .num_slices = 3,
                       .layer = 1,
                       .tables = device.tables,
                       .staging = {planes.data(), pages}},
                      gpu.stream());
  }
  gpu.Finish();
  device.CheckEquals(w);
}

// A random command that the tables allow.
TableCommand RandomCommand(const KvWorld& w, Random& random) {
  const KvGeometry& g = w.geometry;
  const auto below = [&](int32_t n) {
    return static_cast<int32_t>(random.Below(static_cast<uint32_t>(n)));
  };
  constexpr TableCommandKind kKinds[] = {
      kSetPlacement,   kSetSlotExtent,     kSetSlotExtent, kSetHostExtent,   kSetSummaryExtent,
      kSetMetaSegment, kSetMetaSegment,    kSetNumSlots,   kShareSlotExtent, kCopySlotExtent,
      kCopyHostExtent, kCopySummaryExtent, kSpillExtent};
  TableCommand c;
  c.kind = kKinds[random.Below(std::size(kKinds))];
  c.row = below(g.max_rows);
  c.layer = below(g.num_layers);
  c.index = below(g.max_extents);
  c.value = below(w.num_extents + 1) - 1;
  if (c.kind == kSetPlacement) c.value = below(3);
  if (c.kind == kSetNumSlots) c.value = below(g.max_pages());
  if (c.kind == kCopySlotExtent || c.kind == kCopyHostExtent || c.kind == kCopySummaryExtent ||
      c.kind == kSpillExtent) {
    c.index = below(w.num_extents);
    c.value = below(w.num_extents);
  }
  return c;
}

void ApplyBoth(KvWorld& w, const KvOnDevice& device, const std::vector<TableCommand>& commands) {
  Gpu& gpu = Gpu::Get();
  w.Apply(commands);
  const Buffer pinned =
      gpu.Allocate(MemoryKind::kPinned, int64_t(commands.size() * sizeof(TableCommand)));
  std::memcpy(pinned.data(), commands.data(), commands.size() * sizeof(TableCommand));
  gpu.ops().UpdateTables({.commands = pinned.as<TableCommand>(),
                          .num_commands = static_cast<int32_t>(commands.size()),
                          .tables = device.tables},
                         gpu.stream());
  gpu.Finish();
}

TEST_CASE("table commands leave the same tables and pools, in long lists and short ones") {
  for (const uint64_t seed : {1, 2, 3}) {
    INFO("seed " << seed);
    Random random(seed);
    KvWorld w(SmallGeometry(DType::kBf16, 64, 16), seed);
    // Owners that a shrinking budget follows must name partitions: none, or one of the row's.
    std::fill(w.slot_owner.begin(), w.slot_owner.end(), kAbsent);
    std::fill(w.meta.begin(), w.meta.end(), kAbsent);
    const KvOnDevice device(w);
    for (const size_t length : {1, 7, 600, 3000}) {
      std::vector<TableCommand> commands;
      while (commands.size() < length) commands.push_back(RandomCommand(w, random));
      ApplyBoth(w, device, commands);
    }
    device.CheckEquals(w);
  }
}

TEST_CASE("an admission, its slots bound, shrunk and given to another row") {
  KvWorld w(SmallGeometry(DType::kBf16, 64, 16));
  const KvOnDevice device(w);
  std::vector<TableCommand> commands;
  for (int32_t row = 0; row < 2; ++row) {
    commands.push_back({kSetPlacement, row, 0, 0, static_cast<int32_t>(Placement::kTiered)});
    for (int32_t layer = 0; layer < 2; ++layer) {
      const int32_t extent = 4 * row + 2 * layer;
      commands.push_back({kSetSlotExtent, row, layer, 0, extent});
      commands.push_back({kSetSlotExtent, row, layer, 1, extent + 1});
      commands.push_back({kSetMetaSegment, row, layer, 0, extent});
      commands.push_back({kSetMetaSegment, row, layer, 1, extent + 1});
      commands.push_back({kSetNumSlots, row, layer, 0, 50});
      commands.push_back({kBindSlots, row, layer, 3, 60});
      commands.push_back({kSetNumSlots, row, layer, 0, 17});
    }
  }
  commands.push_back({kSetPlacement, 0, 0, 0, static_cast<int32_t>(Placement::kNone)});
  commands.push_back({kSetSlotExtent, 0, 0, 0, kAbsent});
  commands.push_back({kSetSlotExtent, 1, 1, 2, 0});
  commands.push_back({kBindSlots, 1, 1, 0, 9});
  ApplyBoth(w, device, commands);
  device.CheckEquals(w);
}

}  // namespace
}  // namespace spin::testing
