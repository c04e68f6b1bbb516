// ShadowKV against double precision: landmarks and outliers of prefill, landmarks of decode wherever the page is,
// scores, and what one step selects.
#include <cmath>
#include <limits>
#include <set>

#include "tests/kernels/kv_testing.h"

namespace spin {
namespace {

using testing::Elements;
using testing::KvWorld;
using testing::StepRows;

constexpr int32_t kOutliers = 9;
constexpr int32_t kLocal = 4;
constexpr int32_t kLayer = 1;
constexpr float kUnwritten = -1;

KvGeometry Geometry(DType dtype, int32_t d, int32_t group = 2) {
  KvGeometry g = testing::SmallGeometry(dtype, d, kLandmarkTokens);
  g.num_q_heads = g.num_kv_heads * group;
  g.summary_elements = d;
  return g;
}

// Rows 0 (Resident) and 1 (Tiered, two slots a stream) after a prefill and some decode steps, each as the pipeline
// goes: Index, Lookup of the tail, Append, Gather.
struct Indexed {
  Indexed(const KvGeometry& geometry, int32_t prompt_tokens, int32_t decoded,
          bool equal_pages = false)
      : world(geometry), step({1, 0}, 4), prompt(prompt_tokens), total(prompt_tokens + decoded) {
    const KvGeometry& g = world.geometry;
    world.AddRow(0, Placement::kResident, total);
    world.AddRow(1, Placement::kTiered, total, 2);
    keys.resize(static_cast<size_t>(2 * g.num_kv_heads * total * g.head_dim));
    Prefill(equal_pages);
    for (int32_t t = prompt; t < total; ++t) Step(t);
  }

  void Prefill(bool equal_pages) {
    const KvGeometry& g = world.geometry;
    const int32_t pages = CeilDiv(prompt, kLandmarkTokens);
    const std::vector<PrefillSlice> slices = {
        {.row = 0, .num_tokens = prompt, .page_begin = 1},
        {.row = 1, .num_tokens = prompt - 4, .page_begin = pages + 1, .prefix_tokens = 4}};
    const int32_t num_pages = 2 * pages + 1;
    Elements staging = world.MakeStaging(num_pages, slices, random);
    for (int32_t row = 0; row < 2; ++row) {
      for (int32_t head = 0; head < g.num_kv_heads; ++head) {
        const int64_t first = int64_t{head} * num_pages + slices[row].page_begin;
        for (int32_t t = 0; t < prompt; ++t) {
          for (int32_t c = 0; c < g.head_dim; ++c) {
            const int64_t at = (first + t / kLandmarkTokens) * g.page_elements() +
                               g.KeyOffset(t % kLandmarkTokens) + c;
            if (equal_pages && t >= kLandmarkTokens)
              staging.Set(at, Key(row, head, t % kLandmarkTokens, c));
            Key(row, head, t, c) = staging[at];
          }
        }
      }
    }
    std::vector<float> spread(static_cast<size_t>(g.num_kv_heads * RoundUp(num_pages, 4)));
    const Staging area = {staging.data(), num_pages};
    cpu::LandmarkIndexPrefill({.slices = slices.data(),
                               .num_slices = 2,
                               .layer = kLayer,
                               .tables = world.tables,
                               .staging = area,
                               .outlier_pages = kOutliers,
                               .local_pages = kLocal,
                               .spread = spread.data()},
                              world.pool);
    cpu::Offload({.slices = slices.data(),
                  .num_slices = 2,
                  .layer = kLayer,
                  .tables = world.tables,
                  .staging = area},
                 world.pool);
  }

  void Step(int32_t t) {
    const KvGeometry& g = world.geometry;
    step.position[0] = step.position[1] = t;
    Elements qkv = RandomQkv();
    for (int32_t place = 0; place < 2; ++place) {
      for (int32_t head = 0; head < g.num_kv_heads; ++head) {
        for (int32_t c = 0; c < g.head_dim; ++c) {
          Key(1 - place, head, t, c) =
              qkv[place * Width() + int64_t{g.num_q_heads + head} * g.head_dim + c];
        }
      }
    }
    if (t / kLandmarkTokens % 2 == 0 && t % kLandmarkTokens != 0)
      testing::EvictPage(world, 1, kLayer, t / kLandmarkTokens);
    cpu::LandmarkIndexDecode(
        {.decode = step.view(), .qkv = qkv.data(), .layer = kLayer, .tables = world.tables},
        world.pool);
    gathered += static_cast<int64_t>(testing::AppendToken(world, step, qkv, kLayer).misses);
  }

