// A decode step of RetroInfer against double precision and straight from the rule (kernels/cluster_params.h; arXiv
// 2505.02922): scores, selection under masks, estimates, and the attention that takes them together.
#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "tests/kernels/retro_world.h"

namespace spin {
namespace {

using testing::Elements;
using testing::Keys;
using testing::RetroWorld;

constexpr int32_t kLayer = RetroWorld::kLayer;
constexpr uint8_t kUnwritten = 0xa5;

// ---- Scores and selection ------------------------------------------------------------------------------------------

struct Step {
  explicit Step(RetroWorld& x, const ClusterBudget& b = {})
      : budget(b),
        streams(2 * x.geometry().num_kv_heads),
        qkv(x.MakeQkv(x.total - 1)),
        scores(static_cast<size_t>(streams * x.geometry().max_pages()), -7),
        ids(static_cast<size_t>(streams * kMaxSelected), -7),
        count(static_cast<size_t>(streams)),
        mask(static_cast<size_t>(streams * kMaxSelected), kUnwritten),
        estimate_ids(static_cast<size_t>(streams * kMaxEstimate), -7),
        estimate_count(static_cast<size_t>(streams)),
        estimate(static_cast<size_t>(2 * x.geometry().num_q_heads * (x.geometry().head_dim + 2)),
                 NAN) {
    x.IndexDecode();
  }

  void Score(RetroWorld& x) {
    cpu::ScoreSummaries({.decode = x.step.view(),
                         .qkv = qkv.data(),
                         .layer = kLayer,
                         .tables = x.world.tables,
                         .kind = SummaryKind::kClusters,
                         .reduction = GroupReduction::kSum,
                         .scores = scores.data()},
                        x.world.pool);
  }
  void Select(RetroWorld& x) {
    std::fill(mask.begin(), mask.end(), kUnwritten);
    cpu::ClusterSelect({.decode = x.step.view(),
                        .layer = kLayer,
                        .tables = x.world.tables,
                        .budget = budget,
                        .scores = scores.data(),
                        .ids = ids.data(),
                        .count = count.data(),
                        .page_mask = mask.data(),
                        .max_selected = kMaxSelected,
                        .estimate_ids = estimate_ids.data(),
                        .estimate_count = estimate_count.data(),
                        .max_estimate = kMaxEstimate},
                       x.world.pool);
  }
  void Estimate(RetroWorld& x) {
    cpu::ClusterEstimate({.decode = x.step.view(),
                          .qkv = qkv.data(),
                          .layer = kLayer,
                          .tables = x.world.tables,
                          .estimate_ids = estimate_ids.data(),
                          .estimate_count = estimate_count.data(),
                          .max_estimate = kMaxEstimate,
                          .partial = estimate.data()},
                         x.world.pool);
  }

  float* ScoresOf(const RetroWorld& x, int32_t stream) {
    return scores.data() + stream * x.geometry().max_pages();
  }
  std::vector<int32_t> Estimated(int32_t stream) const {
    const int32_t* first = estimate_ids.data() + stream * kMaxEstimate;
    return {first, first + estimate_count[static_cast<size_t>(stream)]};
  }
  double Query(const RetroWorld& x, int32_t place, int32_t q_head, int32_t c) const {
    const KvGeometry& g = x.geometry();
    return double{
        qkv[(int64_t{place} * (g.num_q_heads + 2 * g.num_kv_heads) + q_head) * g.head_dim + c]};
  }
  // Query head times a key or centroid, scaled.
  template <typename Vector>
  double Logit(const RetroWorld& x, int32_t place, int32_t q_head, const Vector& key) const {
    double sum = 0;
    for (int32_t c = 0; c < x.geometry().head_dim; ++c) {
      sum += Query(x, place, q_head, c) * double{key[static_cast<size_t>(c)]};
    }
    return sum / std::sqrt(double(x.geometry().head_dim));
  }

