// RetroInfer's attention on the GPU: clusters by their records, pages under masks, and one softmax over both.
#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/twin/twin_testing.h"

namespace spin {
namespace {

using testing::Elements;
using testing::ElementsOnDevice;
using testing::Gpu;
using testing::OnDevice;
using testing::RowsOnDevice;
using testing::StepRows;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Heads {
  int32_t q, kv, d;
};

KvGeometry Geometry(Heads heads, DType dtype, int32_t max_rows, int32_t max_extents) {
  return {.num_layers = 1,
          .num_kv_heads = heads.kv,
          .num_q_heads = heads.q,
          .head_dim = heads.d,
          .page_tokens = kClusterPageTokens,
          .max_rows = max_rows,
          .max_extents = max_extents,
          .summary_elements = 2 * heads.d + kClusterTailElements,
          .partition_tokens = kClusterTokens,
          .dtype = dtype};
}

// Softmax attention of one query head, in double: keys or clusters one by one.
struct Softmax {
  // x: key, then value; it stands for `tokens` tokens.
  void Add(const Elements& q, int64_t at, const Elements& x, int64_t key, int64_t value, int32_t d,
           double tokens) {
    double dot = 0;
    for (int32_t c = 0; c < d; ++c) dot += double{q[at + c]} * double{x[key + c]};
    logits.push_back(dot / std::sqrt(double(d)));
    counts.push_back(tokens);
    for (int32_t c = 0; c < d; ++c) values.push_back(double{x[value + c]});
  }
  double Max() const { return *std::max_element(logits.begin(), logits.end()); }
  // Weighted sum [d] and sum of weights, relative to Max().
  std::vector<double> Sums(int32_t d) const {
    std::vector<double> sums(static_cast<size_t>(d) + 1, 0);
    const double max = Max();
    for (size_t i = 0; i < logits.size(); ++i) {
      const double weight = counts[i] * std::exp(logits[i] - max);
      for (size_t c = 0; c < static_cast<size_t>(d); ++c) {
        sums[c] += weight * values[i * static_cast<size_t>(d) + c];
      }
      sums.back() += weight;
    }
    return sums;
  }
  std::vector<double> logits, counts, values;
};

// ---- Estimate ----------------------------------------------------------------------------------------------------

// Records of all clusters of some rows, and for each stream a list of some of them.
struct EstimateWorld {
  EstimateWorld(Heads heads, DType dtype, int32_t max_extents, std::vector<int32_t> counts)
      : g(Geometry(heads, dtype, static_cast<int32_t>(counts.size()), max_extents)),
        step(Iota(g.max_rows), g.max_rows),
        directory(Iota(g.max_rows * g.max_extents)),
        placement(static_cast<size_t>(g.max_rows), static_cast<int32_t>(Placement::kResident)),
        max_estimate(max_extents * 32 + 3) {
    Random random(61);
    for (size_t i = directory.size(); i > 1; --i) {
      std::swap(directory[i - 1], directory[random.Below(static_cast<uint32_t>(i))]);
    }
    summaries = Elements(
        dtype, g.max_rows * int64_t{max_extents} * g.num_kv_heads * 32 * g.summary_elements);
    summaries.Randomize(random, 2);
    auto* bytes = static_cast<char*>(summaries.data());
    for (int64_t at = 0; at < summaries.size(); at += g.summary_elements) {
      const ClusterRun run = {8,
                              1 + static_cast<int32_t>(random.Below(random.Below(9) ? 30 : 900))};
      std::memcpy(bytes + (at + 2 * g.head_dim) * SizeOf(dtype), &run, sizeof(run));
    }
    qkv = Elements(dtype, g.max_rows * int64_t{heads.q + 2 * heads.kv} * heads.d);
    qkv.Randomize(random, 2);
    ids.assign(static_cast<size_t>(g.max_rows * g.num_kv_heads * max_estimate), 1 << 30);
    for (int32_t stream = 0; stream < g.max_rows * g.num_kv_heads; ++stream) {
      const int32_t wanted = counts[static_cast<size_t>(stream / g.num_kv_heads)];
      int32_t n = 0;
      for (int32_t c = 0; c < max_extents * 32 && n < wanted; ++c) {
        const auto left = static_cast<uint32_t>(max_extents * 32 - c);
        if (static_cast<int32_t>(random.Below(left)) >= wanted - n) continue;
        ids[static_cast<size_t>(stream * max_estimate + n++)] = c;
      }
      count.push_back(n);
    }
  }
  static std::vector<int32_t> Iota(int32_t n) {
    std::vector<int32_t> v(static_cast<size_t>(n));
    std::iota(v.begin(), v.end(), 0);
    return v;
  }

