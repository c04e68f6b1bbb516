// Scores of pages on the GPU: they agree with double precision, whatever the summary, and do not depend on the batch.
#include <cmath>
#include <limits>

#include "tests/twin/twin_testing.h"

namespace spin {
namespace {

using testing::Elements;
using testing::Gpu;
using testing::OnDevice;
using testing::RowsOnDevice;
using testing::StepRows;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

int64_t QkvWidth(const KvGeometry& g) {
  return int64_t{g.num_q_heads + 2 * g.num_kv_heads} * g.head_dim;
}

// What is scored, and how.
struct Rule {
  SummaryKind kind = SummaryKind::kBounds;
  GroupReduction reduction = GroupReduction::kMax;
  int32_t unscored_last = 0;
};

constexpr Rule kQuest = {};
constexpr Rule kShadowKv = {.kind = SummaryKind::kMean, .unscored_last = 5};
constexpr Rule kMeanSum = {.kind = SummaryKind::kMean, .reduction = GroupReduction::kSum};
constexpr Rule kRetroInfer = {.kind = SummaryKind::kClusters, .reduction = GroupReduction::kSum};

// Random summaries behind a shuffled directory, and queries; NaN wherever no page is scored. Of means one in twenty
// marks an outlier; of clusters, which are the pages then, one in ten has no tokens and NaN for a centroid.
struct ScoreWorld {
  ScoreWorld(const KvGeometry& geometry, const Rule& scored, std::vector<int32_t> last_tokens,
             uint64_t seed)
      : g(geometry),
        rule(scored),
        step(Iota(static_cast<int32_t>(last_tokens.size())), g.max_rows),
        summaries(g.dtype, Extents() * g.summary_extent_bytes() / SizeOf(g.dtype)),
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
        for (int32_t page = 0; page < Pages(row); ++page) Summarise(row, head, page, random);
      }
      // No extent beyond those in use.
      const int32_t extents = CeilDiv(std::max(Pages(row), 0), g.extent_partitions());
      for (int32_t i = extents; i < g.max_extents; ++i) {
        directory[static_cast<size_t>(g.DirIndex(row, 0, i))] = kAbsent;
      }
    }
  }

  void Summarise(int32_t row, int32_t head, int32_t page, Random& random) {
    const int64_t at = At(row, head, page);
    for (int32_t c = 0; c < g.head_dim; ++c) {
      const float a = 2 * random.Uniform() - 1, b = 2 * random.Uniform() - 1;
      summaries.Set(at + c, rule.kind == SummaryKind::kBounds ? std::max(a, b) : a);
      if (rule.kind == SummaryKind::kBounds) summaries.Set(at + g.head_dim + c, std::min(a, b));
    }
    if (rule.kind == SummaryKind::kMean && random.Below(20) == 0) summaries.Set(at, kNan);
    if (rule.kind != SummaryKind::kClusters) return;
    const ClusterRun run = {8, random.Below(10) == 0 ? 0 : 16};
    auto* bytes = static_cast<char*>(summaries.data());
    std::memcpy(bytes + (at + 2 * g.head_dim) * SizeOf(g.dtype), &run, sizeof(run));
    for (int32_t c = 0; run.size == 0 && c < g.head_dim; ++c) summaries.Set(at + c, kNan);
  }

  int32_t Extents() const { return g.max_rows * g.max_extents; }
  int32_t Pages(int32_t row) const {  // that are scored
    const int32_t position = step.position[static_cast<size_t>(row)];
    if (rule.kind == SummaryKind::kClusters) {
      return static_cast<int32_t>(IndexedTokens(position + 1)) / kClusterTokens;
    }
    return position / g.page_tokens + 1 - rule.unscored_last;
  }
  int64_t At(int32_t row, int32_t head, int32_t page) const {
    const int32_t of_extent = g.extent_partitions();
    const int32_t extent = directory[static_cast<size_t>(g.DirIndex(row, 0, page / of_extent))];
    return g.SummaryIndex(extent, head, page % of_extent) * g.summary_elements;
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
    const OnDevice<float> logits(
        std::vector<float>(static_cast<size_t>(bucket) * g.num_q_heads * g.max_pages(), kNan));
    const OnDevice<float> scores(
        std::vector<float>(static_cast<size_t>(bucket) * g.num_kv_heads * g.max_pages(), -1));
    KvTables tables = {.geometry = g};
    tables.summary_dir = gpu_directory.data();
    tables.placement = gpu_placement.data();
    tables.summaries = gpu_summaries.data();
    const ScoreSummariesParams p = {.decode = rows.view(),
                                    .qkv = gpu_qkv.data(),
                                    .tables = tables,
                                    .kind = rule.kind,
                                    .reduction = rule.reduction,
                                    .unscored_last = rule.unscored_last,
                                    .logits = logits.data(),
                                    .scores = scores.data()};
    // Twice: what the first call left in scratch must not reach the second.
    Gpu::Get().ops().ScoreSummaries(p, Gpu::Get().stream());
    Gpu::Get().ops().ScoreSummaries(p, Gpu::Get().stream());
    return scores.Read();
  }

  std::vector<float> OnCpu(int32_t bucket) {
    std::vector<float> scores(static_cast<size_t>(bucket) * g.num_kv_heads * g.max_pages(), -1);
    KvTables tables = {.geometry = g};
    tables.summary_dir = directory.data();
    tables.placement = placement.data();
    tables.summaries = summaries.data();
    ThreadPool pool(2);
    cpu::ScoreSummaries({.decode = step.view(),
                         .qkv = qkv.data(),
                         .tables = tables,
                         .kind = rule.kind,
                         .reduction = rule.reduction,
                         .unscored_last = rule.unscored_last,
                         .scores = scores.data()},
                        pool);
    return scores;
  }

  // In double precision, of one stream.
  std::vector<double> Reference(int32_t row, int32_t head) const {
    const auto pages = static_cast<size_t>(std::max(Pages(row), 0));
    std::vector<double> score(pages, 0);
    for (int32_t h = 0; h < g.group(); ++h) {
      std::vector<double> logit(pages, 0);
      double max = -1e300, sum = 0;
      for (size_t page = 0; page < pages; ++page) {
        const int64_t at = At(row, head, static_cast<int32_t>(page));
        for (int32_t c = 0; c < g.head_dim; ++c) {
          const double q = double{qkv[QueryAt(row, head * g.group() + h) + c]};
          const double first = q * double{summaries[at + c]};
          logit[page] += rule.kind == SummaryKind::kBounds
                             ? std::max(first, q * double{summaries[at + g.head_dim + c]})
                             : first;
        }
        logit[page] /= std::sqrt(double(g.head_dim));
        if (!std::isnan(logit[page])) max = std::max(max, logit[page]);
      }
      for (const double l : logit) sum += std::isnan(l) ? 0 : std::exp(l - max);
      for (size_t page = 0; page < pages; ++page) {
        const double share = std::exp(logit[page] - max) / sum;
        if (std::isnan(logit[page])) {
          score[page] = double{rule.kind == SummaryKind::kClusters ? -kInfinity : kInfinity};
        } else if (rule.reduction == GroupReduction::kSum) {
          score[page] += share;
        } else {
          score[page] = std::max(score[page], share);
        }
      }
    }
    return score;
  }

  KvGeometry g;
  Rule rule;
  StepRows step;
  Elements summaries, qkv;
  std::vector<int32_t> placement, directory;
};

