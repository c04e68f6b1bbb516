// RetroInfer in a small KV cache: prompts in staging, Index, Offload and decode steps as the pipeline has them. Every
// value names its token, so that what the pages hold says in which order tokens lie; and a k-means straight from the
// rule (kernels/cluster_params.h) in double precision.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/cpu/cluster_scratch.h"
#include "tests/kernels/kv_testing.h"

namespace spin::testing {

// Keys that a test puts into a prompt.
enum class Keys {
  kRandom,
  kThree,  // of three kinds, in runs of 100 tokens: clusters of hundreds, and empty ones
  kOne,    // all the same
};

// Rows 0 (Resident) and 1 (Tiered, `slots` a stream), of up to `total` tokens. Place 0 of a step is row 1.
class RetroWorld {
 public:
  static constexpr int32_t kRows = 2;
  static constexpr int32_t kLayer = 1;

  struct Shape {
    DType dtype = DType::kF32;
    int32_t d = 64;
    int32_t kv_heads = 2;
    int32_t group = 2;
    int32_t slots = 80;
    Keys keys = Keys::kRandom;
  };

  RetroWorld(const Shape& s, int32_t prompt_tokens, int32_t total_tokens)
      : shape(s),
        world(Geometry(s, total_tokens)),
        step({1, 0}, world.geometry.max_rows),
        prompt(prompt_tokens),
        total(total_tokens) {
    const KvGeometry& g = world.geometry;
    world.AddRow(0, Placement::kResident, total);
    world.AddRow(1, Placement::kTiered, total, std::min(s.slots, CeilDiv(total, g.page_tokens)));
    const auto size = static_cast<size_t>(int64_t{kRows} * g.num_kv_heads * total * g.head_dim);
    keys_.resize(size);
    values_.resize(size);
    for (int32_t row = 0; row < kRows; ++row) {
      for (int32_t head = 0; head < g.num_kv_heads; ++head) {
        for (int32_t t = 0; t < total; ++t) MakeToken(row, head, t);
      }
    }
    Prefill();
  }

  const KvGeometry& geometry() const { return world.geometry; }
  std::span<const float> Key(int32_t row, int32_t head, int32_t t) const {
    return Of(keys_, row, head, t);
  }
  std::span<const float> Value(int32_t row, int32_t head, int32_t t) const {
    return Of(values_, row, head, t);
  }

  // Queries at random, keys and values of token t of both rows.
  Elements MakeQkv(int32_t t) {
    const KvGeometry& g = geometry();
    const int64_t width = int64_t{g.num_q_heads + 2 * g.num_kv_heads} * g.head_dim;
    Elements qkv(g.dtype, kRows * width);
    qkv.Randomize(random, 2);
    for (int32_t place = 0; place < kRows; ++place) {
      for (int32_t head = 0; head < g.num_kv_heads; ++head) {
        const int64_t key = place * width + int64_t{g.num_q_heads + head} * g.head_dim;
        const int64_t value = key + int64_t{g.num_kv_heads} * g.head_dim;
        for (int32_t c = 0; c < g.head_dim; ++c) {
          qkv.Set(key + c, Key(1 - place, head, t)[static_cast<size_t>(c)]);
          qkv.Set(value + c, Value(1 - place, head, t)[static_cast<size_t>(c)]);
        }
      }
    }
    step.position[0] = step.position[1] = t;
    return qkv;
  }

  void IndexDecode() {
    std::vector<char> scratch(
        static_cast<size_t>(world.pool.num_threads() * cpu::ClusterDecodeThreadBytes(geometry())));
    cpu::ClusterIndexDecode(
        {.decode = step.view(), .layer = kLayer, .tables = world.tables, .scratch = scratch.data()},
        world.pool);
  }
  // Index and Append of the token at t.
  void Step(int32_t t) {
    const Elements qkv = MakeQkv(t);
    IndexDecode();
    AppendToken(world, step, qkv, kLayer);
  }