  // partial [bucket][Hq][d + 2]; -9 where nothing was written.
  std::vector<float> OnGpu(int32_t bucket) {
    std::vector<int32_t> padded = count;
    padded.resize(static_cast<size_t>(bucket * g.num_kv_heads), 1 << 30);
    const OnDevice<int32_t> gpu_directory(directory), gpu_placement(placement), gpu_ids(ids);
    const OnDevice<int32_t> gpu_count(padded);
    const ElementsOnDevice gpu_summaries(summaries), gpu_qkv(qkv);
    const RowsOnDevice rows(step, bucket);
    const OnDevice<float> partial(
        std::vector<float>(static_cast<size_t>(bucket) * g.num_q_heads * (g.head_dim + 2), -9));
    KvTables tables = {.geometry = g};
    tables.summary_dir = gpu_directory.data();
    tables.placement = gpu_placement.data();
    tables.summaries = gpu_summaries.data();
    const ClusterEstimateParams p = {.decode = rows.view(),
                                     .qkv = gpu_qkv.data(),
                                     .tables = tables,
                                     .estimate_ids = gpu_ids.data(),
                                     .estimate_count = gpu_count.data(),
                                     .max_estimate = max_estimate,
                                     .partial = partial.data()};
    Gpu::Get().ops().ClusterEstimate(p, Gpu::Get().stream());
    const std::vector<float> once = partial.Read();
    // Again: what the first call left in scratch must not reach the second.
    Gpu::Get().ops().ClusterEstimate(p, Gpu::Get().stream());
    std::vector<float> twice = partial.Read();
    CHECK((once == twice));
    return twice;
  }
  std::vector<float> OnCpu() {
    std::vector<float> partial(static_cast<size_t>(g.max_rows) * g.num_q_heads * (g.head_dim + 2));
    KvTables tables = {.geometry = g};
    tables.summary_dir = directory.data();
    tables.placement = placement.data();
    tables.summaries = summaries.data();
    ThreadPool pool(2);
    cpu::ClusterEstimate({.decode = step.view(),
                          .qkv = qkv.data(),
                          .tables = tables,
                          .estimate_ids = ids.data(),
                          .estimate_count = count.data(),
                          .max_estimate = max_estimate,
                          .partial = partial.data()},
                         pool);
    return partial;
  }

  Softmax Reference(int32_t place, int32_t q_head) const {
    const int32_t head = q_head / g.group(), stream = place * g.num_kv_heads + head;
    const int64_t width = int64_t{g.num_q_heads + 2 * g.num_kv_heads} * g.head_dim;
    Softmax all;
    for (int32_t i = 0; i < count[static_cast<size_t>(stream)]; ++i) {
      const int32_t c = ids[static_cast<size_t>(stream * max_estimate + i)];
      const int32_t extent = directory[static_cast<size_t>(g.DirIndex(place, 0, c / 32))];
      const int64_t at = g.SummaryIndex(extent, head, c % 32) * g.summary_elements;
      int32_t words[2];
      std::memcpy(
          words,
          static_cast<const char*>(summaries.data()) + (at + 2 * g.head_dim) * SizeOf(g.dtype),
          sizeof(words));
      all.Add(qkv, place * width + int64_t{q_head} * g.head_dim, summaries, at, at + g.head_dim,
              g.head_dim, words[1]);
    }
    return all;
  }

