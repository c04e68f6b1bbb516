// ShadowKV's summaries on the GPU: landmarks are the CPU's bit for bit; outliers may differ where two pages' cosines
// are equal up to rounding, and nowhere else.
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

constexpr int32_t kLayer = 1;

KvGeometry Geometry(DType dtype, int32_t d) {
  KvGeometry g = testing::SmallGeometry(dtype, d, kLandmarkTokens);
  g.summary_elements = d;
  return g;
}

// Element 0 of each summary of a pool, and NaN in its place: the marks apart from the landmarks.
std::vector<float> TakeFirstElements(const KvGeometry& g, std::vector<uint8_t>& summaries) {
  std::vector<float> first;
  for (size_t at = 0; at < summaries.size(); at += static_cast<size_t>(g.summary_bytes())) {
    float value = 0;
    if (g.dtype == DType::kF32) {
      std::memcpy(&value, summaries.data() + at, 4);
    } else {
      uint16_t bits = 0;
      std::memcpy(&bits, summaries.data() + at, 2);
      value = Bf16ToFloat(bits);
    }
    first.push_back(value);
    std::memset(summaries.data() + at, 0xff, static_cast<size_t>(SizeOf(g.dtype)));
  }
  return first;
}

// Two rows of `tokens` and one of one token, prefilled on both sides, with every pool and table in place.
struct PrefillWorld {
  PrefillWorld(DType dtype, int32_t d, int32_t tokens, int32_t steps)
      : world(Geometry(dtype, d)), pages(CeilDiv(tokens, kLandmarkTokens)) {
    world.AddRow(0, Placement::kResident, tokens + steps);
    world.AddRow(1, Placement::kTiered, tokens + steps, 2);
    world.AddRow(3, Placement::kTiered, 1 + steps, 1);
    slices = {{.row = 1,
               .num_tokens = tokens - tokens / 3,
               .page_begin = pages + 2,
               .prefix_tokens = tokens / 3},
              {.row = 3, .num_tokens = 1, .page_begin = pages},
              {.row = 0, .num_tokens = tokens, .page_begin = 0}};
  }

  // Index on both sides; the GPU's summaries.
  std::vector<uint8_t> Prefill(const Elements& staging, int32_t outliers, int32_t local) {
    const KvGeometry& g = world.geometry;
    const KvOnDevice gpu(world);
    const testing::ElementsOnDevice planes(testing::PlanesOf(staging, g, num_pages()));
    const OnDevice<PrefillSlice> gpu_slices(slices);
    spread.assign(static_cast<size_t>(g.num_kv_heads * RoundUp(num_pages(), 4)), 0);
    const OnDevice<float> gpu_spread(spread);
    LandmarkIndexPrefillParams p = {.slices = gpu_slices.data(),
                                    .num_slices = 3,
                                    .layer = kLayer,
                                    .tables = gpu.tables,
                                    .staging = {planes.data(), num_pages()},
                                    .outlier_pages = outliers,
                                    .local_pages = local,
                                    .spread = gpu_spread.data()};
    Gpu::Get().ops().LandmarkIndexPrefill(p, Gpu::Get().stream());
    p.slices = slices.data();
    p.tables = world.tables;
    Elements pages_on_host = staging;
    p.staging.pages = pages_on_host.data();
    p.spread = spread.data();
    cpu::LandmarkIndexPrefill(p, world.pool);
    return gpu.summaries.Read();
  }

  int32_t num_pages() const { return 2 * pages + 3; }
  size_t SummaryOf(int32_t row, int32_t head, int32_t page) const {
    return static_cast<size_t>(world.Index(world.summary_dir, row, kLayer, head, page));
  }
  float SpreadOf(const PrefillSlice& slice, int32_t head, int32_t page) const {
    return spread[static_cast<size_t>(head * RoundUp(num_pages(), 4) + slice.page_begin + page)];
  }

  KvWorld world;
  int32_t pages;
  std::vector<PrefillSlice> slices;
  std::vector<float> spread;
};

void CheckPrefill(DType dtype, int32_t d, int32_t tokens, int32_t outliers, int32_t local) {
  PrefillWorld w(dtype, d, tokens, 0);
  Random random(7);
  const Elements staging = w.world.MakeStaging(w.num_pages(), w.slices, random);
  std::vector<uint8_t> gpu = w.Prefill(staging, outliers, local), cpu = w.world.summaries;
  const std::vector<float> gpu_first = TakeFirstElements(w.world.geometry, gpu);
  const std::vector<float> cpu_first = TakeFirstElements(w.world.geometry, cpu);
  CHECK((gpu == cpu));
  for (const PrefillSlice& slice : w.slices) {
    const int32_t complete = (slice.prefix_tokens + slice.num_tokens) / kLandmarkTokens;
    const int32_t candidates = std::max(complete - local, 0);
    for (int32_t head = 0; head < w.world.geometry.num_kv_heads; ++head) {
      int32_t gpu_marks = 0;
      float cut = std::numeric_limits<float>::infinity();  // the least spread of the CPU's outliers
      for (int32_t page = 0; page < candidates; ++page) {
        gpu_marks += std::isnan(gpu_first[w.SummaryOf(slice.row, head, page)]);
        if (std::isnan(cpu_first[w.SummaryOf(slice.row, head, page)])) {
          cut = std::min(cut, w.SpreadOf(slice, head, page));
        }
      }
      CHECK(gpu_marks == std::min(outliers, candidates));
      for (int32_t page = 0; page < complete; ++page) {
        const float a = gpu_first[w.SummaryOf(slice.row, head, page)];
        const float b = cpu_first[w.SummaryOf(slice.row, head, page)];
        const bool near_tie = page < candidates && std::isnan(a) != std::isnan(b) &&
                              std::abs(w.SpreadOf(slice, head, page) - cut) < 1e-5f;
        CHECK((near_tie || (std::isnan(a) && std::isnan(b)) || a == b));
      }
    }
  }
}

