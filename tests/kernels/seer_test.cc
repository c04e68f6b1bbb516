// SeerAttention-R against double precision: summaries of prefill and of decode wherever the page is, scores, selection.
#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "tests/kernels/seer_world.h"

namespace spin {
namespace {

using testing::Elements;
using testing::SeerWorld;

constexpr int32_t kLayer = SeerWorld::kLayer;

// What rounding may cost, against the largest element.
double ToleranceOf(DType dtype) {
  return dtype == DType::kF32 ? 1e-5 : 2e-2;
}

// `prompt` tokens by prefill, the others up to `total` by decode steps; now and then the tail is on the host alone.
void Run(SeerWorld& x, int32_t prompt, int32_t total) {
  const int32_t page_tokens = x.world.geometry.page_tokens;
  Elements staging = x.MakeStaging(prompt);
  const Staging area = {staging.data(), x.staging_pages};
  cpu::SeerIndexPrefill(x.PrefillParams(area), x.world.pool);
  cpu::Offload({.slices = x.slices.data(),
                .num_slices = SeerWorld::kRows,
                .layer = kLayer,
                .tables = x.world.tables,
                .staging = area},
               x.world.pool);
  for (int32_t t = prompt; t < total; ++t) {
    const Elements qkv = x.MakeQkv(t);
    if (t / page_tokens % 2 == 0 && t % page_tokens != 0)
      testing::EvictPage(x.world, 1, x.kLayer, t / page_tokens);
    cpu::SeerIndexDecode(x.DecodeParams(qkv), x.world.pool);
    testing::AppendToken(x.world, x.step, qkv, x.kLayer);
  }
}

TEST_CASE("a complete page's summary is the gate's view of its keys, in prefill and in decode") {
  const auto dtype = GENERATE(DType::kF32, DType::kBf16);
  const int32_t d = GENERATE(64, 128);
  const int32_t page_tokens = GENERATE(16, 32, 64);
  const bool with_norm = GENERATE(true, false);
  const int32_t prompt = 2 * page_tokens + 5, total = 5 * page_tokens - 3;
  SeerWorld x(dtype, d, page_tokens, 2, with_norm, total);
  Run(x, prompt, total);
  for (int32_t row = 0; row < SeerWorld::kRows; ++row) {
    for (int32_t head = 0; head < x.world.geometry.num_kv_heads; ++head) {
      for (int32_t page = 0; page < 4; ++page) {
        INFO("row " << row << ", head " << head << ", page " << page);
        CHECK(testing::RelativeError(x.Summary(row, head, page),
                                     x.ReferenceSummary(row, head, page)) < ToleranceOf(dtype));
      }
      CHECK(std::isnan(x.Summary(row, head, 4)[0]));  // incomplete: nobody wrote it
    }
  }
}

TEST_CASE("prefill and decode give a page the same bits") {
  const auto dtype = GENERATE(DType::kF32, DType::kBf16);
  const int32_t total = 4 * 32 + 1;
  SeerWorld prefilled(dtype, 64, 32, 2, true, total), decoded(dtype, 64, 32, 2, true, total);
  Run(prefilled, total, total);
  Run(decoded, 5, total);
  for (int32_t row = 0; row < SeerWorld::kRows; ++row) {
    for (int32_t head = 0; head < 3; ++head) {
      for (int32_t page = 0; page < 4; ++page) {
        CHECK(prefilled.Summary(row, head, page) == decoded.Summary(row, head, page));
      }
    }
  }
}

// Scores and selection of both rows' step at `t`, and the definition's scores.
struct Selected {
  Selected(SeerWorld& x, int32_t t, const PageBudget& budget, double threshold = 0)
      : stride(x.world.geometry.max_pages()) {
    const KvGeometry& g = x.world.geometry;
    const size_t streams = static_cast<size_t>(SeerWorld::kRows * g.num_kv_heads);
    scores.assign(streams * static_cast<size_t>(stride), -777);
    ids.resize(streams * 64);
    count.resize(streams);
    const Elements qkv = x.MakeQkv(t);
    cpu::SeerScore({.decode = x.step.view(),
                    .qkv = qkv.data(),
                    .layer = kLayer,
                    .tables = x.world.tables,
                    .gate = x.gate.view(),
                    .rope_table = x.rotation.table().data(),
                    .scores = scores.data()},
                   x.world.pool);
    cpu::SelectTopK({.decode = x.step.view(),
                     .scores = scores.data(),
                     .geometry = g,
                     .budget = budget,
                     .ids = ids.data(),
                     .count = count.data(),
                     .max_selected = 64,
                     .threshold = threshold,
                     .counters = counters},
                    x.world.pool);
    for (int32_t place = 0; place < SeerWorld::kRows; ++place) {
      for (int32_t head = 0; head < g.num_kv_heads; ++head) {
        const std::vector<double> qg = x.ReferenceQuery(1 - place, head, t);
        reference.emplace_back();
        for (int32_t page = 0; page < t / g.page_tokens; ++page) {
          const std::vector<double> kg = x.ReferenceSummary(1 - place, head, page);
          double dot = 0;
          for (size_t c = 0; c < kg.size(); ++c) dot += qg[c] * kg[c];
          reference.back().push_back(dot / std::sqrt(double(g.head_dim)));
        }
      }
    }
  }