  // The token that a page holds at a place, by its value; and whether key and value are that token's, to the bit.
  int32_t TokenAt(const std::vector<uint8_t>& pool, int64_t page, int32_t k) const {
    const int64_t value = geometry().ValueOffset(k);
    return static_cast<int32_t>(world.At(pool, page, value)) +
           128 * static_cast<int32_t>(world.At(pool, page, value + 1));
  }
  bool Holds(const std::vector<uint8_t>& pool, int64_t page, int32_t k, int32_t row, int32_t head,
             int32_t t) const {
    const KvGeometry& g = geometry();
    for (int32_t c = 0; c < g.head_dim; ++c) {
      const auto i = static_cast<size_t>(c);
      if (world.At(pool, page, g.KeyOffset(k) + c) != Key(row, head, t)[i]) return false;
      if (world.At(pool, page, g.ValueOffset(k) + c) != Value(row, head, t)[i]) return false;
    }
    return true;
  }
  // The tokens in the order of their places, of the first `length`; checks every page that has them, on both tiers.
  std::vector<int32_t> Places(int32_t row, int32_t head, int32_t length) const {
    const KvGeometry& g = geometry();
    const bool tiered = row == 1;
    const std::vector<uint8_t>& pool = tiered ? world.host : world.slots;
    const auto index = [&](const std::vector<int32_t>& dir, int32_t i) {
      return world.Index(dir, row, kLayer, head, i);
    };
    std::vector<int32_t> tokens;
    bool right = true;
    for (int32_t page = 0; page * g.page_tokens < length; ++page) {
      const int64_t home = index(tiered ? world.host_dir : world.slot_dir, page);
      int64_t slot = kAbsent;
      if (tiered) {
        const int32_t local = world.meta[static_cast<size_t>(index(world.meta_dir, page))];
        if (local != kAbsent) slot = index(world.slot_dir, local);
      }
      for (int32_t k = 0; k < std::min(g.page_tokens, length - page * g.page_tokens); ++k) {
        const int32_t token = TokenAt(pool, home, k);
        tokens.push_back(token);
        right = right && token >= 0 && token < length && Holds(pool, home, k, row, head, token) &&
                (slot == kAbsent || Holds(world.slots, slot, k, row, head, token));
      }
    }
    CHECK(right);
    return tokens;
  }

  struct Record {
    std::vector<float> centroid, mean;
    ClusterRun run;
  };
  Record RecordOf(int32_t row, int32_t head, int32_t cluster) const {
    const KvGeometry& g = geometry();
    const int32_t extent =
        world.summary_dir[static_cast<size_t>(g.DirIndex(row, kLayer, cluster / 32))];
    REQUIRE(extent >= 0);
    const uint8_t* at =
        world.summaries.data() + g.SummaryIndex(extent, head, cluster % 32) * g.summary_bytes();
    Elements means(g.dtype, 2 * g.head_dim);
    std::memcpy(means.data(), at, static_cast<size_t>(2 * g.head_dim * SizeOf(g.dtype)));
    Record record;
    for (int32_t c = 0; c < g.head_dim; ++c) {
      record.centroid.push_back(means[c]);
      record.mean.push_back(means[g.head_dim + c]);
    }
    int32_t words[2];
    std::memcpy(words, at + 2 * g.head_dim * SizeOf(g.dtype), sizeof(words));
    record.run = {.begin = words[0], .size = words[1]};
    return record;
  }

  // The cluster of each token of [begin, end) that is clustered, by the rule.
  std::vector<int32_t> ReferenceClusters(int32_t row, int32_t head, int32_t begin,
                                         int32_t end) const;

  const Shape shape;
  Random random{13};
  KvWorld world;
  StepRows step;
  const int32_t prompt, total;

 private:
  static KvGeometry Geometry(const Shape& s, int32_t total) {
    KvGeometry g = SmallGeometry(s.dtype, s.d, kClusterPageTokens);
    g.num_kv_heads = s.kv_heads;
    g.num_q_heads = s.kv_heads * s.group;
    g.max_rows = kRows;
    g.max_extents = CeilDiv(total, kExtentTokens);
    g.summary_elements = 2 * s.d + kClusterTailElements;
    g.partition_tokens = kClusterTokens;
    g.unsettled_tokens = kClusterLocalTokens;
    return g;
  }
  float Rounded(float x) const {
    return shape.dtype == DType::kF32 ? x : Bf16ToFloat(FloatToBf16(x));
  }
  size_t At(int32_t row, int32_t head, int32_t t) const {
    return static_cast<size_t>(((int64_t{row} * geometry().num_kv_heads + head) * total + t) *
                               geometry().head_dim);
  }
  std::span<const float> Of(const std::vector<float>& x, int32_t row, int32_t head,
                            int32_t t) const {
    return {x.data() + At(row, head, t), static_cast<size_t>(geometry().head_dim)};
  }
  void MakeToken(int32_t row, int32_t head, int32_t t) {
    const auto d = static_cast<size_t>(geometry().head_dim);
    float* key = keys_.data() + At(row, head, t);
    float* value = values_.data() + At(row, head, t);
    const int32_t kind = shape.keys == Keys::kThree ? t / 100 % 3 : 0;
    Random same(static_cast<uint64_t>(100 * row + 10 * head + kind));
    for (size_t c = 0; c < d; ++c) {
      key[c] = Rounded(2 * (shape.keys == Keys::kRandom ? random : same).Uniform() - 1);
      value[c] = Rounded(2 * random.Uniform() - 1);
    }
    value[0] = static_cast<float>(t % 128);
    value[1] = static_cast<float>(t / 128);
  }

