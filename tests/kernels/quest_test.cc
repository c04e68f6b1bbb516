// Quest: bounds of pages are exact, scores agree with double, and the selection with a full stable
// sort.
#include <cmath>
#include <limits>

#include "tests/kernels/kv_testing.h"

namespace spin {
namespace {

using testing::Elements;
using testing::KvWorld;
using testing::StepRows;

float SummaryAt(const KvWorld& w, int64_t index, int32_t c) {
  const int64_t element = index * w.geometry.summary_elements + c;
  if (w.geometry.dtype == DType::kF32) {
    float value;
    std::memcpy(&value, w.summaries.data() + element * 4, 4);
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, w.summaries.data() + element * 2, 2);
  return Bf16ToFloat(bits);
}

// Rows 0 (Resident) and 1 (Tiered), both with summaries of `tokens` tokens by prefill and then a
// few by decode.
struct Indexed {
  Indexed(DType dtype, int32_t d, int32_t page_tokens, int32_t tokens, int32_t decoded)
      : world(testing::SmallGeometry(dtype, d, page_tokens)),
        step({1, 0}, 4),
        total(tokens + decoded) {
    const KvGeometry& g = world.geometry;
    world.AddRow(0, Placement::kResident, total);
    world.AddRow(1, Placement::kTiered, total, 2);
    const int32_t pages = CeilDiv(tokens, page_tokens);
    const std::vector<PrefillSlice> slices = {
        {.row = 0, .num_tokens = tokens, .page_begin = 0},
        {.row = 1, .num_tokens = tokens - 4, .page_begin = pages, .prefix_tokens = 4}};
    Elements staging = world.MakeStaging(2 * pages, slices, random);
    keys.resize(static_cast<size_t>(2 * g.num_kv_heads * total * d));
    for (int32_t row = 0; row < 2; ++row) {
      for (int32_t head = 0; head < g.num_kv_heads; ++head) {
        for (int32_t t = 0; t < tokens; ++t) {
          const int64_t page = int64_t{head} * 2 * pages + row * pages + t / page_tokens;
          for (int32_t c = 0; c < d; ++c) {
            Key(row, head, t, c) =
                staging[page * g.page_elements() + g.KeyOffset(t % page_tokens) + c];
          }
        }
      }
    }
    cpu::QuestIndexPrefill({.slices = slices.data(),
                            .num_slices = 2,
                            .layer = 1,
                            .tables = world.tables,
                            .staging = {staging.data(), 2 * pages}},
                           world.pool);
    for (int32_t t = tokens; t < total; ++t) {
      step.position[0] = step.position[1] = t;
      Elements qkv = RandomQkv();
      for (int32_t place = 0; place < 2; ++place) {
        for (int32_t head = 0; head < g.num_kv_heads; ++head) {
          for (int32_t c = 0; c < d; ++c) {
            Key(1 - place, head, t, c) =
                qkv[place * Width() + int64_t{g.num_q_heads + head} * d + c];
          }
        }
      }
      cpu::QuestIndexDecode(
          {.decode = step.view(), .qkv = qkv.data(), .layer = 1, .tables = world.tables},
          world.pool);
    }
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

  Random random{7};
  KvWorld world;
  StepRows step;
  int32_t total;
  std::vector<float> keys;
};

TEST_CASE("page bounds are the exact extremes of the keys, from prefill and from decode") {
  const auto dtype = GENERATE(DType::kF32, DType::kBf16);
  const int32_t d = GENERATE(64, 128);
  const int32_t page_tokens = GENERATE(8, 16, 64);
  Indexed x(dtype, d, page_tokens, 515, 2 * page_tokens + 3);
  int64_t wrong = 0;
  for (int32_t row = 0; row < 2; ++row) {
    for (int32_t head = 0; head < 3; ++head) {
      for (int32_t page = 0; page < CeilDiv(x.total, page_tokens); ++page) {
        const int64_t index = x.world.Index(x.world.summary_dir, row, 1, head, page);
        for (int32_t c = 0; c < d; ++c) {
          float max = -1e9f, min = 1e9f;
          for (int32_t t = page * page_tokens; t < std::min(x.total, (page + 1) * page_tokens);
               ++t) {
            max = std::max(max, x.Key(row, head, t, c));
            min = std::min(min, x.Key(row, head, t, c));
          }
          wrong += SummaryAt(x.world, index, c) != max;
          wrong += SummaryAt(x.world, index, d + c) != min;
        }
      }
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("scores are the softmax of the bounds, greatest of the group") {
  const auto dtype = GENERATE(DType::kF32, DType::kBf16);
  const int32_t d = GENERATE(64, 128);
  const int32_t group = GENERATE(1, 2, 3, 5, 8);
  Indexed x(dtype, d, 16, 600, 5);
  KvGeometry& g = x.world.tables.geometry;
  g.num_q_heads = x.world.geometry.num_q_heads = g.num_kv_heads * group;
  const Elements qkv = x.RandomQkv();
  const int32_t pages = CeilDiv(x.total, 16);
  std::vector<float> scores(static_cast<size_t>(2 * 3 * g.max_pages()), -1);
  cpu::ScoreSummaries({.decode = x.step.view(),
                       .qkv = qkv.data(),
                       .layer = 1,
                       .tables = x.world.tables,
                       .scores = scores.data()},
                      x.world.pool);
  for (int32_t place = 0; place < 2; ++place) {
    for (int32_t head = 0; head < 3; ++head) {
      std::vector<double> best(static_cast<size_t>(pages), 0);
      for (int32_t h = 0; h < group; ++h) {
        std::vector<double> bound(best.size(), 0);
        double max = -1e300, sum = 0;
        for (int32_t page = 0; page < pages; ++page) {
          const int64_t index = x.world.Index(x.world.summary_dir, 1 - place, 1, head, page);
          for (int32_t c = 0; c < d; ++c) {
            const double q = qkv[place * x.Width() + int64_t{head * group + h} * d + c];
            bound[page] +=
                std::max(q * SummaryAt(x.world, index, c), q * SummaryAt(x.world, index, d + c));
          }
          bound[page] /= std::sqrt(double(d));
          max = std::max(max, bound[page]);
        }
        for (const double s : bound) sum += std::exp(s - max);
        for (int32_t page = 0; page < pages; ++page) {
          best[page] = std::max(best[page], std::exp(bound[page] - max) / sum);
        }
      }
      const float* got = scores.data() + (place * 3 + head) * g.max_pages();
      for (int32_t page = 0; page < pages; ++page) {
        CHECK(got[page] == Approx(best[page]).epsilon(1e-4).margin(1e-9));
      }
      CHECK(got[pages] == -1);  // nothing behind the last page
    }
  }
}

TEST_CASE("selection equals a stable sort, with ties, zeros of both signs and NaN") {
  KvGeometry g = testing::SmallGeometry(DType::kF32, 64, 8);
  ThreadPool pool(2);
  Random random(8);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float special[] = {0.0f,
                           -0.0f,
                           nan,
                           -nan,
                           1.0f,
                           -1.0f,
                           std::numeric_limits<float>::infinity(),
                           -std::numeric_limits<float>::infinity(),
                           0.5f,
                           1e-40f};
  for (int32_t round = 0; round < 400; ++round) {
    INFO("round " << round);
    StepRows step({3, 1, 0}, g.max_rows);
    for (int32_t& position : step.position)
      position = static_cast<int32_t>(random.Below(g.max_pages() * 8));
    std::vector<float> scores(static_cast<size_t>(3 * 3 * g.max_pages()), nan);
    for (float& s : scores) {
      s = round % 3 == 0   ? special[random.Below(10)]
          : round % 3 == 1 ? random.Uniform()
                           : 1e-3f * random.Below(20);
    }
    const int32_t fixed = static_cast<int32_t>(random.Below(4));
    const int32_t fixed_last = 1 + static_cast<int32_t>(random.Below(3));
    const int32_t divisor = round % 2 == 0 ? 0 : 4 + static_cast<int32_t>(random.Below(9));
    const auto selectable = static_cast<int32_t>(random.Below(55));
    // Row 1 has a budget of its own; row 0 has none.
    std::vector<int32_t> row_pages(static_cast<size_t>(g.max_rows));
    row_pages[1] = fixed + fixed_last + 1 + static_cast<int32_t>(random.Below(50));
    std::vector<int32_t> ids(static_cast<size_t>(9 * 64), -7), count(9);
    cpu::SelectTopK({.decode = step.view(),
                     .scores = scores.data(),
                     .geometry = g,
                     .budget = {.fixed_first = fixed,
                                .fixed_last = fixed_last,
                                .selectable = selectable,
                                .context_divisor = divisor},
                     .row_pages = round % 5 == 0 ? nullptr : row_pages.data(),
                     .ids = ids.data(),
                     .count = count.data(),
                     .max_selected = 64},
                    pool);
    for (int32_t i = 0; i < 9; ++i) {
      const int32_t last =
          step.position[static_cast<size_t>(step.rows[static_cast<size_t>(i / 3)])] / 8;
      std::vector<int32_t> want;
      const int32_t share = divisor == 0 ? 0 : (last + divisor) / divisor;  // pages / divisor, up
      const bool own = i / 3 == 1 && round % 5 != 0;
      const int32_t chosen = own ? row_pages[1] - fixed - fixed_last : std::max(selectable, share);
      const bool all = last < fixed + fixed_last + chosen;
      for (int32_t page = 0; page <= last; ++page) {
        if (page < fixed || page > last - fixed_last || all) want.push_back(page);
      }
      if (!all) {
        std::vector<int32_t> order;
        for (int32_t page = fixed; page <= last - fixed_last; ++page) order.push_back(page);
        const float* s = scores.data() + i * g.max_pages();
        std::stable_sort(order.begin(), order.end(), [s](int32_t a, int32_t b) {
          if (std::isnan(s[a]) || std::isnan(s[b])) return !std::isnan(s[a]) && std::isnan(s[b]);
          return s[a] > s[b];
        });
        want.insert(want.end(), order.begin(), order.begin() + chosen);
        std::sort(want.begin(), want.end());
      }
      REQUIRE(count[static_cast<size_t>(i)] == static_cast<int32_t>(want.size()));
      REQUIRE(std::vector<int32_t>(ids.begin() + i * 64, ids.begin() + i * 64 + count[i]) == want);
    }
  }
}

}  // namespace
}  // namespace spin