  int32_t Width() const {
    return (world.geometry.num_q_heads + 2 * world.geometry.num_kv_heads) * world.geometry.head_dim;
  }
  Elements RandomQkv() {
    Elements qkv(world.geometry.dtype, 2 * Width());
    qkv.Randomize(random, 3);
    return qkv;
  }
  float& Key(int32_t row, int32_t head, int32_t t, int32_t c) {
    const KvGeometry& g = world.geometry;
    return keys[static_cast<size_t>(((row * g.num_kv_heads + head) * total + t) * g.head_dim + c)];
  }
  float Landmark(int32_t row, int32_t head, int32_t page, int32_t c) const {
    const KvGeometry& g = world.geometry;
    const int32_t e = g.extent_pages();
    const int32_t extent =
        world.summary_dir[static_cast<size_t>(g.DirIndex(row, kLayer, page / e))];
    const int64_t at = g.PageIndex(extent, head, page % e) * g.summary_elements + c;
    if (g.dtype == DType::kF32) return reinterpret_cast<const float*>(world.summaries.data())[at];
    return Bf16ToFloat(reinterpret_cast<const uint16_t*>(world.summaries.data())[at]);
  }
  bool Marked(int32_t row, int32_t head, int32_t page) const {
    return std::isnan(Landmark(row, head, page, 0));
  }
  double Mean(int32_t row, int32_t head, int32_t page, int32_t c) {
    double sum = 0;
    for (int32_t t = 0; t < kLandmarkTokens; ++t) {
      sum += double{Key(row, head, page * kLandmarkTokens + t, c)};
    }
    return sum / kLandmarkTokens;
  }
  // min over the page's keys of cosine(key, mean).
  double LeastCosine(int32_t row, int32_t head, int32_t page) {
    std::vector<double> means;
    for (int32_t c = 0; c < world.geometry.head_dim; ++c) means.push_back(Mean(row, head, page, c));
    double least = 2;
    for (int32_t t = 0; t < kLandmarkTokens; ++t) {
      double dot = 0, key_norm = 0, mean_norm = 0;
      for (int32_t c = 0; c < world.geometry.head_dim; ++c) {
        const double key = double{Key(row, head, page * kLandmarkTokens + t, c)};
        const double mean = means[static_cast<size_t>(c)];
        dot += key * mean;
        key_norm += key * key;
        mean_norm += mean * mean;
      }
      least = std::min(least, dot / std::sqrt(key_norm * mean_norm));
    }
    return least;
  }