KvGeometry ScoreGeometry(const Rule& rule, DType dtype, int32_t d, int32_t page_tokens,
                         int32_t kv_heads, int32_t group, int32_t max_rows, int32_t max_extents) {
  const bool clusters = rule.kind == SummaryKind::kClusters;
  const int32_t vectors = rule.kind == SummaryKind::kMean ? 1 : 2;
  return {.num_layers = 1,
          .num_kv_heads = kv_heads,
          .num_q_heads = kv_heads * group,
          .head_dim = d,
          .page_tokens = page_tokens,
          .max_rows = max_rows,
          .max_extents = max_extents,
          .summary_elements = vectors * d + (clusters ? kClusterTailElements : 0),
          .partition_tokens = clusters ? kClusterTokens : 0,
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
        if (i >= want.size()) {
          wrong += got[page] != -1;
        } else if (std::isinf(want[i])) {
          wrong += double{got[page]} != want[i];
        } else {
          wrong += !(std::abs(double{got[page]} - want[i]) <= 1e-4 * want[i] + 1e-12);
        }
      }
    }
  }
  CHECK(wrong == 0);
}

Rule AnyRule() {
  return GENERATE(as<Rule>{}, kQuest, kShadowKv, kMeanSum);
}

TEST_CASE("scores are the softmax of the logits, greatest or sum of the group") {
  const Rule rule = AnyRule();
  const auto dtype = GENERATE(DType::kF32, DType::kBf16);
  const int32_t d = GENERATE(64, 128);
  const int32_t group = GENERATE(1, 2, 3, 5, 8);
  const int32_t page_tokens = GENERATE(8, 16, 64);
  ScoreWorld world(ScoreGeometry(rule, dtype, d, page_tokens, 3, group, 3, 5), rule,
                   {0, 5 * kExtentTokens - 1, 3 * kExtentTokens + 5}, 7);
  CheckScores(world, 4);
}