  // Both prompts in one staging area, the second behind a prefix.
  void Prefill() {
    const KvGeometry& g = geometry();
    const int32_t pages = CeilDiv(prompt, g.page_tokens);
    const std::vector<PrefillSlice> slices = {
        {.row = 0, .num_tokens = prompt, .page_begin = 1},
        {.row = 1, .num_tokens = prompt - 4, .page_begin = pages + 1, .prefix_tokens = 4}};
    const int32_t num_pages = 2 * pages + 1;
    Elements staging = world.MakeStaging(num_pages, slices, random);
    for (const PrefillSlice& slice : slices) {
      for (int32_t head = 0; head < g.num_kv_heads; ++head) {
        for (int32_t t = 0; t < prompt; ++t) {
          const int64_t page = int64_t{head} * num_pages + slice.page_begin + t / g.page_tokens;
          const int64_t base = page * g.page_elements();
          for (int32_t c = 0; c < g.head_dim; ++c) {
            const auto i = static_cast<size_t>(c);
            staging.Set(base + g.KeyOffset(t % g.page_tokens) + c, Key(slice.row, head, t)[i]);
            staging.Set(base + g.ValueOffset(t % g.page_tokens) + c, Value(slice.row, head, t)[i]);
          }
        }
      }
    }
    std::vector<int32_t> order(static_cast<size_t>(g.num_kv_heads * num_pages * g.page_tokens), -9);
    std::vector<char> scratch(static_cast<size_t>(world.pool.num_threads() *
                                                  cpu::ClusterPrefillThreadBytes(g, num_pages)));
    const Staging area = {staging.data(), num_pages};
    cpu::ClusterIndexPrefill({.slices = slices.data(),
                              .num_slices = kRows,
                              .layer = kLayer,
                              .tables = world.tables,
                              .staging = area,
                              .order = order.data(),
                              .scratch = scratch.data()},
                             world.pool);
    cpu::Offload({.slices = slices.data(),
                  .num_slices = kRows,
                  .layer = kLayer,
                  .tables = world.tables,
                  .staging = area,
                  .order = order.data()},
                 world.pool);
  }

  std::vector<float> keys_, values_;  // [rows][Hkv][total][d] of the pages' type
};

inline std::vector<int32_t> RetroWorld::ReferenceClusters(int32_t row, int32_t head, int32_t begin,
                                                          int32_t end) const {
  const int32_t clusters = (end - begin) / 16;
  if (begin == 0) begin = 8;
  const auto n = static_cast<size_t>(end - begin);
  const auto d = static_cast<size_t>(geometry().head_dim);
  using Vectors = std::vector<std::vector<double>>;
  std::vector<double> mean(d, 0);
  for (int32_t t = begin; t < end; ++t) {
    for (size_t c = 0; c < d; ++c) mean[c] += double{Key(row, head, t)[c]} / static_cast<double>(n);
  }
  Vectors x(n, std::vector<double>(d));
  for (size_t t = 0; t < n; ++t) {
    for (size_t c = 0; c < d; ++c) {
      const double key = double{Key(row, head, begin + static_cast<int32_t>(t))[c]};
      x[t][c] = double{Rounded(static_cast<float>(key - mean[c]))};
    }
  }
  Vectors centroids;
  for (int32_t i = 0; i < clusters; ++i) {
    centroids.push_back(
        x[(2 * static_cast<size_t>(i) + 1) * n / (2 * static_cast<size_t>(clusters))]);
  }
  std::vector<int32_t> cluster(n);
  for (int iteration = 0; iteration < 10; ++iteration) {
    if (iteration > 0) {
      Vectors sums(centroids.size(), std::vector<double>(d, 0));
      for (size_t t = 0; t < n; ++t) {
        for (size_t c = 0; c < d; ++c) sums[static_cast<size_t>(cluster[t])][c] += x[t][c];
      }
      for (size_t i = 0; i < centroids.size(); ++i) {
        double squares = 0;
        for (const double value : sums[i]) squares += value * value;
        if (squares == 0) continue;
        for (size_t c = 0; c < d; ++c) {
          centroids[i][c] = double{Rounded(static_cast<float>(sums[i][c] / std::sqrt(squares)))};
        }
      }
    }
    for (size_t t = 0; t < n; ++t) {
      double best = -INFINITY;
      for (size_t i = 0; i < centroids.size(); ++i) {
        double product = 0;
        for (size_t c = 0; c < d; ++c) product += x[t][c] * centroids[i][c];
        if (product > best) cluster[t] = static_cast<int32_t>(i);
        best = std::max(best, product);
      }
    }
  }
  return cluster;
}

}  // namespace spin::testing