  Random random{7};
  KvWorld world;
  StepRows step;
  int32_t prompt, total;
  int64_t gathered = 0;
  std::vector<float> keys;
};

TEST_CASE("landmarks are the means of complete pages, from prefill and from decode") {
  const auto dtype = GENERATE(DType::kF32, DType::kBf16);
  const int32_t d = GENERATE(64, 128);
  const int32_t prompt = GENERATE(1021, 1024, 5);
  Indexed x(Geometry(dtype, d), prompt, 30);
  CHECK(x.gathered > 0);  // tails were read from the host, too
  const double rounding = dtype == DType::kF32 ? 1e-6 : 1.0 / 256;
  int64_t wrong = 0, marked = 0;
  for (int32_t row = 0; row < 2; ++row) {
    for (int32_t head = 0; head < 3; ++head) {
      for (int32_t page = 0; page < x.total / kLandmarkTokens; ++page) {
        marked += x.Marked(row, head, page);
        for (int32_t c = x.Marked(row, head, page) ? 1 : 0; c < d; ++c) {
          const double mean = x.Mean(row, head, page, c);
          const double error = std::abs(double{x.Landmark(row, head, page, c)} - mean);
          wrong += !(error <= rounding * std::abs(mean) + 1e-6);
        }
      }
      if (x.total % kLandmarkTokens != 0) {  // an incomplete page has none: still the pool's NaN
        CHECK(std::isnan(x.Landmark(row, head, x.total / kLandmarkTokens, d - 1)));
      }
    }
  }
  CHECK(wrong == 0);
  CHECK(marked == (prompt < 100 ? 0 : 2 * 3 * kOutliers));
}

TEST_CASE("outliers are the pages whose keys agree least with their mean, outside the window") {
  const auto dtype = GENERATE(DType::kF32, DType::kBf16);
  const int32_t d = GENERATE(64, 128);
  const int32_t prompt =
      GENERATE(1021, 8 * (kLocal + kOutliers) + 3, 8 * (kLocal + 3) + 1, 8 * kLocal);
  Indexed x(Geometry(dtype, d), prompt, 0);
  const int32_t candidates = std::max(prompt / kLandmarkTokens - kLocal, 0);
  for (int32_t row = 0; row < 2; ++row) {
    for (int32_t head = 0; head < 3; ++head) {
      double greatest_marked = -2, least_left = 2;
      int32_t marked = 0;
      for (int32_t page = 0; page < prompt / kLandmarkTokens; ++page) {
        if (x.Marked(row, head, page)) {
          CHECK(page < candidates);
          ++marked;
          greatest_marked = std::max(greatest_marked, x.LeastCosine(row, head, page));
        } else if (page < candidates) {
          least_left = std::min(least_left, x.LeastCosine(row, head, page));
        }
      }
      CHECK(marked == std::min(kOutliers, candidates));
      CHECK(greatest_marked <= least_left + 1e-6);
    }
  }
}

TEST_CASE("of equal pages the first are the outliers") {
  Indexed x(Geometry(GENERATE(DType::kF32, DType::kBf16), 64), 400, 0, true);
  for (int32_t page = 0; page < 50; ++page) {
    for (int32_t head = 0; head < 3; ++head) {
      CHECK(x.Marked(0, head, page) == (page < kOutliers));
      CHECK(x.Marked(1, head, page) == (page < kOutliers));
    }
  }
}

// Scores of one stream in double precision; infinity for outliers.
std::vector<double> Reference(const Indexed& x, const Elements& qkv, int32_t place, int32_t head,
                              int32_t pages, GroupReduction reduction) {
  const KvGeometry& g = x.world.geometry;
  std::vector<double> scores(static_cast<size_t>(pages), 0);
  for (int32_t h = 0; h < g.group(); ++h) {
    std::vector<double> logit(scores.size(), 0);
    double sum = 0;
    for (int32_t page = 0; page < pages; ++page) {
      for (int32_t c = 0; c < g.head_dim; ++c) {
        logit[page] +=
            double{qkv[place * x.Width() + int64_t{head * g.group() + h} * g.head_dim + c]} *
            double{x.Landmark(1 - place, head, page, c)};
      }
      logit[page] /= std::sqrt(double(g.head_dim));
      if (!x.Marked(1 - place, head, page)) sum += std::exp(logit[page]);
    }
    for (int32_t page = 0; page < pages; ++page) {
      const double share = std::exp(logit[page]) / sum;
      double& score = scores[page];
      if (x.Marked(1 - place, head, page)) {
        score = std::numeric_limits<double>::infinity();
      } else {
        score = reduction == GroupReduction::kMax ? std::max(score, share) : score + share;
      }
    }
  }
  return scores;
}

std::vector<float> Scores(Indexed& x, const Elements& qkv, GroupReduction reduction) {
  std::vector<float> scores(static_cast<size_t>(2 * 3 * x.world.geometry.max_pages()), kUnwritten);
  cpu::ScoreSummaries({.decode = x.step.view(),
                       .qkv = qkv.data(),
                       .layer = kLayer,
                       .tables = x.world.tables,
                       .kind = SummaryKind::kMean,
                       .reduction = reduction,
                       .unscored_last = kLocal + 1,
                       .scores = scores.data()},
                      x.world.pool);
  return scores;
}

TEST_CASE(
    "scores are the softmax of the landmarks, greatest or sum of the group, infinite for "
    "outliers") {
  const auto dtype = GENERATE(DType::kF32, DType::kBf16);
  const int32_t d = GENERATE(64, 128);
  const int32_t group = GENERATE(1, 2, 3, 5, 8);
  const auto reduction = GENERATE(GroupReduction::kMax, GroupReduction::kSum);
  // The last has outliers alone; then there is nothing to weigh.
  const int32_t prompt = GENERATE(901, 8 * (kLocal + kOutliers));
  Indexed x(Geometry(dtype, d, group), prompt, 3);
  const Elements qkv = x.RandomQkv();
  const int32_t scored = (x.total - 1) / kLandmarkTokens + 1 - (kLocal + 1);
  const std::vector<float> scores = Scores(x, qkv, reduction);
  for (int32_t place = 0; place < 2; ++place) {
    for (int32_t head = 0; head < 3; ++head) {
      const std::vector<double> want = Reference(x, qkv, place, head, scored, reduction);
      const float* got = scores.data() + (place * 3 + head) * x.world.geometry.max_pages();
      int64_t wrong = 0, outliers = 0;
      for (int32_t page = 0; page < scored; ++page) {
        outliers += std::isinf(want[page]);
        wrong += std::isinf(want[page])
                     ? got[page] != std::numeric_limits<float>::infinity()
                     : !(std::abs(double{got[page]} - want[page]) <= 1e-4 * want[page] + 1e-9);
      }
      CHECK(wrong == 0);
      CHECK(outliers == kOutliers);
      CHECK(got[scored] == kUnwritten);  // neither window nor what is behind it
    }
  }
}

TEST_CASE("nothing is scored while all pages are in the window") {
  Indexed x(Geometry(DType::kF32, 64), 8 * kLocal, 1);
  for (const float score : Scores(x, x.RandomQkv(), GroupReduction::kMax))
    CHECK(score == kUnwritten);
}

TEST_CASE("a step selects the window, the outliers and the pages of the best landmarks") {
  const auto dtype = GENERATE(DType::kF32, DType::kBf16);
  const int32_t decoded = GENERATE(1, 7, 8, 60, 200);
  Indexed x(Geometry(dtype, 64, 3), 1000, decoded);
  const KvGeometry& g = x.world.geometry;
  const Elements qkv = x.RandomQkv();
  const PageBudget budget = {
      .fixed_last = kLocal + 1, .outliers = kOutliers, .selectable = 5, .context_divisor = 16};
  const std::vector<float> scores = Scores(x, qkv, GroupReduction::kMax);
  std::vector<int32_t> ids(6 * 64, -7), count(6);
  cpu::SelectTopK({.decode = x.step.view(),
                   .scores = scores.data(),
                   .geometry = g,
                   .budget = budget,
                   .ids = ids.data(),
                   .count = count.data(),
                   .max_selected = 64},
                  x.world.pool);
  const int32_t pages = (x.total - 1) / kLandmarkTokens + 1;
  const int32_t chosen = CeilDiv(pages, 16);  // more than 5
  for (int32_t i = 0; i < 6; ++i) {
    const int32_t scored = pages - kLocal - 1;
    const std::vector<double> want = Reference(x, qkv, i / 3, i % 3, scored, GroupReduction::kMax);
    REQUIRE(count[i] == kLocal + 1 + kOutliers + chosen);
    const std::set<int32_t> got(ids.begin() + i * 64, ids.begin() + i * 64 + count[i]);
    REQUIRE(static_cast<int32_t>(got.size()) == count[i]);
    double least_chosen = std::numeric_limits<double>::infinity(), greatest_left = 0;
    for (int32_t page = 0; page < pages; ++page) {
      if (page >= scored) {
        CHECK(got.contains(page));
      } else if (got.contains(page)) {
        least_chosen = std::min(least_chosen, want[page]);
      } else {
        CHECK_FALSE(std::isinf(want[page]));
        greatest_left = std::max(greatest_left, want[page]);
      }
    }
    CHECK(least_chosen >= greatest_left * (1 - 1e-4));
  }
}

}  // namespace
}  // namespace spin
