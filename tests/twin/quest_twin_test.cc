// Quest on the GPU: summaries equal the CPU's bit for bit; scores agree with double precision and do not depend on the
// batch.
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

TEST_CASE("summaries of short sequences agree") {
  const int32_t tokens = GENERATE(1, 2, 15, 16, 17, 31);
  CheckIndex(DType::kBf16, 128, 16, tokens, true);
}

// Random summaries behind a shuffled directory, and queries; NaN wherever no page is.
struct ScoreWorld {
  ScoreWorld(const KvGeometry& geometry, std::vector<int32_t> last_tokens, uint64_t seed)
      : g(geometry),
        step(Iota(static_cast<int32_t>(last_tokens.size())), g.max_rows),
        summaries(g.dtype, int64_t{Extents()} * g.pages_per_extent() * g.summary_elements),
        qkv(g.dtype, g.max_rows * QkvWidth(g)),
        placement(static_cast<size_t>(g.max_rows), static_cast<int32_t>(Placement::kResident)),
        directory(Iota(Extents())) {
    Random random(seed);
    for (size_t i = directory.size(); i > 1; --i) {
      std::swap(directory[i - 1], directory[random.Below(static_cast<uint32_t>(i))]);
    }
    qkv.Randomize(random, 3);
    summaries.Fill(kNan);
    for (int32_t row = 0; row < step.count; ++row) {
      step.position[static_cast<size_t>(row)] = last_tokens[static_cast<size_t>(row)];
      for (int32_t head = 0; head < g.num_kv_heads; ++head) {
        for (int32_t page = 0; page < Pages(row); ++page) {
          for (int32_t c = 0; c < g.head_dim; ++c) {
            const float a = 2 * random.Uniform() - 1, b = 2 * random.Uniform() - 1;
            summaries.Set(At(row, head, page) + c, std::max(a, b));
            summaries.Set(At(row, head, page) + g.head_dim + c, std::min(a, b));
          }
        }
      }
      // No extent beyond those in use.
      for (int32_t i = CeilDiv(Pages(row), g.extent_pages()); i < g.max_extents; ++i) {
        directory[static_cast<size_t>(g.DirIndex(row, 0, i))] = kAbsent;
      }
    }
  }

  int32_t Extents() const { return g.max_rows * g.max_extents; }
  int32_t Pages(int32_t row) const {
    return step.position[static_cast<size_t>(row)] / g.page_tokens + 1;
  }
  int64_t At(int32_t row, int32_t head, int32_t page) const {
    const int32_t extent =
        directory[static_cast<size_t>(g.DirIndex(row, 0, page / g.extent_pages()))];
    return g.PageIndex(extent, head, page % g.extent_pages()) * g.summary_elements;
  }
  int64_t QueryAt(int32_t row, int32_t q_head) const {
    return row * QkvWidth(g) + int64_t{q_head} * g.head_dim;
  }
  static std::vector<int32_t> Iota(int32_t n) {
    std::vector<int32_t> v(static_cast<size_t>(n));
    std::iota(v.begin(), v.end(), 0);
    return v;
  }

  // Scores [bucket][Hkv][max_pages]; -1 where nothing was written.
  std::vector<float> OnGpu(int32_t bucket) const {
    const OnDevice<int32_t> gpu_directory(directory), gpu_placement(placement);
    const testing::ElementsOnDevice gpu_summaries(summaries), gpu_qkv(qkv);
    const RowsOnDevice rows(step, bucket);
    const OnDevice<float> bounds(
        std::vector<float>(static_cast<size_t>(bucket) * g.num_q_heads * g.max_pages(), kNan));
    const OnDevice<float> scores(
        std::vector<float>(static_cast<size_t>(bucket) * g.num_kv_heads * g.max_pages(), -1));
    KvTables tables = {.geometry = g};
    tables.summary_dir = gpu_directory.data();
    tables.placement = gpu_placement.data();
    tables.summaries = gpu_summaries.data();
    const QuestScoreParams p = {.decode = rows.view(),
                                .qkv = gpu_qkv.data(),
                                .tables = tables,
                                .bounds = bounds.data(),
                                .scores = scores.data()};
    // Twice: what the first call left in scratch must not reach the second.
    Gpu::Get().ops().QuestScore(p, Gpu::Get().stream());
    Gpu::Get().ops().QuestScore(p, Gpu::Get().stream());
    return scores.Read();
  }

  std::vector<float> OnCpu(int32_t bucket) {
    std::vector<float> scores(static_cast<size_t>(bucket) * g.num_kv_heads * g.max_pages(), -1);
    KvTables tables = {.geometry = g};
    tables.summary_dir = directory.data();
    tables.placement = placement.data();
    tables.summaries = summaries.data();
    ThreadPool pool(2);
    cpu::QuestScore(
        {.decode = step.view(), .qkv = qkv.data(), .tables = tables, .scores = scores.data()},
        pool);
    return scores;
  }