  static constexpr int32_t kMaxSelected = 230, kMaxEstimate = 100;
  ClusterBudget budget;
  int32_t streams;
  Elements qkv;
  std::vector<float> scores;
  std::vector<int32_t> ids, count;
  std::vector<uint8_t> mask;
  std::vector<int32_t> estimate_ids, estimate_count;
  std::vector<float> estimate;
};

int32_t Clusters(const RetroWorld& x) {
  return static_cast<int32_t>(IndexedTokens(x.total) / 16);
}

TEST_CASE(
    "scores are the softmax over the centroids, summed over the group; empty clusters have none") {
  RetroWorld::Shape shape;
  shape.dtype = GENERATE(DType::kF32, DType::kBf16);
  shape.d = GENERATE(64, 128);
  shape.group = GENERATE(1, 2, 5);
  shape.keys = GENERATE(Keys::kRandom, Keys::kThree);
  RetroWorld x(shape, 1100, 1101);
  Step s(x);
  s.Score(x);
  int32_t wrong = 0, empty = 0;
  for (int32_t stream = 0; stream < s.streams; ++stream) {
    const int32_t place = stream / shape.kv_heads, head = stream % shape.kv_heads;
    std::vector<double> want(static_cast<size_t>(Clusters(x)), 0);
    for (int32_t h = 0; h < shape.group; ++h) {
      std::vector<double> weight;
      double sum = 0;
      for (int32_t c = 0; c < Clusters(x); ++c) {
        const auto record = x.RecordOf(1 - place, head, c);
        const bool used = record.run.size > 0;
        weight.push_back(used ? std::exp(s.Logit(x, place, head * shape.group + h, record.centroid))
                              : 0);
        sum += weight.back();
      }
      for (size_t c = 0; c < want.size(); ++c) want[c] += weight[c] / sum;
    }
    for (int32_t c = 0; c < Clusters(x); ++c) {
      const double got = double{s.ScoresOf(x, stream)[c]};
      const double expected = want[static_cast<size_t>(c)];
      if (x.RecordOf(1 - place, head, c).run.size == 0) {
        wrong += got != -std::numeric_limits<double>::infinity();
        ++empty;
      } else {
        wrong += !(std::abs(got - expected) <= 1e-4 * expected + 1e-9);
      }
    }
    CHECK(s.ScoresOf(x, stream)[Clusters(x)] == -7);
  }
  CHECK(wrong == 0);
  CHECK((empty > 0) == (shape.keys == Keys::kThree));
}

// The clusters of a stream by rank, from a plain sort.
std::vector<int32_t> Ranked(const RetroWorld& x, const float* scores, int32_t row, int32_t head) {
  std::vector<int32_t> order;
  for (int32_t c = 0; c < Clusters(x); ++c) {
    if (x.RecordOf(row, head, c).run.size > 0) order.push_back(c);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return scores[a] > scores[b]; });
  return order;
}

struct Chosen {
  std::vector<uint8_t> masks;  // [pages], 0: not selected
  std::set<int32_t> exact, estimated;
};

Chosen Reference(const RetroWorld& x, const Step& s, const float* scores, int32_t row,
                 int32_t head) {
  const int32_t clusters = Clusters(x);
  const int32_t indexed = 16 * clusters;
  const std::vector<int32_t> order = Ranked(x, scores, row, head);
  Chosen chosen;
  chosen.masks.resize(static_cast<size_t>((x.total - 1) / 8 + 1));
  const auto take = [&](int32_t place) {
    chosen.masks[static_cast<size_t>(place / 8)] |= static_cast<uint8_t>(1 << (place % 8));
  };
  for (int32_t t = 0; t < x.total; ++t) {
    if (t < 8 || t >= indexed) take(t);
  }
  int32_t pages = 0;
  for (int32_t rank = 0; rank < static_cast<int32_t>(order.size()); ++rank) {
    const int32_t c = order[static_cast<size_t>(rank)];
    const ClusterRun run = x.RecordOf(row, head, c).run;
    std::set<int32_t> touched;
    for (int32_t i = 0; i < run.size; ++i) touched.insert((run.begin + i) / 8);
    const auto more = static_cast<int32_t>(touched.size());
    if (rank < s.budget.Retrieve(clusters)) {
      if (pages + more > 4 * s.budget.Retrieve(clusters)) {
        chosen.estimated.insert(c);
        continue;
      }
      pages += more;
      chosen.exact.insert(c);
      for (int32_t i = 0; i < run.size; ++i) take(run.begin + i);
    } else if (rank < s.budget.Retrieve(clusters) + s.budget.Estimate(clusters)) {
      chosen.estimated.insert(c);
    }
  }
  return chosen;
}

void CheckSelection(const RetroWorld& x, Step& s, int32_t stream) {
  const int32_t row = 1 - stream / x.shape.kv_heads, head = stream % x.shape.kv_heads;
  const Chosen want = Reference(x, s, s.ScoresOf(x, stream), row, head);
  const int32_t count = s.count[static_cast<size_t>(stream)];
  const int32_t* ids = s.ids.data() + stream * Step::kMaxSelected;
  const uint8_t* masks = s.mask.data() + stream * Step::kMaxSelected;
  std::vector<uint8_t> got(want.masks.size());
  for (int32_t i = 0; i < count; ++i) {
    REQUIRE((i == 0 || ids[i] > ids[i - 1]));
    CHECK(masks[i] != 0);
    got[static_cast<size_t>(ids[i])] = masks[i];
  }
  CHECK(got == want.masks);
  CHECK(ids[count - 1] == (x.total - 1) / 8);
  CHECK(masks[count] == kUnwritten);
  const std::vector<int32_t> estimated = s.Estimated(stream);
  CHECK(std::is_sorted(estimated.begin(), estimated.end()));
  CHECK(estimated == std::vector<int32_t>(want.estimated.begin(), want.estimated.end()));
}

constexpr ClusterBudget kBudgets[] = {
    {},
    {.retrieve_permille = 100, .estimate_permille = 0},
    {.retrieve_permille = 300, .estimate_permille = 700},
    {.retrieve_permille = 1000, .estimate_permille = 1000},
    {.retrieve_permille = 1, .estimate_permille = 1},
    {.min_retrieve = 7},
    {.retrieve_permille = 300, .min_retrieve = 7},
    {.retrieve_permille = 0, .min_retrieve = 5000},
};

TEST_CASE("the best clusters are selected within their pages, the next ones are estimated") {
  RetroWorld::Shape shape;
  shape.keys = GENERATE(Keys::kRandom, Keys::kThree, Keys::kOne);
  const int32_t total = GENERATE(1, 8, 63, 575, 576, 577, 1100, 1152);
  INFO("tokens " << total);
  RetroWorld x(shape, total > 1 ? total - 1 : 1, total);
  for (const ClusterBudget& budget : kBudgets) {
    INFO("retrieve " << budget.retrieve_permille << ", at least " << budget.min_retrieve);
    Step s(x, budget);
    s.Score(x);
    s.Select(x);
    for (int32_t stream = 0; stream < s.streams; ++stream) CheckSelection(x, s, stream);
    // Few values: many ties.
    for (int32_t stream = 0; stream < s.streams; ++stream) {
      for (int32_t c = 0; c < Clusters(x); ++c) {
        float& score = s.ScoresOf(x, stream)[c];
        if (score >= 0) score = static_cast<float>(x.random.Below(3));
      }
    }
    s.Select(x);
    for (int32_t stream = 0; stream < s.streams; ++stream) CheckSelection(x, s, stream);
  }
}

// ---- Attention -----------------------------------------------------------------------------------------------------

// What a step's attention gives a query head: selected tokens as they are, estimated clusters by their records.
std::vector<double> ReferenceOutput(const RetroWorld& x, Step& s, int32_t place, int32_t q_head,
                                    bool selected, bool estimated) {
  const int32_t d = x.geometry().head_dim;
  const int32_t row = 1 - place, head = q_head / x.shape.group;
  const int32_t stream = place * x.shape.kv_heads + head;
  std::vector<double> out(static_cast<size_t>(d), 0);
  double weights = 0;
  const auto add = [&](double weight, const auto& value) {
    weights += weight;
    for (size_t c = 0; c < out.size(); ++c) out[c] += weight * double{value[c]};
  };
  if (selected) {
    const std::vector<int32_t> tokens = x.Places(row, head, x.total);
    for (int32_t i = 0; i < s.count[static_cast<size_t>(stream)]; ++i) {
      const int32_t page = s.ids[static_cast<size_t>(stream * Step::kMaxSelected + i)];
      for (int32_t k = 0; k < 8; ++k) {
        if ((s.mask[static_cast<size_t>(stream * Step::kMaxSelected + i)] >> k & 1) == 0) continue;
        const int32_t t = tokens[static_cast<size_t>(8 * page + k)];
        add(std::exp(s.Logit(x, place, q_head, x.Key(row, head, t))), x.Value(row, head, t));
      }
    }
  }
  if (estimated) {
    for (const int32_t c : s.Estimated(stream)) {
      const auto record = x.RecordOf(row, head, c);
      add(record.run.size * std::exp(s.Logit(x, place, q_head, record.centroid)), record.mean);
    }
  }
  for (double& value : out) value /= weights;
  return out;
}

// Largest error beyond the first two elements, which name the token.
template <typename Got>
double Error(const Got& got, const std::vector<double>& want) {
  double error = 0;
  for (size_t c = 2; c < want.size(); ++c) {
    const double e = std::abs(double{got(c)} - want[c]);
    if (!(e <= error)) error = e;
  }
  return error;
}

TEST_CASE("an estimate is attention to means, each as many times as it has tokens") {
  RetroWorld::Shape shape;
  shape.dtype = GENERATE(DType::kF32, DType::kBf16);
  shape.d = GENERATE(64, 128);
  shape.keys = GENERATE(Keys::kRandom, Keys::kThree);
  const int32_t total = GENERATE(300, 1100);
  RetroWorld x(shape, total - 1, total);
  Step s(x, {.retrieve_permille = 50, .estimate_permille = 400});
  s.Score(x);
  s.Select(x);
  s.Estimate(x);
  const int32_t d = shape.d;
  for (int32_t place = 0; place < 2; ++place) {
    for (int32_t q_head = 0; q_head < x.geometry().num_q_heads; ++q_head) {
      const float* got = s.estimate.data() + (place * x.geometry().num_q_heads + q_head) * (d + 2);
      if (total == 300) {
        CHECK((got[0] == 0 && got[d] == -INFINITY && got[d + 1] == 0));
        continue;
      }
      double top = -INFINITY, sum = 0;
      const int32_t head = q_head / shape.group;
      const auto estimated = s.Estimated(place * shape.kv_heads + head);
      REQUIRE_FALSE(estimated.empty());
      for (const int32_t c : estimated) {
        const auto record = x.RecordOf(1 - place, head, c);
        const double logit = s.Logit(x, place, q_head, record.centroid);
        top = std::max(top, logit);
        sum += record.run.size * std::exp(logit);
      }
      CHECK(double{got[d]} == Approx(top).margin(1e-5));
      CHECK(double{got[d + 1]} == Approx(sum / std::exp(top)).epsilon(1e-4));
      const auto want = ReferenceOutput(x, s, place, q_head, false, true);
      CHECK(Error([&](size_t c) { return got[c] / got[d + 1]; }, want) < 1e-4);
    }
  }
}

struct Lists {
  explicit Lists(const RetroWorld& x, const Step& s)
      : list(static_cast<size_t>(s.streams * Step::kMaxSelected)),
        len(static_cast<size_t>(s.streams)),
        dst(list.size()),
        copies(len.size()),
        ready(len.size()),
        src(list.size()),
        mask(list.size(), kUnwritten),
        partial(s.estimate.size(), NAN),
        out(x.shape.dtype, int64_t{2} * x.geometry().num_q_heads * x.shape.d) {}
  std::vector<int32_t> list, len, dst, copies, ready;
  std::vector<int64_t> src;
  std::vector<uint8_t> mask;
  std::vector<float> partial;
  Elements out;
  std::vector<RetrieveCounters> counters = std::vector<RetrieveCounters>(8);  // a row
};

// Retrieve, Append and Attention, in one piece or two.
void Attend(RetroWorld& x, const Step& s, bool halves, bool estimated, Lists& l) {
  const DecodeRows decode = x.step.view();
  const KvTables& tables = x.world.tables;
  cpu::Lookup({.decode = decode,
               .ids = s.ids.data(),
               .count = s.count.data(),
               .max_selected = Step::kMaxSelected,
               .layer = kLayer,
               .tables = tables,
               .page_list = l.list.data(),
               .list_len = l.len.data(),
               .max_list = Step::kMaxSelected,
               .copy_src = l.src.data(),
               .copy_dst = l.dst.data(),
               .copy_len = l.copies.data(),
               .ready_tokens = halves ? l.ready.data() : nullptr,
               .page_mask = s.mask.data(),
               .list_mask = l.mask.data(),
               .counters = l.counters.data()},
              x.world.pool);
  cpu::AppendKv({.decode = decode, .qkv = s.qkv.data(), .layer = kLayer, .tables = tables},
                x.world.pool);
  cpu::GatherPages({.decode = decode,
                    .tables = tables,
                    .copy_src = l.src.data(),
                    .copy_dst = l.dst.data(),
                    .copy_len = l.copies.data(),
                    .max_list = Step::kMaxSelected},
                   x.world.pool);
  const auto attend = [&](ListPart part) {
    cpu::PagedAttention({.decode = decode,
                         .qkv = s.qkv.data(),
                         .tables = tables,
                         .page_list = l.list.data(),
                         .list_len = l.len.data(),
                         .max_list = Step::kMaxSelected,
                         .part = part,
                         .ready_tokens = l.ready.data(),
                         .partial = l.partial.data(),
                         .page_mask = l.mask.data(),
                         .estimate = estimated ? s.estimate.data() : nullptr,
                         .out = l.out.data()},
                        x.world.pool);
  };
  if (!halves) return attend(ListPart::kAll);
  attend(ListPart::kReady);
  attend(ListPart::kFetched);
}

TEST_CASE("a step attends to what the masks leave, and the estimate is merged with it") {
  RetroWorld::Shape shape;
  shape.dtype = GENERATE(DType::kF32, DType::kBf16);
  shape.d = GENERATE(64, 128);
  shape.group = GENERATE(1, 3);
  shape.slots = 180;
  const bool halves = GENERATE(false, true);
  const int32_t total = GENERATE(300, 577, 1100);
  INFO((halves ? "in halves, " : "at once, ") << total << " tokens");
  testing::ForEachIsa([&](cpu::Isa) {
    RetroWorld x(shape, total - 1, total);
    for (const int32_t page : {3, 20, 21, 40, (total - 1) / 8}) {
      testing::EvictPage(x.world, 1, kLayer, page);
    }
    Step s(x, {.retrieve_permille = 150, .estimate_permille = 400});
    s.Score(x);
    s.Select(x);
    s.Estimate(x);
    Lists l(x, s);
    Attend(x, s, halves, true, l);
    CHECK(l.counters[0].hits + l.counters[1].hits > 0);
    const double tolerance = shape.dtype == DType::kF32 ? 2e-5 : 1e-2;
    for (int32_t place = 0; place < 2; ++place) {
      for (int32_t q_head = 0; q_head < x.geometry().num_q_heads; ++q_head) {
        const auto want = ReferenceOutput(x, s, place, q_head, true, true);
        const int64_t at = int64_t{place * x.geometry().num_q_heads + q_head} * shape.d;
        CHECK(Error([&](size_t c) { return l.out[at + static_cast<int64_t>(c)]; }, want) <
              tolerance);
      }
    }
  });
}

TEST_CASE("masks of whole pages and an estimate of nothing change no bit") {
  RetroWorld::Shape shape;
  shape.dtype = GENERATE(DType::kF32, DType::kBf16);
  const int32_t total = GENERATE(5, 16, 300);
  testing::ForEachIsa([&](cpu::Isa) {
    RetroWorld x(shape, total > 1 ? total - 1 : 1, total);
    Step s(x);
    s.Select(x);
    s.Estimate(x);
    Lists masked(x, s);
    Attend(x, s, false, true, masked);
    Elements plain(shape.dtype, masked.out.size());
    cpu::PagedAttention({.decode = x.step.view(),
                         .qkv = s.qkv.data(),
                         .tables = x.world.tables,
                         .page_list = masked.list.data(),
                         .list_len = masked.len.data(),
                         .max_list = Step::kMaxSelected,
                         .out = plain.data()},
                        x.world.pool);
    CHECK(plain == masked.out);
  });
}

}  // namespace
}  // namespace spin
