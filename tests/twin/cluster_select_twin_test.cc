// RetroInfer's Select on the GPU and on the CPU from the same scores and records: pages, masks, estimated clusters and
// all counts agree exactly, and nothing else is written.
#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/twin/twin_testing.h"

namespace spin {
namespace {

using testing::Gpu;
using testing::KvOnDevice;
using testing::KvWorld;
using testing::OnDevice;
using testing::RowsOnDevice;
using testing::StepRows;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

enum class Kind { kUniform, kFewValues, kSoftmax, kEqual, kAscending, kCount };

float Score(Kind kind, int32_t cluster, Random& random) {
  switch (kind) {
    case Kind::kUniform:
      return random.Uniform();
    case Kind::kFewValues:
      return 1e-3f * static_cast<float>(random.Below(20));
    case Kind::kSoftmax:
      return std::exp(-30 * random.Uniform());
    case Kind::kEqual:
      return 0.25f;
    default:
      return static_cast<float>(cluster);
  }
}

// How tokens are shared out to the clusters of a segment.
enum class Sizes {
  kEven,    // 16 each, but for the first
  kUneven,  // a third have none, some hundreds
  kOne,     // one has all
};

struct Shape {
  int32_t kv_heads = 2;
  int32_t max_extents = 4;
  ClusterBudget budget;
  int32_t spare_places = 2;
  bool whole = false;  // row 2 is attended to as a whole
};

// Three rows, and the records of their clusters.
class Twins {
 public:
  Twins(const Shape& shape, std::vector<int32_t> lengths, Sizes sizes, Kind kind, Random& random)
      : shape_(shape),
        world_(Geometry(shape)),
        step_({1, 2, 0}, world_.geometry.max_rows),
        places_(3 + shape.spare_places) {
    const KvGeometry& g = world_.geometry;
    const int32_t streams = places_ * g.num_kv_heads;
    scores_.assign(static_cast<size_t>(streams) * g.max_pages(), kInfinity);
    for (int32_t place = 0; place < 3; ++place) {
      const int32_t row = step_.rows[static_cast<size_t>(place)];
      const int32_t length = lengths[static_cast<size_t>(place)];
      step_.position[static_cast<size_t>(row)] = length - 1;
      world_.AddRow(row, Placement::kResident, length);
      for (int32_t head = 0; head < g.num_kv_heads; ++head) {
        float* scores = scores_.data() + (place * g.num_kv_heads + head) * g.max_pages();
        MakeClusters(row, head, static_cast<int32_t>(IndexedTokens(length)), sizes, kind, scores,
                     random);
      }
    }
    const int32_t clusters = g.max_extents * g.extent_partitions();
    max_estimate_ = shape.budget.Retrieve(clusters) + shape.budget.Estimate(clusters) + 1;
    max_selected_ = std::min(g.max_pages(), 1 + shape.budget.MaxPages(clusters) + 73) + 3;
    row_pages_.assign(static_cast<size_t>(g.max_rows), 0);
    if (shape.whole) {
      max_selected_ = g.max_pages() + 3;
      row_pages_[2] = CeilDiv(lengths[1], kClusterPageTokens);
    }
    ids_.assign(static_cast<size_t>(streams * max_selected_), -7);
    mask_.assign(ids_.size(), 0xa5);
    estimate_.assign(static_cast<size_t>(streams * max_estimate_), -8);
    count_.assign(static_cast<size_t>(streams), -9);
    estimate_count_.assign(count_.size(), -10);
  }

  void Check() {
    const KvOnDevice gpu(world_);
    const RowsOnDevice rows(step_, places_);
    const OnDevice<float> scores(scores_);
    const OnDevice<int32_t> ids(ids_), count(count_), estimate(estimate_);
    const OnDevice<int32_t> estimate_count(estimate_count_), row_pages(row_pages_);
    const OnDevice<uint8_t> mask(mask_);
    ClusterSelectParams p = {.decode = rows.view(),
                             .layer = 0,
                             .tables = gpu.tables,
                             .budget = shape_.budget,
                             .row_pages = row_pages.data(),
                             .scores = scores.data(),
                             .ids = ids.data(),
                             .count = count.data(),
                             .page_mask = mask.data(),
                             .max_selected = max_selected_,
                             .estimate_ids = estimate.data(),
                             .estimate_count = estimate_count.data(),
                             .max_estimate = max_estimate_};
    Gpu::Get().ops().ClusterSelect(p, Gpu::Get().stream());
    p.decode = step_.view();
    p.tables = world_.tables;
    p.row_pages = row_pages_.data();
    p.scores = scores_.data();
    p.ids = ids_.data();
    p.count = count_.data();
    p.page_mask = mask_.data();
    p.estimate_ids = estimate_.data();
    p.estimate_count = estimate_count_.data();
    cpu::ClusterSelect(p, world_.pool);
    REQUIRE(count.Read() == count_);
    REQUIRE(estimate_count.Read() == estimate_count_);
    REQUIRE((ids.Read() == ids_));
    REQUIRE((mask.Read() == mask_));
    REQUIRE((estimate.Read() == estimate_));
  }

  // Of all streams: clusters that are estimated.
  int32_t Estimated() const {
    int32_t sum = 0;
    for (const int32_t count : estimate_count_) sum += std::max(count, 0);
    return sum;
  }

 private:
  static KvGeometry Geometry(const Shape& shape) {
    // Thin pages: what is in them is nothing to a selection.
    KvGeometry g = testing::SmallGeometry(DType::kBf16, 8, kClusterPageTokens);
    g.num_layers = 1;
    g.num_kv_heads = g.num_q_heads = shape.kv_heads;
    g.max_rows = 3;
    g.max_extents = shape.max_extents;
    g.summary_elements = 2 * g.head_dim + kClusterTailElements;
    g.partition_tokens = kClusterTokens;
    return g;
  }