  KvGeometry g;
  StepRows step;
  std::vector<int32_t> directory, placement, ids, count;
  int32_t max_estimate;
  Elements summaries{DType::kF32, 0}, qkv{DType::kF32, 0};
};

// The worst error of sum / weight, relative to the largest.
double OutputError(const float* partial, const std::vector<double>& sums) {
  const size_t d = sums.size() - 1;
  std::vector<double> got, want;
  for (size_t c = 0; c < d; ++c) {
    got.push_back(double{partial[c]} / double{partial[d + 1]});
    want.push_back(sums[c] / sums[d]);
  }
  return testing::RelativeError(got, want);
}

void CheckEstimate(EstimateWorld& w, int32_t bucket) {
  const KvGeometry& g = w.g;
  const auto d = static_cast<size_t>(g.head_dim);
  const std::vector<float> gpu = w.OnGpu(bucket), cpu = w.OnCpu();
  const bool f32 = g.dtype == DType::kF32;
  double gpu_error = 0, cpu_error = 0;
  for (int32_t i = 0; i < bucket * g.num_q_heads; ++i) {
    const float* got = gpu.data() + static_cast<size_t>(i) * (d + 2);
    if (i >= g.max_rows * g.num_q_heads) {
      REQUIRE(std::all_of(got, got + d + 2, [](float x) { return x == -9; }));
      continue;
    }
    const int32_t place = i / g.num_q_heads, q_head = i % g.num_q_heads;
    if (w.count[static_cast<size_t>(place * g.num_kv_heads + q_head / g.group())] == 0) {
      REQUIRE(std::all_of(got, got + d, [](float x) { return x == 0; }));
      REQUIRE((got[d] == -INFINITY && got[d + 1] == 0));
      continue;
    }
    const Softmax reference = w.Reference(place, q_head);
    const std::vector<double> sums = reference.Sums(g.head_dim);
    CHECK(double{got[d]} == Approx(reference.Max()).margin(1e-4));
    CHECK(double{got[d + 1]} == Approx(sums[d]).epsilon(f32 ? 1e-4 : 5e-3));
    gpu_error = std::max(gpu_error, OutputError(got, sums));
    cpu_error =
        std::max(cpu_error, OutputError(cpu.data() + static_cast<size_t>(i) * (d + 2), sums));
  }
  CHECK(gpu_error <= std::max(2 * cpu_error, f32 ? 1e-5 : 5e-3));
}

TEST_CASE("estimates equal float64, for lists of every length", "[small]") {
  const auto dtype = GENERATE(DType::kF32, DType::kBf16);
  const Heads heads = GENERATE(Heads{8, 2, 128}, Heads{3, 3, 64}, Heads{16, 2, 128},
                               Heads{10, 2, 64}, Heads{2, 1, 64});
  EstimateWorld w(heads, dtype, 9, {0, 1, 15, 16, 17, 63, 64, 65, 128, 257, 288});
  CheckEstimate(w, 11);
  CheckEstimate(w, 40);
}

TEST_CASE("estimates of one sequence and of many, Qwen3-8B's heads") {
  EstimateWorld one({32, 8, 128}, DType::kBf16, 64, {475});
  CheckEstimate(one, 1);
  EstimateWorld many({32, 8, 128}, DType::kBf16, 16, {119, 0, 100, 512, 119, 30, 119, 119, 7});
  CheckEstimate(many, 9);
}

// ---- Pages under masks -------------------------------------------------------------------------------------------

// What of a MaskWorld's lists a test chooses.
struct Lists {
  bool halves = false;  // a third of the pages are late, and the tail of every other stream
  bool whole = false;   // masks take nothing away
};

// Places with lists of so many pages under masks, and an estimate each. NaN in every token that is not attended to.
struct MaskWorld {
  MaskWorld(Heads heads, DType dtype, std::vector<int32_t> pages, Lists lists)
      : in_halves(lists.halves),
        g(Geometry(heads, dtype, static_cast<int32_t>(pages.size()), 1)),
        step(EstimateWorld::Iota(g.max_rows), g.max_rows) {
    Random random(71);
    max_list = *std::max_element(pages.begin(), pages.end()) + 2;
    const int32_t streams = g.max_rows * g.num_kv_heads;
    const int32_t pool = streams * max_list;
    std::vector<int32_t> free = EstimateWorld::Iota(pool);
    for (size_t i = free.size(); i > 1; --i) {
      std::swap(free[i - 1], free[random.Below(static_cast<uint32_t>(i))]);
    }
    slots = testing::Poisoned(dtype, pool * g.page_elements());
    qkv = Elements(dtype, g.max_rows * Width());
    qkv.Randomize(random, 2);
    list.assign(static_cast<size_t>(pool), 1 << 30);
    mask.assign(static_cast<size_t>(pool), 0);
    for (int32_t stream = 0; stream < streams; ++stream) {
      const int32_t place = stream / g.num_kv_heads;
      const int32_t n = pages[static_cast<size_t>(place)];
      const int32_t in_tail = 1 + place * 3 % 8;
      step.position[static_cast<size_t>(place)] = 8 * 1000 + in_tail - 1;
      // Late pages come last; a single page is late or not.
      const int32_t late = !lists.halves ? 0 : n == 1 ? stream % 2 : n / 3;
      list_len.push_back(n);
      const bool tail_late = late > 0 && stream % 2 == 1;
      const int32_t tail = tail_late || late == 0 ? n - 1 : n - late - 1;
      ready.push_back(8 * (n - late) - (tail < n - late ? 8 - in_tail : 0));
      for (int32_t i = 0; i < n; ++i) {
        const auto at = static_cast<size_t>(stream * max_list + i);
        list[at] = free.back();
        free.pop_back();
        const int32_t valid = i == tail ? in_tail : 8;
        uint32_t bits = lists.whole || i == tail ? 0xff : 1 + random.Below(255);
        bits &= 0xffu >> (8 - valid);
        mask[at] = static_cast<uint8_t>(bits);
        Fill(list[at], bits, random);
      }
    }
    estimate = testing::RandomFloats(random, int64_t{g.max_rows} * heads.q * (heads.d + 2), 3);
    for (size_t i = 0; i < estimate.size(); i += static_cast<size_t>(heads.d + 2)) {
      const bool none = i / static_cast<size_t>(heads.d + 2) % 5 == 3;
      float* of_head = estimate.data() + i;
      of_head[heads.d + 1] = none ? 0 : 1 + 50 * random.Uniform();
      for (int32_t c = 0; c < heads.d; ++c) of_head[c] *= none ? 0 : of_head[heads.d + 1];
      if (none) of_head[heads.d] = -INFINITY;
    }
  }

