// A step's writes to the cache on the GPU and on the CPU: the new token's key and value, and the pages that cross from
// the host. Whole pools agree bit for bit.
#include <algorithm>

#include "tests/twin/twin_testing.h"

namespace spin {
namespace {

using testing::Elements;
using testing::ElementsOnDevice;
using testing::Gpu;
using testing::KvOnDevice;
using testing::KvWorld;
using testing::OnDevice;
using testing::RowsOnDevice;
using testing::StepRows;

KvGeometry QwenGeometry() {
  return {.num_layers = 1,
          .num_kv_heads = 8,
          .num_q_heads = 32,
          .head_dim = 128,
          .page_tokens = 16,
          .max_rows = 4,
          .max_extents = 2,
          .summary_elements = 256,
          .dtype = DType::kBf16};
}

// Appends on both sides; places past the step's rows hold NaN.
void CheckAppend(KvWorld& w, StepRows& step, int32_t bucket, int32_t layer, Random& random) {
  const KvGeometry& g = w.geometry;
  const int64_t width = int64_t{g.num_q_heads + 2 * g.num_kv_heads} * g.head_dim;
  Elements qkv(g.dtype, bucket * width);
  qkv.Randomize(random, 3);
  for (int64_t i = step.count * width; i < bucket * width; ++i) qkv.Set(i, NAN);
  const KvOnDevice gpu(w);
  const ElementsOnDevice device_qkv(qkv);
  const RowsOnDevice rows(step, bucket);
  const auto slots = w.slots, host = w.host;

  Gpu::Get().ops().AppendKv(
      {.decode = rows.view(), .qkv = device_qkv.data(), .layer = layer, .tables = gpu.tables},
      Gpu::Get().stream());
  cpu::AppendKv({.decode = step.view(), .qkv = qkv.data(), .layer = layer, .tables = w.tables},
                w.pool);
  gpu.CheckEquals(w);
  CHECK((w.slots != slots) == (step.count > 0));
  const auto tiered = [&](int32_t row) {
    return w.placement[static_cast<size_t>(row)] == static_cast<int32_t>(Placement::kTiered);
  };
  CHECK((w.host != host) == std::any_of(step.rows.begin(), step.rows.end(), tiered));
}

TEST_CASE("append: slots and host pages, every page size and head dimension") {
  const auto dtype = GENERATE(DType::kF32, DType::kBf16);
  const int32_t d = GENERATE(64, 128);
  const int32_t page_tokens = GENERATE(8, 16, 32, 64);
  KvWorld w(testing::SmallGeometry(dtype, d, page_tokens));
  const KvGeometry& g = w.geometry;
  const int32_t layer = 1;
  w.AddRow(0, Placement::kResident, 1500);
  w.AddRow(3, Placement::kTiered, 1500, 4);
  w.AddRow(1, Placement::kTiered, 600, g.extent_pages() + 3);  // its last page in a second extent
  w.Apply({{TableCommandKind::kBindSlots, 3, layer, 5, 9},
           {TableCommandKind::kBindSlots, 1, layer, 0, g.extent_pages() + 1}});
  Random random(17);
  for (const int32_t token : {0, page_tokens - 1, 5}) {  // a page's first, last, and another
    StepRows step({3, 0, 1}, g.max_rows);
    step.position[0] = 512 + token;
    step.position[1] = kExtentTokens + token;
    step.position[3] = 7 * page_tokens + token;
    for (const int32_t bucket : {3, 4, 16}) CheckAppend(w, step, bucket, layer, random);
  }
}

TEST_CASE("append: no rows, one row") {
  KvWorld w(testing::SmallGeometry(DType::kBf16, 64, 16));
  w.AddRow(2, Placement::kResident, 40);
  Random random(18);
  StepRows none({}, w.geometry.max_rows);
  CheckAppend(w, none, 8, 0, random);
  StepRows one({2}, w.geometry.max_rows);
  one.position[2] = 39;
  CheckAppend(w, one, 1, 0, random);
}

TEST_CASE("append: Qwen3-8B") {
  KvWorld w(QwenGeometry());
  Random random(19);
  for (int32_t row = 0; row < 3; ++row) {
    w.AddRow(row, row == 1 ? Placement::kTiered : Placement::kResident, 1000, 40);
  }
  w.Apply({{TableCommandKind::kBindSlots, 1, 0, 23, 63}});
  StepRows step({2, 1, 0}, w.geometry.max_rows);
  step.position = {0, 999, 511, 0};
  CheckAppend(w, step, 4, 0, random);
}

// Lists of `lengths` copies a stream between random distinct pages, on both sides. Streams of places that are not in
// use have a length that must not be believed.
void CheckGather(KvWorld& w, int32_t rows, int32_t bucket, int32_t max_list,
                 const std::vector<int32_t>& lengths, Random& random) {
  const KvGeometry& g = w.geometry;
  for (uint8_t& byte : w.host) byte = static_cast<uint8_t>(random.NextU32());
  const auto pool_pages = static_cast<int64_t>(w.slot_owner.size());
  std::vector<int32_t> free_slots(static_cast<size_t>(pool_pages));
  std::iota(free_slots.begin(), free_slots.end(), 0);
  const auto streams = static_cast<size_t>(bucket * g.num_kv_heads);
  std::vector<int64_t> src(streams * static_cast<size_t>(max_list), -1);
  std::vector<int32_t> dst(src.size(), -1), len(streams, 1 << 30);
  uint64_t pages = 0;
  for (size_t i = 0; i < static_cast<size_t>(rows * g.num_kv_heads); ++i) {
    len[i] = lengths[i % lengths.size()];
    pages += static_cast<uint64_t>(len[i]);
    for (int32_t k = 0; k < len[i]; ++k) {
      const size_t entry = i * static_cast<size_t>(max_list) + static_cast<size_t>(k);
      src[entry] = random.Between(0, pool_pages - 1);
      REQUIRE(!free_slots.empty());
      std::swap(free_slots[random.Below(static_cast<uint32_t>(free_slots.size()))],
                free_slots.back());
      dst[entry] = KvWorld::Take(free_slots);
    }
  }
  const KvOnDevice gpu(w);
  const OnDevice<int64_t> device_src(src);
  const OnDevice<int32_t> device_dst(dst), device_len(len), num_rows({rows});
  const auto slots = w.slots;

  GatherPagesParams p{.decode = {.max_batch = bucket, .num_rows = num_rows.data()},
                      .tables = gpu.tables,
                      .copy_src = device_src.data(),
                      .copy_dst = device_dst.data(),
                      .copy_len = device_len.data(),
                      .max_list = max_list};
  Gpu::Get().ops().GatherPages(p, Gpu::Get().stream());
  p = {.decode = {.max_batch = bucket, .num_rows = &rows},
       .tables = w.tables,
       .copy_src = src.data(),
       .copy_dst = dst.data(),
       .copy_len = len.data(),
       .max_list = max_list};
  cpu::GatherPages(p, w.pool);
  gpu.CheckEquals(w);
  CHECK((w.slots != slots) == (pages > 0));
}

TEST_CASE("gather: every page size, uneven lists, a bucket that is not full") {
  const auto dtype = GENERATE(DType::kF32, DType::kBf16);
  const int32_t d = GENERATE(64, 128);
  const int32_t page_tokens = GENERATE(8, 16, 32, 64);
  KvWorld w(testing::SmallGeometry(dtype, d, page_tokens));
  Random random(20);
  CheckGather(w, 2, 5, 9, {0, 9, 1, 3}, random);
  CheckGather(w, 4, 4, 30, {30, 0, 0, 17, 0}, random);
}

TEST_CASE("gather: nothing is missing, or nobody is there") {
  KvWorld w(testing::SmallGeometry(DType::kBf16, 64, 16));
  Random random(21);
  CheckGather(w, 3, 3, 4, {0}, random);
  CheckGather(w, 0, 3, 4, {4}, random);
}

TEST_CASE("gather: more streams than one round of counts holds") {
  KvWorld w(testing::SmallGeometry(DType::kBf16, 64, 8));
  Random random(22);
  CheckGather(w, 1500, 1501, 3, {1, 0, 3, 0, 0}, random);  // 4,500 streams
  CheckGather(w, 1366, 1400, 2, {0, 0, 0, 1}, random);
}

TEST_CASE("gather: Qwen3-8B, few and many pages") {
  KvWorld w(QwenGeometry());
  Random random(23);
  CheckGather(w, 1, 4, 128, {1, 0, 0, 0, 0, 0, 0, 2}, random);
  CheckGather(w, 4, 4, 128, {60, 3, 0, 64, 33, 17, 1, 8}, random);
}

TEST_CASE("append and gather of a few pages", "[small]") {
  KvWorld w(testing::SmallGeometry(DType::kBf16, 64, 16));
  w.AddRow(0, Placement::kResident, 40);
  w.AddRow(1, Placement::kTiered, 40, 4);
  w.Apply({{TableCommandKind::kBindSlots, 1, 0, 0, 3}});
  Random random(24);
  StepRows step({1, 0}, w.geometry.max_rows);
  step.position[0] = step.position[1] = 39;
  CheckAppend(w, step, 3, 0, random);
  CheckGather(w, 2, 3, 5, {0, 5, 1}, random);
}

}  // namespace
}  // namespace spin