TEST_CASE("scores of landmarks with a page's factor behind them") {
  const auto dtype = GENERATE(DType::kF32, DType::kBf16);
  const int32_t d = GENERATE(64, 128);
  KvGeometry g = ScoreGeometry(kShadowKv, dtype, d, 8, 3, 4, 3, 5);
  g.key_rank = GENERATE(16, 160);
  g.summary_elements += g.key_piece();  // NaN: nobody reads it
  ScoreWorld world(g, kShadowKv, {0, 5 * kExtentTokens - 1, 3 * kExtentTokens + 5}, 7);
  CheckScores(world, 4);
}

TEST_CASE("scores at the edges of tiles and parts") {
  const Rule rule = AnyRule();
  const int32_t pages = GENERATE(1, 2, 7, 8, 9, 15, 16, 17, 127, 128, 129, 255, 257, 383, 500);
  ScoreWorld world(ScoreGeometry(rule, DType::kBf16, 64, 16, 2, 4, 2, 16), rule,
                   {16 * (pages + rule.unscored_last) - 1, 16 * (pages + rule.unscored_last - 1)},
                   8);
  INFO("pages " << pages);
  CheckScores(world, 2);
}

TEST_CASE("scores of Qwen3-8B's heads over 32K tokens") {
  const Rule rule = GENERATE(kQuest, kShadowKv);
  const int32_t page_tokens = rule.kind == SummaryKind::kBounds ? 16 : 8;
  ScoreWorld world(ScoreGeometry(rule, DType::kBf16, 128, page_tokens, 8, 4, 2, 64), rule,
                   {32767, 32000}, 9);
  CheckScores(world, 2);
}

TEST_CASE("scores of hundreds of rows of uneven lengths") {
  Random random(12);
  std::vector<int32_t> last_tokens(300);
  for (int32_t& last : last_tokens) {
    last = static_cast<int32_t>(random.Below(random.Below(4) == 0 ? 4 * kExtentTokens : 300));
  }
  const Rule rule = GENERATE(kQuest, kShadowKv);
  ScoreWorld world(ScoreGeometry(rule, DType::kBf16, 64, 8, 2, 2, 300, 4), rule, last_tokens, 12);
  const int32_t bucket = GENERATE(300, 320);
  CheckScores(world, bucket);
}