  void Fill(int32_t page, uint32_t bits, Random& random) {
    for (int32_t t = 0; t < 8; ++t) {
      if ((bits >> t & 1) == 0) continue;
      for (int32_t c = 0; c < g.head_dim; ++c) {
        const int64_t base = page * g.page_elements();
        slots.Set(base + g.KeyOffset(t) + c, 4 * random.Uniform() - 2);
        slots.Set(base + g.ValueOffset(t) + c, 4 * random.Uniform() - 2);
      }
    }
  }
  int64_t Width() const { return int64_t{g.num_q_heads + 2 * g.num_kv_heads} * g.head_dim; }

  Elements OnGpu(bool masked, bool estimated) {
    Elements before(g.dtype, int64_t{g.max_rows} * g.num_q_heads * g.head_dim);
    before.Fill(-9);
    const ElementsOnDevice gpu_slots(slots), gpu_qkv(qkv), out(before);
    const OnDevice<int32_t> gpu_list(list), gpu_len(list_len), gpu_ready(ready);
    const OnDevice<uint8_t> gpu_mask(mask);
    const OnDevice<float> gpu_estimate(estimate);
    const RowsOnDevice rows(step, g.max_rows);
    PagedAttentionParams p;
    p.decode = rows.view();
    p.qkv = gpu_qkv.data();
    p.tables.geometry = g;
    p.tables.slots = gpu_slots.data();
    p.page_list = gpu_list.data();
    p.list_len = gpu_len.data();
    p.max_list = max_list;
    p.ready_tokens = gpu_ready.data();
    p.page_mask = masked ? gpu_mask.data() : nullptr;
    p.estimate = estimated ? gpu_estimate.data() : nullptr;
    p.out = out.data();
    if (in_halves) {
      p.part = ListPart::kReady;
      Gpu::Get().ops().PagedAttention(p, Gpu::Get().stream());
      p.part = ListPart::kFetched;
    }
    Gpu::Get().ops().PagedAttention(p, Gpu::Get().stream());
    Gpu::Get().Finish();
    return out.Read();
  }