  void MakeClusters(int32_t row, int32_t head, int32_t indexed, Sizes sizes, Kind kind,
                    float* scores, Random& random) {
    const KvGeometry& g = world_.geometry;
    for (int32_t segment = 0; segment < indexed; segment += kClusterSegmentTokens) {
      const int32_t end = std::min(segment + kClusterSegmentTokens, indexed);
      const int32_t clusters = (end - segment) / kClusterTokens;
      std::vector<int32_t> size(static_cast<size_t>(clusters), 0);
      for (int32_t t = std::max(segment, kClusterPageTokens); t < end; ++t) {
        ++size[static_cast<size_t>(ClusterOf(sizes, t - segment, clusters, random))];
      }
      int32_t begin = std::max(segment, kClusterPageTokens);
      for (int32_t i = 0; i < clusters; ++i) {
        const int32_t c = segment / kClusterTokens + i;
        const ClusterRun run = {begin, size[static_cast<size_t>(i)]};
        begin += run.size;
        scores[c] = run.size == 0 ? -kInfinity : Score(kind, c, random);
        const int32_t extent = world_.summary_dir[static_cast<size_t>(g.DirIndex(row, 0, c / 32))];
        std::memcpy(world_.summaries.data() +
                        g.SummaryIndex(extent, head, c % 32) * g.summary_bytes() +
                        2 * g.head_dim * SizeOf(g.dtype),
                    &run, sizeof(run));
      }
    }
  }
  static int32_t ClusterOf(Sizes sizes, int32_t t, int32_t clusters, Random& random) {
    if (sizes == Sizes::kEven) return t / kClusterTokens;
    if (sizes == Sizes::kOne) return clusters / 3;
    // Low ones have most, every third has none.
    const float u = random.Uniform();
    const auto c = static_cast<int32_t>(u * u * u * static_cast<float>(clusters - 2));
    return c / 3 * 3 + static_cast<int32_t>(random.Below(2));
  }

  const Shape shape_;
  KvWorld world_;
  StepRows step_;
  const int32_t places_;
  std::vector<float> scores_;
  int32_t max_selected_ = 0, max_estimate_ = 0;
  std::vector<int32_t> row_pages_, ids_, count_, estimate_, estimate_count_;
  std::vector<uint8_t> mask_;
};

TEST_CASE("clusters and their pages are selected as on the CPU") {
  Random random(51);
  int32_t estimated = 0;
  for (int32_t round = 0; round < 200; ++round) {
    INFO("round " << round);
    Shape shape;
    shape.budget.retrieve_permille = static_cast<int32_t>(random.Below(400));
    shape.budget.estimate_permille = static_cast<int32_t>(random.Below(900));
    if (random.Below(2) == 0) {
      shape.budget.min_retrieve = 1 + static_cast<int32_t>(random.Below(90));
    }
    const auto tokens = static_cast<uint32_t>(shape.max_extents) * kExtentTokens;
    const std::vector<int32_t> lengths = {static_cast<int32_t>(1 + random.Below(tokens)),
                                          static_cast<int32_t>(1 + random.Below(tokens)),
                                          static_cast<int32_t>(1 + random.Below(tokens))};
    const auto kind = static_cast<Kind>(round % static_cast<int32_t>(Kind::kCount));
    const auto sizes = static_cast<Sizes>(random.Below(3));
    Twins twins(shape, lengths, sizes, kind, random);
    twins.Check();
    estimated += twins.Estimated();
  }
  CHECK(estimated > 1000);
}

TEST_CASE("lengths at the edges of the index", "[small]") {
  Random random(52);
  for (const int32_t length : {1, 7, 8, 9, 63, 64, 575, 576, 577, 584, 1087, 1088, 1089, 2048}) {
    INFO("length " << length);
    Twins twins({}, {length, length, 600}, Sizes::kUneven, Kind::kSoftmax, random);
    twins.Check();
  }
}

TEST_CASE("a row that is attended to as a whole, beside others", "[small]") {
  Random random(55);
  for (const int32_t length : {5, 64, 576, 1500, 2048}) {
    INFO("length " << length);
    Twins twins({.budget = {}, .whole = true}, {1600, length, 2048}, Sizes::kUneven, Kind::kSoftmax,
                random);
    twins.Check();
  }
}

TEST_CASE("one cluster that touches more pages than may be is estimated", "[small]") {
  Random random(53);
  // The only cluster with tokens touches hundreds of pages; with a budget of half of all clusters it fits.
  for (const int32_t fixed : {1, 3, 20, 64}) {
    Twins twins({.budget = {.retrieve_permille = 0, .min_retrieve = fixed}}, {2048, 1500, 1100},
                Sizes::kOne, Kind::kEqual, random);
    twins.Check();
  }
}

TEST_CASE("clusters of up to 256K tokens, in registers and beyond") {
  const auto kind = GENERATE(Kind::kSoftmax, Kind::kFewValues);
  const auto sizes = GENERATE(Sizes::kEven, Sizes::kUneven);
  const auto [max_extents, least] =
      GENERATE(table<int32_t, int32_t>({{64, 1}, {256, 1}, {256, 1200}, {512, 1}}));
  Random random(54);
  const int32_t tokens = max_extents * kExtentTokens;
  INFO("tokens " << tokens << ", at least " << least);
  Twins twins({.kv_heads = 1, .max_extents = max_extents, .budget = {.min_retrieve = least}},
              {tokens, tokens - 100, tokens / 2 + 3}, sizes, kind, random);
  twins.Check();
}

}  // namespace
}  // namespace spin