  // In double precision, of one stream.
  std::vector<double> Reference(int32_t row, int32_t head) const {
    const auto pages = static_cast<size_t>(Pages(row));
    std::vector<double> best(pages, 0);
    for (int32_t h = 0; h < g.group(); ++h) {
      std::vector<double> bound(pages, 0);
      double max = -1e300, sum = 0;
      for (size_t page = 0; page < pages; ++page) {
        const int64_t at = At(row, head, static_cast<int32_t>(page));
        for (int32_t c = 0; c < g.head_dim; ++c) {
          const double q = double{qkv[QueryAt(row, head * g.group() + h) + c]};
          bound[page] +=
              std::max(q * double{summaries[at + c]}, q * double{summaries[at + g.head_dim + c]});
        }
        bound[page] /= std::sqrt(double(g.head_dim));
        max = std::max(max, bound[page]);
      }
      for (const double b : bound) sum += std::exp(b - max);
      for (size_t page = 0; page < pages; ++page) {
        best[page] = std::max(best[page], std::exp(bound[page] - max) / sum);
      }
    }
    return best;
  }

  KvGeometry g;
  StepRows step;
  Elements summaries, qkv;
  std::vector<int32_t> placement, directory;
};

KvGeometry ScoreGeometry(DType dtype, int32_t d, int32_t page_tokens, int32_t kv_heads,
                         int32_t group, int32_t max_rows, int32_t max_extents) {
  return {.num_layers = 1,
          .num_kv_heads = kv_heads,
          .num_q_heads = kv_heads * group,
          .head_dim = d,
          .page_tokens = page_tokens,
          .max_rows = max_rows,
          .max_extents = max_extents,
          .summary_elements = 2 * d,
          .dtype = dtype};
}

// Every score within 1e-4 of itself, nothing written behind a row's pages or in places without a row.
void CheckScores(ScoreWorld& world, int32_t bucket) {
  const KvGeometry& g = world.g;
  const std::vector<float> scores = world.OnGpu(bucket);
  int64_t wrong = 0;
  for (int32_t place = 0; place < bucket; ++place) {
    const bool used = place < world.step.count;
    for (int32_t head = 0; head < g.num_kv_heads; ++head) {
      const float* got = scores.data() + (int64_t{place} * g.num_kv_heads + head) * g.max_pages();
      const std::vector<double> want = used ? world.Reference(place, head) : std::vector<double>();
      for (int32_t page = 0; page < g.max_pages(); ++page) {
        const auto i = static_cast<size_t>(page);
        wrong += i < want.size()
                     ? !(std::abs(double{got[page]} - want[i]) <= 1e-4 * want[i] + 1e-12)
                     : got[page] != -1;
      }
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("scores are the softmax of the bounds, greatest of the group") {
  const auto dtype = GENERATE(DType::kF32, DType::kBf16);
  const int32_t d = GENERATE(64, 128);
  const int32_t group = GENERATE(1, 2, 3, 5, 8);
  const int32_t page_tokens = GENERATE(8, 16, 64);
  ScoreWorld world(ScoreGeometry(dtype, d, page_tokens, 3, group, 3, 5),
                   {0, 5 * kExtentTokens - 1, 3 * kExtentTokens + 5}, 7);
  CheckScores(world, 4);
}

TEST_CASE("scores at the edges of tiles and parts") {
  const int32_t pages = GENERATE(1, 2, 7, 8, 9, 15, 16, 17, 127, 128, 129, 255, 257, 383, 512);
  ScoreWorld world(ScoreGeometry(DType::kBf16, 64, 16, 2, 4, 2, 16),
                   {16 * pages - 1, 16 * pages - 16}, 8);
  INFO("pages " << pages);
  CheckScores(world, 2);
}

TEST_CASE("scores of Qwen3-8B's heads over 32K tokens") {
  ScoreWorld world(ScoreGeometry(DType::kBf16, 128, 16, 8, 4, 2, 64), {32767, 32000}, 9);
  CheckScores(world, 2);
}

TEST_CASE("a row's scores are the same bits in every bucket") {
  ScoreWorld world(ScoreGeometry(DType::kBf16, 64, 8, 3, 4, 2, 24), {24 * 512 - 9, 7000}, 10);
  const std::vector<float> alone = world.OnGpu(2);
  for (const int32_t bucket : {5, 40, 400}) {
    std::vector<float> scores = world.OnGpu(bucket);
    scores.resize(alone.size());
    CHECK((scores == alone));
  }
}

TEST_CASE("NaN and infinity weigh what they weigh on the CPU") {
  const auto dtype = GENERATE(DType::kF32, DType::kBf16);
  ScoreWorld world(ScoreGeometry(dtype, 64, 16, 2, 3, 4, 8), {4000, 4000, 4000, 4000}, 11);
  world.summaries.Set(world.At(0, 0, 17) + 3, kNan);
  world.summaries.Set(world.At(0, 1, 250) + 64, kNan);  // the last page
  world.summaries.Set(world.At(1, 0, 40) + 5, kInfinity);
  world.qkv.Set(world.QueryAt(2, 0) + 9, kNan);  // the first head of its group: all scores
  world.qkv.Set(world.QueryAt(3, 1) + 9, kNan);  // another: that head alone
  const std::vector<float> gpu = world.OnGpu(4), cpu = world.OnCpu(4);
  int64_t wrong = 0, nans = 0;
  for (size_t i = 0; i < cpu.size(); ++i) {
    nans += std::isnan(cpu[i]);
    wrong += std::isnan(cpu[i]) != std::isnan(gpu[i]);
    wrong += std::abs(gpu[i] - cpu[i]) > 1e-4f * cpu[i] + 1e-12f && cpu[i] != -1;
    wrong += cpu[i] == -1 && gpu[i] != -1;
  }
  CHECK(wrong == 0);
  CHECK(nans > 200);
}

}  // namespace
}  // namespace spin
