// Quest's summaries on the GPU: the CPU's, bit for bit.
#include <cmath>
#include <limits>

#include "tests/twin/twin_testing.h"

namespace spin {
namespace {

using testing::Elements;
using testing::Gpu;
using testing::KvOnDevice;
using testing::KvWorld;
using testing::OnDevice;
using testing::RowsOnDevice;
using testing::StepRows;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

int64_t QkvWidth(const KvGeometry& g) {
  return int64_t{g.num_q_heads + 2 * g.num_kv_heads} * g.head_dim;
}

// Now and then a value for which the order of comparisons matters.
float Corner(Random& random) {
  constexpr float kCorners[] = {0.0f, -0.0f, kNan, -kNan, kInfinity, -kInfinity, 1e-40f, 0.5f};
  return random.Below(6) == 0 ? kCorners[random.Below(8)] : 2 * random.Uniform() - 1;
}

// Prefill of three sequences, one behind a prefix and one of one token, then decode steps.
void CheckIndex(DType dtype, int32_t d, int32_t page_tokens, int32_t tokens, bool corners) {
  KvWorld world(testing::SmallGeometry(dtype, d, page_tokens));
  const KvGeometry& g = world.geometry;
  constexpr int32_t kSteps = 19;
  world.AddRow(0, Placement::kResident, tokens + kSteps);
  world.AddRow(1, Placement::kTiered, tokens + kSteps, 2);
  world.AddRow(3, Placement::kTiered, 1 + kSteps, 1);
  const int32_t pages = CeilDiv(tokens, page_tokens);
  const std::vector<PrefillSlice> slices = {{.row = 1,
                                             .num_tokens = tokens - tokens / 3,
                                             .page_begin = pages + 2,
                                             .prefix_tokens = tokens / 3},
                                            {.row = 3, .num_tokens = 1, .page_begin = pages},
                                            {.row = 0, .num_tokens = tokens, .page_begin = 0}};
  const int32_t num_pages = 2 * pages + 3;
  Random random(7);
  Elements staging = world.MakeStaging(num_pages, slices, random);
  for (int64_t i = 0; i < staging.size() && corners; ++i) {
    if (std::abs(staging[i]) <= 1) staging.Set(i, Corner(random));
  }
  const KvOnDevice gpu(world);
  const testing::ElementsOnDevice planes(testing::PlanesOf(staging, g, num_pages));
  const OnDevice<PrefillSlice> gpu_slices(slices);
  QuestIndexPrefillParams p = {.slices = gpu_slices.data(),
                               .num_slices = 3,
                               .layer = 1,
                               .tables = gpu.tables,
                               .staging = {planes.data(), num_pages}};
  Gpu::Get().ops().QuestIndexPrefill(p, Gpu::Get().stream());
  p.slices = slices.data();
  p.tables = world.tables;
  p.staging.pages = staging.data();
  cpu::QuestIndexPrefill(p, world.pool);
  REQUIRE((gpu.summaries.Read() == world.summaries));

  StepRows step({3, 0, 1}, g.max_rows);
  step.position = {tokens, tokens, 0, 1};
  for (int32_t i = 0; i < kSteps; ++i) {
    Elements qkv(dtype, 5 * QkvWidth(g));
    qkv.Fill(3.0f);
    for (int64_t k = 0; k < 3 * QkvWidth(g); ++k) {
      qkv.Set(k, corners ? Corner(random) : 3 * random.Uniform() - 1);
    }
    const testing::ElementsOnDevice gpu_qkv(qkv);
    const RowsOnDevice rows(step, 5);
    Gpu::Get().ops().QuestIndexDecode(
        {.decode = rows.view(), .qkv = gpu_qkv.data(), .layer = 1, .tables = gpu.tables},
        Gpu::Get().stream());
    cpu::QuestIndexDecode(
        {.decode = step.view(), .qkv = qkv.data(), .layer = 1, .tables = world.tables}, world.pool);
    for (int32_t& position : step.position) ++position;
    Gpu::Get().Finish();  // qkv goes
  }
  gpu.CheckEquals(world);
}

TEST_CASE("summaries of prefill and decode agree bit for bit") {
  const auto dtype = GENERATE(DType::kF32, DType::kBf16);
  const int32_t d = GENERATE(64, 128);
  const int32_t page_tokens = GENERATE(8, 16, 64);
  const bool corners = GENERATE(false, true);
  CheckIndex(dtype, d, page_tokens, 515, corners);
}

TEST_CASE("summaries of short sequences agree", "[small]") {
  const int32_t tokens = GENERATE(1, 2, 15, 16, 17, 31);
  CheckIndex(DType::kBf16, 128, 16, tokens, true);
}

}  // namespace
}  // namespace spin