  std::vector<double> Reference(bool estimated) const {
    std::vector<double> out;
    const int32_t d = g.head_dim;
    for (int32_t i = 0; i < g.max_rows * g.num_q_heads; ++i) {
      const int32_t place = i / g.num_q_heads, q_head = i % g.num_q_heads;
      const int32_t stream = place * g.num_kv_heads + q_head / g.group();
      Softmax all;
      for (int32_t k = 0; k < 8 * list_len[static_cast<size_t>(stream)]; ++k) {
        const auto at = static_cast<size_t>(stream * max_list + k / 8);
        if ((mask[at] >> k % 8 & 1) == 0) continue;
        const int64_t page = list[at] * g.page_elements();
        all.Add(qkv, place * Width() + int64_t{q_head} * d, slots, page + g.KeyOffset(k % 8),
                page + g.ValueOffset(k % 8), d, 1);
      }
      std::vector<double> sums = all.Sums(d);
      if (estimated) {
        const float* of_head = estimate.data() + static_cast<size_t>(i) * (d + 2);
        const double share = std::exp(double{of_head[d]} - all.Max());
        for (int32_t c = 0; c < d; ++c) {
          sums[static_cast<size_t>(c)] += share * double{of_head[c]};
        }
        sums.back() += share * double{of_head[d + 1]};
      }
      for (int32_t c = 0; c < d; ++c) out.push_back(sums[static_cast<size_t>(c)] / sums.back());
    }
    return out;
  }

  const bool in_halves;
  KvGeometry g;
  StepRows step;
  int32_t max_list = 0;
  Elements slots{DType::kF32, 0}, qkv{DType::kF32, 0};
  std::vector<int32_t> list, list_len, ready;
  std::vector<uint8_t> mask;
  std::vector<float> estimate;
};

TEST_CASE("attention under masks, with an estimate, whole or in halves, equals float64") {
  const auto dtype = GENERATE(DType::kF32, DType::kBf16);
  const Heads heads = GENERATE(Heads{8, 2, 128}, Heads{3, 3, 64}, Heads{10, 2, 64});
  const bool halves = GENERATE(false, true);
  // From one page to several parts of several rounds.
  MaskWorld w(heads, dtype, {1, 2, 3, 16, 17, 33, 250, 1900}, {.halves = halves});
  for (const bool estimated : {false, true}) {
    INFO("estimate " << estimated << ", halves " << halves);
    const double error = testing::RelativeError(w.OnGpu(true, estimated), w.Reference(estimated));
    CHECK(error <= (dtype == DType::kF32 ? 1e-5 : 1e-2));
  }
}

TEST_CASE("masks that take nothing away change no bit; an estimate needs no masks", "[small]") {
  const auto dtype = GENERATE(DType::kF32, DType::kBf16);
  const bool halves = GENERATE(false, true);
  MaskWorld w({8, 2, 128}, dtype, {1, 2, 17, 250, 1900}, {.halves = halves, .whole = true});
  CHECK((w.OnGpu(true, false) == w.OnGpu(false, false)));
  CHECK((w.OnGpu(true, true) == w.OnGpu(false, true)));
}

TEST_CASE("masks and estimates of more places than one launch takes") {
  MaskWorld w({64, 8, 128}, DType::kBf16, std::vector<int32_t>(1100, 1), {});
  CHECK(testing::RelativeError(w.OnGpu(true, true), w.Reference(true)) <= 1e-2);
}

}  // namespace
}  // namespace spin