TEST_CASE("landmarks and outliers of prefill are the CPU's") {
  const auto dtype = GENERATE(DType::kF32, DType::kBf16);
  const int32_t d = GENERATE(64, 128);
  const int32_t outliers = GENERATE(0, 1, 48);
  const int32_t local = GENERATE(0, 4);
  CheckPrefill(dtype, d, 1029, outliers, local);
}

TEST_CASE("landmarks and outliers of short prompts") {
  const int32_t tokens = GENERATE(3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 40, 41, 48, 63, 64, 416, 417);
  CheckPrefill(DType::kBf16, 128, tokens, 48, 4);
}

TEST_CASE("of equal pages the first are the outliers, on either side") {
  PrefillWorld w(DType::kBf16, 64, 800, 0);
  Random random(3);
  Elements staging = w.world.MakeStaging(w.num_pages(), w.slices, random);
  const int64_t elements = w.world.geometry.page_elements();
  for (int64_t page = 1; page < staging.size() / elements; ++page) {
    for (int64_t i = 0; i < elements; ++i) staging.Set(page * elements + i, staging[i]);
  }
  CHECK((w.Prefill(staging, 48, 4) == w.world.summaries));
}

TEST_CASE("a token that completes its page gives it the CPU's landmark, wherever the page is",
          "[small]") {
  const auto dtype = GENERATE(DType::kF32, DType::kBf16);
  const int32_t d = GENERATE(64, 128);
  const int32_t tokens = 517;
  KvWorld world(Geometry(dtype, d));
  const KvGeometry& g = world.geometry;
  world.AddRow(0, Placement::kResident, tokens + 16);
  world.AddRow(1, Placement::kTiered, tokens + 16, 2);
  world.AddRow(3, Placement::kTiered, tokens + 16, 2);
  Random random(5);
  const auto fill = [&](std::vector<uint8_t>& pool) {  // finite numbers everywhere
    for (size_t i = 0; i < pool.size(); i += 2) {
      const uint16_t bits = FloatToBf16(2 * random.Uniform() - 1);
      std::memcpy(pool.data() + i, &bits, 2);
    }
  };
  fill(world.slots);
  fill(world.host);
  for (int32_t head = 0; head < g.num_kv_heads; ++head) {  // row 1: resident, row 3: on the host
    world.meta[static_cast<size_t>(world.Index(world.meta_dir, 1, kLayer, head, 64))] = 1;
    world.meta[static_cast<size_t>(world.Index(world.meta_dir, 3, kLayer, head, 64))] = kAbsent;
  }
  const KvOnDevice gpu(world);
  StepRows step({3, 0, 1}, g.max_rows);
  for (int32_t t = 512; t < 520; ++t) {
    step.position = {t, t, 0, t};
    const int64_t width = int64_t{g.num_q_heads + 2 * g.num_kv_heads} * d;
    Elements qkv(dtype, 5 * width);
    qkv.Randomize(random, 2);
    const testing::ElementsOnDevice gpu_qkv(qkv);
    const RowsOnDevice rows(step, 5);
    Gpu::Get().ops().LandmarkIndexDecode(
        {.decode = rows.view(), .qkv = gpu_qkv.data(), .layer = kLayer, .tables = gpu.tables},
        Gpu::Get().stream());
    cpu::LandmarkIndexDecode(
        {.decode = step.view(), .qkv = qkv.data(), .layer = kLayer, .tables = world.tables},
        world.pool);
    Gpu::Get().Finish();  // qkv goes
  }
  gpu.CheckEquals(world);
  for (const int32_t row : {0, 1, 3}) {
    const auto at = world.Index(world.summary_dir, row, kLayer, 0, 64) * g.summary_bytes();
    CHECK(world.summaries[static_cast<size_t>(at)] != 0xff);  // written at all
  }
}

TEST_CASE("landmarks and outliers of one short prompt", "[small]") {
  CheckPrefill(DType::kBf16, 64, 417, 5, 2);
}

}  // namespace
}  // namespace spin
