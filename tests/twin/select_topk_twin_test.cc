// Selection on the GPU and on the CPU from the same scores: ids and counts agree exactly, and nothing else is written.
#include <cmath>
#include <limits>

#include "tests/twin/twin_testing.h"

namespace spin {
namespace {

using testing::Gpu;
using testing::OnDevice;
using testing::RowsOnDevice;
using testing::StepRows;

enum class Kind {
  kSpecial,
  kUniform,
  kFewValues,
  kSoftmax,
  kEqual,
  kMostlyZero,
  kAscending,
  kCount
};

float Score(Kind kind, int32_t page, Random& random) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  const float special[] = {0.0f, -0.0f, nan, -nan, 1.0f, -1.0f, infinity, -infinity, 0.5f, 1e-40f};
  switch (kind) {
    case Kind::kSpecial:
      return special[random.Below(10)];
    case Kind::kUniform:
      return random.Uniform();
    case Kind::kFewValues:
      return 1e-3f * static_cast<float>(random.Below(20));
    case Kind::kSoftmax:
      return std::exp(-30 * random.Uniform());
    case Kind::kEqual:
      return 0.25f;
    case Kind::kMostlyZero:
      return random.Below(50) == 0 ? std::exp(-5 * random.Uniform()) : 0.0f;
    default:
      return static_cast<float>(page);
  }
}

struct Shape {
  int32_t page_tokens = 8;
  int32_t max_extents = 3;
  int32_t spare_places = 2;
};

// Three rows of three heads whose sequences end at `positions`.
void CheckSelection(const Shape& shape, const std::vector<int32_t>& positions, Kind kind,
                    int32_t fixed, int32_t budget, Random& random, int32_t fixed_last = 1,
                    double threshold = 0, uint64_t* spared = nullptr) {
  KvGeometry g = testing::SmallGeometry(DType::kF32, 64, shape.page_tokens);
  g.max_extents = shape.max_extents;
  StepRows step({3, 1, 0}, g.max_rows);
  for (size_t i = 0; i < 3; ++i) step.position[static_cast<size_t>(step.rows[i])] = positions[i];
  const int32_t places = 3 + shape.spare_places;
  const int32_t streams = places * g.num_kv_heads;
  std::vector<float> scores(static_cast<size_t>(streams) * g.max_pages(),
                            std::numeric_limits<float>::infinity());
  for (int32_t i = 0; i < 3 * g.num_kv_heads; ++i) {
    const int32_t last = positions[static_cast<size_t>(i / g.num_kv_heads)] / g.page_tokens;
    for (int32_t page = 0; page <= last; ++page) {
      scores[static_cast<size_t>(i * g.max_pages() + page)] = Score(kind, page, random);
    }
  }
  const int32_t max_selected = std::min(budget, g.max_pages()) + 3;
  std::vector<int32_t> ids(static_cast<size_t>(streams * max_selected), -7);
  std::vector<int32_t> count(static_cast<size_t>(streams), -8);
  const OnDevice<float> gpu_scores(scores);
  // Row 1 has a budget of its own.
  std::vector<int32_t> row_pages(static_cast<size_t>(g.max_rows));
  row_pages[1] = fixed + fixed_last + 1 +
                 static_cast<int32_t>(random.Below(
                     static_cast<uint32_t>(std::max(max_selected - fixed - fixed_last, 1))));
  row_pages[1] = std::min(row_pages[1], max_selected);
  const OnDevice<int32_t> gpu_ids(ids), gpu_count(count), gpu_row_pages(row_pages);
  std::vector<RetrieveCounters> counters(static_cast<size_t>(g.max_rows));
  const OnDevice<RetrieveCounters> gpu_counters(counters);
  const RowsOnDevice rows(step, places);
  SelectTopKParams p = {.decode = rows.view(),
                        .scores = gpu_scores.data(),
                        .geometry = g,
                        .budget = {.fixed_first = fixed,
                                   .fixed_last = fixed_last,
                                   .selectable = budget - fixed - fixed_last},
                        .row_pages = gpu_row_pages.data(),
                        .ids = gpu_ids.data(),
                        .count = gpu_count.data(),
                        .max_selected = max_selected,
                        .threshold = threshold,
                        .counters = gpu_counters.data()};
  Gpu::Get().ops().SelectTopK(p, Gpu::Get().stream());
  p.decode = step.view();
  p.scores = scores.data();
  p.row_pages = row_pages.data();
  p.ids = ids.data();
  p.count = count.data();
  p.counters = counters.data();
  ThreadPool pool(2);
  cpu::SelectTopK(p, pool);
  REQUIRE(gpu_count.Read() == count);
  REQUIRE(gpu_ids.Read() == ids);
  REQUIRE((gpu_counters.Read() == counters));
  for (const RetrieveCounters& row : counters) {
    if (spared != nullptr) *spared += row.spared;
  }
}

TEST_CASE("selections agree, with ties, zeros of both signs and NaN") {
  Random random(8);
  for (int32_t round = 0; round < 300; ++round) {
    INFO("round " << round);
    const Shape shape = {.page_tokens = 8 << random.Below(4)};
    const uint32_t tokens = static_cast<uint32_t>(shape.max_extents) * kExtentTokens;
    std::vector<int32_t> positions(3);
    for (int32_t& position : positions) position = static_cast<int32_t>(random.Below(tokens));
    const auto fixed = static_cast<int32_t>(random.Below(4));
    const int32_t budget = fixed + 1 + static_cast<int32_t>(random.Below(60));
    const auto kind = static_cast<Kind>(round % static_cast<int32_t>(Kind::kCount));
    const auto fixed_last = 1 + static_cast<int32_t>(random.Below(3));
    CheckSelection(shape, positions, kind, fixed, std::max(budget, fixed + fixed_last), random,
                   fixed_last);
  }
}

TEST_CASE("selections from thousands of pages agree, in registers and beyond") {
  const auto kind = static_cast<Kind>(GENERATE(range(0, static_cast<int>(Kind::kCount))));
  const auto [max_extents, pages] =
      GENERATE(table<int32_t, int32_t>({{64, 2048}, {256, 8192}, {272, 8193}, {600, 19000}}));
  const int32_t budget = GENERATE(2, 129, 2047);
  Random random(9);
  INFO("pages " << pages << " budget " << budget);
  CheckSelection({.page_tokens = 16, .max_extents = max_extents},
                 {pages * 16 - 1, pages * 16 - 16, pages * 16 - 700}, kind, 1, budget, random);
}

TEST_CASE("selections above a threshold agree, with ties, infinities and NaN") {
  Random random(11);
  uint64_t spared = 0;
  for (int32_t round = 0; round < 300; ++round) {
    INFO("round " << round);
    std::vector<int32_t> positions(3);
    for (int32_t& position : positions) position = static_cast<int32_t>(random.Below(1536));
    const auto fixed = static_cast<int32_t>(random.Below(3));
    const auto fixed_last = 1 + static_cast<int32_t>(random.Below(3));
    const int32_t budget = fixed + fixed_last + static_cast<int32_t>(random.Below(60));
    const auto kind = static_cast<Kind>(round % static_cast<int32_t>(Kind::kCount));
    // Around the mean probability of the pages, or anywhere below it; 0.25 is that of one of four equal pages.
    const double threshold = round % 5 == 0 ? 0.25 : std::exp2(-3 - 12 * random.Uniform());
    CheckSelection({}, positions, kind, fixed, budget, random, fixed_last, threshold, &spared);
  }
  CHECK(spared > 1000);
}

TEST_CASE("selections above a threshold from thousands of pages agree") {
  const auto kind = GENERATE(Kind::kUniform, Kind::kFewValues, Kind::kEqual, Kind::kAscending);
  const auto [max_extents, pages] =
      GENERATE(table<int32_t, int32_t>({{64, 2048}, {256, 8192}, {272, 8193}, {600, 19000}}));
  const double above_mean = GENERATE(0.3, 1.0, 1.5);
  Random random(12);
  INFO("pages " << pages << " threshold " << above_mean << " of the mean");
  uint64_t spared = 0;
  CheckSelection({.page_tokens = 16, .max_extents = max_extents},
                 {pages * 16 - 1, pages * 16 - 16, pages * 16 - 700}, kind, 1, 1500, random, 1,
                 above_mean / pages, &spared);
  if (kind == Kind::kAscending) CHECK(spared > 0);
}

TEST_CASE("thresholds that nothing and everything is above", "[small]") {
  Random random(13);
  for (const int32_t pages : {9, 10, 11, 40}) {
    INFO("pages " << pages);
    const std::vector<int32_t> positions = {8 * pages - 1, 8 * pages - 8, 8 * pages - 4};
    for (const double threshold : {1e-12, 0.02, 1.0}) {
      CheckSelection({}, positions, Kind::kSpecial, 1, 10, random, 1, threshold);
      CheckSelection({}, positions, Kind::kEqual, 1, 10, random, 1, threshold);
    }
  }
}

TEST_CASE("budgets at their edges", "[small]") {
  Random random(10);
  // One page; as many pages as the budget, one fewer, one more; nothing but the fixed pages and the last.
  for (const int32_t pages : {1, 2, 9, 10, 11}) {
    for (const int32_t fixed : {0, 1, 9}) {
      INFO("pages " << pages << " fixed " << fixed);
      const std::vector<int32_t> positions = {8 * pages - 1, 8 * pages - 8, 8 * pages - 4};
      CheckSelection({}, positions, Kind::kUniform, fixed, 10, random);
      CheckSelection({}, positions, Kind::kFewValues, fixed, fixed + 1, random);
    }
  }
}

}  // namespace
}  // namespace spin