TEST_CASE("scores of more rows than scratch has room for the tiles of") {
  constexpr int32_t kExtents = 4096;  // four rows of 64 heads and 2 Mi tokens fill it
  ScoreWorld world(ScoreGeometry(kShadowKv, DType::kBf16, 64, 8, 8, 8, 6, kExtents), kShadowKv,
                   {3000, 40, 9000, 2000, 5000, 777}, 14);
  CheckScores(world, 6);
}

TEST_CASE("a row's scores are the same bits in every bucket") {
  const Rule rule = GENERATE(kQuest, kShadowKv);
  ScoreWorld world(ScoreGeometry(rule, DType::kBf16, 64, 8, 3, 4, 2, 24), rule,
                   {24 * 512 - 9, 7000}, 10);
  const std::vector<float> alone = world.OnGpu(2);
  for (const int32_t bucket : {5, 40, 400}) {
    std::vector<float> scores = world.OnGpu(bucket);
    scores.resize(alone.size());
    CHECK((scores == alone));
  }
}

TEST_CASE("scores of clusters; those without tokens score -infinity and weigh nothing", "[small]") {
  Rule rule = kRetroInfer;
  rule.reduction = GENERATE(GroupReduction::kSum, GroupReduction::kMax);
  const auto dtype = GENERATE(DType::kF32, DType::kBf16);
  const int32_t d = GENERATE(64, 128);
  const int32_t group = GENERATE(1, 3, 4, 8);
  ScoreWorld world(ScoreGeometry(rule, dtype, d, 8, 2, group, 4, 10), rule,
                   {574, 575, 10 * kExtentTokens - 1, 2000}, 12);
  CheckScores(world, 5);
}

TEST_CASE("scores of clusters over 32K tokens, the same bits in every bucket") {
  ScoreWorld world(ScoreGeometry(kRetroInfer, DType::kBf16, 128, 8, 8, 4, 2, 64), kRetroInfer,
                   {32767, 32000}, 13);
  CheckScores(world, 2);
  const std::vector<float> alone = world.OnGpu(2);
  std::vector<float> scores = world.OnGpu(30);
  scores.resize(alone.size());
  CHECK((scores == alone));
}

TEST_CASE("NaN and infinity weigh what they weigh on the CPU") {
  const Rule rule = GENERATE(kQuest, kShadowKv);
  const auto dtype = GENERATE(DType::kF32, DType::kBf16);
  ScoreWorld world(ScoreGeometry(rule, dtype, 64, 16, 2, 3, 4, 8), rule, {4000, 4000, 4000, 4000},
                   11);
  world.summaries.Set(world.At(0, 0, 17) + 3, kNan);
  world.summaries.Set(world.At(0, 1, world.Pages(0) - 1) + 60, kNan);  // the last page
  world.summaries.Set(world.At(1, 0, 40) + 5, kInfinity);
  world.qkv.Set(world.QueryAt(2, 0) + 9, kNan);  // the first head of its group
  world.qkv.Set(world.QueryAt(3, 1) + 9, kNan);  // another
  const std::vector<float> gpu = world.OnGpu(4), cpu = world.OnCpu(4);
  int64_t wrong = 0;
  for (size_t i = 0; i < cpu.size(); ++i) {
    if (std::isinf(cpu[i]) || cpu[i] == -1) {
      wrong += gpu[i] != cpu[i];
    } else {
      wrong += !(std::abs(gpu[i] - cpu[i]) <= 1e-4f * cpu[i] + 1e-12f);
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("scores of a few pages", "[small]") {
  const Rule rule = AnyRule();
  const auto dtype = GENERATE(DType::kF32, DType::kBf16);
  ScoreWorld world(ScoreGeometry(rule, dtype, 64, 16, 2, 4, 2, 2), rule,
                   {16 * (17 + rule.unscored_last) - 1, 16 * rule.unscored_last}, 12);
  CheckScores(world, 3);
}

}  // namespace
}  // namespace spin
