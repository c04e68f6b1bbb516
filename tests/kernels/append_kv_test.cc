// One token's key and value reach the slot of its page, and the host page of a Tiered row; a
// fetched page equals its host page, and bytes are counted.
#include <cmath>

#include "tests/kernels/kv_testing.h"

namespace spin {
namespace {

using testing::Elements;
using testing::KvWorld;
using testing::StepRows;

TEST_CASE("append writes one token a stream, through to the host where the row is Tiered") {
  const auto dtype = GENERATE(DType::kF32, DType::kBf16);
  const int32_t d = GENERATE(64, 128);
  const int32_t page_tokens = GENERATE(8, 16, 64);
  KvWorld w(testing::SmallGeometry(dtype, d, page_tokens));
  const KvGeometry& g = w.geometry;
  const int32_t layer = 1;
  w.AddRow(0, Placement::kResident, 600);
  w.AddRow(3, Placement::kTiered, 600, 4);
  StepRows step({3, 0}, g.max_rows);
  step.position[0] = 550;
  step.position[3] = 3 * page_tokens + 5;
  w.Apply({{TableCommandKind::kBindSlots, 3, layer, 1, 4}});  // slots 0, 1, 2: pages 1, 2, 3
  Random random(5);
  const int32_t width = (g.num_q_heads + 2 * g.num_kv_heads) * d;
  Elements qkv(dtype, 2 * width);
  qkv.Randomize(random, 1);
  cpu::AppendKv({.decode = step.view(), .qkv = qkv.data(), .layer = layer, .tables = w.tables},
                w.pool);

  const auto check = [&](const std::vector<uint8_t>& bytes, int64_t index, int32_t t, int32_t place,
                         int32_t head) {
    int64_t wrong = 0, numbers = 0;
    for (int32_t c = 0; c < d; ++c) {
      const int64_t key = place * width + int64_t{g.num_q_heads + head} * d + c;
      wrong += w.At(bytes, index, g.KeyOffset(t) + c) != qkv[key];
      wrong += w.At(bytes, index, g.ValueOffset(t) + c) != qkv[key + g.num_kv_heads * d];
    }
    for (int64_t i = 0; i < g.page_elements(); ++i) numbers += !std::isnan(w.At(bytes, index, i));
    CHECK(wrong == 0);
    CHECK(numbers == 2 * d);
  };
  for (int32_t head = 0; head < g.num_kv_heads; ++head) {
    check(w.slots, w.Index(w.slot_dir, 0, layer, head, 550 / page_tokens), 550 % page_tokens, 1,
          head);
    check(w.slots, w.Index(w.slot_dir, 3, layer, head, 2), 5, 0, head);
    check(w.host, w.Index(w.host_dir, 3, layer, head, 3), 5, 0, head);
  }
  const auto written = [](const std::vector<uint8_t>& bytes) {
    return static_cast<int64_t>(bytes.size()) - std::count(bytes.begin(), bytes.end(), 0xff) > 0;
  };
  CHECK(written(w.host));
}

TEST_CASE("gather copies whole pages from the host and counts their bytes") {
  const auto dtype = GENERATE(DType::kF32, DType::kBf16);
  KvWorld w(testing::SmallGeometry(dtype, 64, 16));
  const KvGeometry& g = w.geometry;
  Random random(6);
  for (uint8_t& byte : w.host) byte = static_cast<uint8_t>(random.NextU32());
  StepRows step({2, 1}, g.max_rows);
  const int32_t max_list = 4, streams = 2 * g.num_kv_heads;
  std::vector<int64_t> src(static_cast<size_t>(streams * max_list),
                           -1);  // unused entries must not be read
  std::vector<int32_t> dst(src.size(), -1), len(static_cast<size_t>(streams));
  auto expected = w.slots;
  int32_t next = 3;
  for (int32_t i = 0; i < streams; ++i) {
    len[static_cast<size_t>(i)] = i % 4;
    for (int32_t k = 0; k < i % 4; ++k) {
      const auto entry = static_cast<size_t>(i * max_list + k);
      src[entry] = next * 7 % 100;
      dst[entry] = next += 2;
      std::copy_n(w.host.begin() + src[entry] * g.page_bytes(), g.page_bytes(),
                  expected.begin() + dst[entry] * g.page_bytes());
    }
  }
  cpu::GatherPages({.decode = step.view(),
                    .tables = w.tables,
                    .copy_src = src.data(),
                    .copy_dst = dst.data(),
                    .copy_len = len.data(),
                    .max_list = max_list},
                   w.pool);
  CHECK(w.slots == expected);
}

}  // namespace
}  // namespace spin