  int32_t stride;
  std::vector<float> scores;
  std::vector<int32_t> ids, count;
  RetrieveCounters counters[SeerWorld::kRows];  // a row
  std::vector<std::vector<double>> reference;
};

TEST_CASE("scores are the gate's logits of the pages before the query's own") {
  const auto dtype = GENERATE(DType::kF32, DType::kBf16);
  const int32_t group = GENERATE(1, 3, 8);
  const bool with_norm = GENERATE(true, false);
  const int32_t last = GENERATE(5 * 16, 5 * 16 + 7, 6 * 16 - 1);  // opens, is in, completes a page
  SeerWorld x(dtype, 64, 16, group, with_norm, last + 1);
  Run(x, last, last);
  const Selected got(x, last, {.fixed_first = 1, .selectable = 2});
  for (size_t stream = 0; stream < got.reference.size(); ++stream) {
    const float* scores = got.scores.data() + static_cast<int64_t>(stream) * got.stride;
    CHECK(testing::RelativeError(scores, got.reference[stream]) < ToleranceOf(dtype));
    CHECK(scores[5] == -777);
  }
}

TEST_CASE("a step selects the first page, its own, and the best of the complete ones between") {
  const int32_t last = 40 * 16 + 3, selectable = 6;
  SeerWorld x(DType::kF32, 64, 16, 4, true, last + 1);
  Run(x, last, last);
  const Selected got(x, last, {.fixed_first = 1, .selectable = selectable});
  for (size_t stream = 0; stream < got.reference.size(); ++stream) {
    std::set<int32_t> want = {0, 40};
    std::vector<int32_t> order;
    for (int32_t page = 1; page < 40; ++page) order.push_back(page);
    std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
      return got.reference[stream][a] > got.reference[stream][b];
    });
    want.insert(order.begin(), order.begin() + selectable);
    const auto* ids = got.ids.data() + stream * 64;
    CHECK(std::vector<int32_t>(ids, ids + got.count[stream]) ==
          std::vector<int32_t>(want.begin(), want.end()));
  }
}

TEST_CASE("with a threshold the blocks of a higher probability are taken, within the budget") {
  constexpr int32_t kSelectable = 6, kLast = 40 * 16 + 3;
  SeerWorld x(DType::kF32, 64, 16, 4, true, kLast + 1);
  Run(x, kLast, kLast);
  int32_t by_threshold = 0, by_budget = 0, near = 0;
  for (const double threshold : {1e-5, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 1.0}) {
    INFO("threshold " << threshold);
    const Selected got(x, kLast, {.fixed_first = 1, .selectable = kSelectable}, threshold);
    int32_t spared[SeerWorld::kRows] = {};
    for (size_t stream = 0; stream < got.reference.size(); ++stream) {
      const std::vector<double>& logits = got.reference[stream];
      double sum = 0;
      for (const double logit : logits) sum += std::exp(logit);
      std::vector<std::pair<double, int32_t>> order;  // of the 39 that are not fixed
      for (int32_t page = 1; page < 40; ++page) {
        order.emplace_back(-std::exp(logits[static_cast<size_t>(page)]) / sum, page);
        near += std::abs(order.back().first + threshold) < 2e-4 * threshold;  // rounding decides
      }
      std::sort(order.begin(), order.end());
      std::set<int32_t> want = {0, 40};
      for (int32_t i = 0; i < kSelectable && -order[i].first > threshold; ++i) {
        want.insert(order[i].second);
      }
      const int32_t* ids = got.ids.data() + stream * 64;
      CHECK(std::vector<int32_t>(ids, ids + got.count[stream]) ==
            std::vector<int32_t>(want.begin(), want.end()));
      const auto left = kSelectable + 2 - static_cast<int32_t>(want.size());
      spared[1 - static_cast<int32_t>(stream) / x.world.geometry.num_kv_heads] += left;
      ++(left > 0 ? by_threshold : by_budget);
    }
    for (int32_t row = 0; row < SeerWorld::kRows; ++row) {
      CHECK(got.counters[row] == RetrieveCounters{.spared = static_cast<uint64_t>(spared[row])});
    }
  }
  REQUIRE(near == 0);
  CHECK(by_threshold > 5);
  CHECK(by_budget > 5);
}

TEST_CASE("with a threshold a context within the budget is still attended to as a whole") {
  SeerWorld x(DType::kF32, 64, 16, 4, true, 8 * 16);
  Run(x, 8 * 16 - 1, 8 * 16 - 1);
  const Selected got(x, 8 * 16 - 1, {.fixed_first = 1, .selectable = 6}, 1);
  for (const int32_t count : got.count) CHECK(count == 8);
  CHECK(got.counters[0].spared + got.counters[1].spared == 0);
}

TEST_CASE("a sequence in its first page has nothing to score") {
  SeerWorld x(DType::kF32, 64, 32, 2, true, 8);
  Run(x, 7, 7);
  const Selected got(x, 7, {.fixed_first = 1, .selectable = 4});
  for (const float score : got.scores) REQUIRE(score == -777);
  for (size_t stream = 0; stream < got.count.size(); ++stream) {
    CHECK(got.count[stream] == 1);
    CHECK(got.ids[stream * 64] == 0);
  }
}

}  // namespace
}  // namespace spin
