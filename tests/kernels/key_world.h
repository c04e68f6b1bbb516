// ShadowKV's low-rank keys in a small KV cache: keys that a few directions span but for noise, rotated, in staging and
// in the steps that follow; and what of them is stored, in double precision.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

#include "tests/kernels/kv_testing.h"
#include "tests/kernels/rotation.h"

namespace spin::testing {

// Rows 0 (Resident) and 1 (Tiered) with `prompt` tokens; row 2 (Tiered) with so few that its keys have no factor.
class KeyWorld {
 public:
  static constexpr int32_t kRows = 3;
  static constexpr int32_t kLayer = 1;
  static constexpr int32_t kSlots = 40;  // a stream
  static constexpr int32_t kOutliers = 3;
  static constexpr int32_t kWholeLast = 3;

  KeyWorld(DType dtype, int32_t d, int32_t heads, int32_t rank, int32_t prompt, int32_t total)
      : world(Geometry(dtype, d, heads, rank)), rotation(d, total), total_(total) {
    for (const int32_t row : {0, 1}) prompts[row] = prompt;
    prompts[2] = world.geometry.key_width() - 1;
    world.AddRow(0, Placement::kResident, total);
    world.AddRow(1, Placement::kTiered, total, kSlots);
    world.AddRow(2, Placement::kTiered, total, kSlots);
    MakeKeys();
  }

  // All prompts in staging, row 1's behind a prefix.
  Elements MakeStaging() {
    const KvGeometry& g = world.geometry;
    slices.clear();
    staging_pages = 2;
    for (const int32_t row : {1, 2, 0}) {
      const int32_t prefix = row == 1 ? 5 : 0;
      slices.push_back({.row = row,
                        .num_tokens = prompts[row] - prefix,
                        .page_begin = staging_pages,
                        .prefix_tokens = prefix});
      staging_pages += CeilDiv(prompts[row], g.page_tokens) + 1;
    }
    Elements staging = world.MakeStaging(staging_pages, slices, random);
    for (const PrefillSlice& slice : slices) {
      for (int32_t head = 0; head < g.num_kv_heads; ++head) {
        for (int32_t t = 0; t < prompts[slice.row]; ++t) {
          const int64_t page = int64_t{head} * staging_pages + slice.page_begin + t / g.page_tokens;
          PutKey(staging, page * g.page_elements() + g.KeyOffset(t % g.page_tokens), slice.row, t,
                 head);
        }
      }
    }
    return staging;
  }

  // Queries, keys and values of token t of the rows.
  Elements MakeQkv(const StepRows& step, int32_t t) {
    const KvGeometry& g = world.geometry;
    const int64_t width = int64_t{g.num_q_heads + 2 * g.num_kv_heads} * g.head_dim;
    Elements qkv(g.dtype, step.count * width);
    qkv.Randomize(random, 1);
    for (int32_t place = 0; place < step.count; ++place) {
      for (int32_t head = 0; head < g.num_kv_heads; ++head) {
        PutKey(qkv, place * width + int64_t{g.num_q_heads + head} * g.head_dim, step.rows[place], t,
               head);
      }
    }
    return qkv;
  }

  KeyFactorPrefillParams PrefillParams(const Staging& staging) {
    const KvGeometry& g = world.geometry;
    scratch.resize(
        static_cast<size_t>(kKeySlices * KeyFactorScratchBytes(g.key_width(), g.key_rank) / 8));
    return {.slices = slices.data(),
            .num_slices = kRows,
            .layer = kLayer,
            .tables = world.tables,
            .staging = staging,
            .rope_table = rotation.table().data(),
            .scratch = scratch.data()};
  }

  // ---- What is stored, from the definitions.

  // Key of token t as it was before rotation, rounded: all heads.
  std::vector<double> Key(int32_t row, int32_t t) const {
    const KvGeometry& g = world.geometry;
    const bool tiered = row != 0;
    std::vector<double> all;
    for (int32_t head = 0; head < g.num_kv_heads; ++head) {
      const int64_t page = world.Index(tiered ? world.host_dir : world.slot_dir, row, kLayer, head,
                                       t / g.page_tokens);
      std::vector<double> key;
      for (int32_t c = 0; c < g.head_dim; ++c) {
        key.push_back(double{
            world.At(tiered ? world.host : world.slots, page, g.KeyOffset(t % g.page_tokens) + c)});
      }
      for (const double x : rotation.Back(key, t)) {
        all.push_back(
            g.dtype == DType::kF32 ? x : double{Bf16ToFloat(FloatToBf16(static_cast<float>(x)))});
      }
    }
    return all;
  }
  std::vector<double> Basis(int32_t row) const {
    const KvGeometry& g = world.geometry;
    Elements basis(g.dtype, g.key_basis_elements());
    std::memcpy(basis.data(),
                world.key_basis.data() + g.BasisIndex(row, kLayer) * g.key_basis_bytes(),
                static_cast<size_t>(g.key_basis_bytes()));
    std::vector<double> out;
    for (int64_t i = 0; i < basis.size(); ++i) out.push_back(double{basis[i]});
    return out;
  }
  // [key_rank] of token t.
  std::vector<double> Factor(int32_t row, int32_t t) const {
    const KvGeometry& g = world.geometry;
    std::vector<double> out;
    for (int32_t r = 0; r < g.key_rank; ++r) {
      const int32_t flat = t % g.page_tokens * g.key_rank + r;
      out.push_back(double{Summary(row, flat / g.key_piece(), t / g.page_tokens,
                                   g.head_dim + flat % g.key_piece())});
    }
    return out;
  }
  float Summary(int32_t row, int32_t head, int32_t page, int32_t element) const {
    const KvGeometry& g = world.geometry;
    const int64_t at =
        world.Index(world.summary_dir, row, kLayer, head, page) * g.summary_elements + element;
    if (g.dtype == DType::kF32) return reinterpret_cast<const float*>(world.summaries.data())[at];
    return Bf16ToFloat(reinterpret_cast<const uint16_t*>(world.summaries.data())[at]);
  }
  bool IsWhole(int32_t row, int32_t head, int32_t page, int32_t position) const {
    return row == 2 || page > position / world.geometry.page_tokens - kWholeLast ||
           std::isnan(Summary(row, head, page, 0));
  }

  Random random{11};
  KvWorld world;
  Rotation rotation;
  int32_t prompts[kRows] = {};
  std::vector<PrefillSlice> slices;
  int32_t staging_pages = 0;
  std::vector<double> scratch;

 private:
  static constexpr int32_t kDirections = 40;

  static KvGeometry Geometry(DType dtype, int32_t d, int32_t heads, int32_t rank) {
    KvGeometry g = SmallGeometry(dtype, d, kLandmarkTokens);
    g.num_kv_heads = heads;
    g.num_q_heads = 2 * heads;
    g.key_rank = rank;
    g.summary_elements = d + g.key_piece();
    return g;
  }

  // Keys before rotation: directions of falling weight, and noise.
  void MakeKeys() {
    const int32_t width = world.geometry.key_width();
    std::vector<std::vector<float>> directions;
    for (int32_t l = 0; l < kDirections; ++l) {
      directions.push_back(RandomFloats(random, width, std::pow(0.85f, static_cast<float>(l))));
    }
    keys_.assign(static_cast<size_t>(kRows * total_), {});
    for (auto& key : keys_) {
      key.assign(static_cast<size_t>(width), 0);
      for (const auto& direction : directions) {
        const double weight = 2 * double{random.Uniform()} - 1;
        for (size_t c = 0; c < key.size(); ++c) key[c] += weight * double{direction[c]};
      }
      for (double& x : key) x += 0.02 * (2 * double{random.Uniform()} - 1);
    }
  }
  void PutKey(Elements& to, int64_t at, int32_t row, int32_t t, int32_t head) const {
    const int32_t d = world.geometry.head_dim;
    const auto& key = keys_[static_cast<size_t>(row * total_ + t)];
    const auto rotated = rotation({key.begin() + head * d, key.begin() + (head + 1) * d}, t);
    for (int32_t c = 0; c < d; ++c) to.Set(at + c, static_cast<float>(rotated[c]));
  }

  int32_t total_;
  std::vector<std::vector<double>> keys_;  // [rows][tokens] of Hkv * d
};

// One decode step of rows at one position: Index, Lookup of the tail, Append, Gather. With `evict` the tail of Tiered
// rows is on the host alone when Index reads it.
inline void Step(KeyWorld& x, const std::vector<int32_t>& rows, int32_t t, bool evict) {
  StepRows step(rows, x.world.geometry.max_rows);
  for (const int32_t row : rows) {
    step.position[row] = t;
    if (row > 0 && evict) EvictPage(x.world, row, KeyWorld::kLayer, t / kLandmarkTokens);
  }
  const Elements qkv = x.MakeQkv(step, t);
  cpu::LandmarkIndexDecode({.decode = step.view(),
                            .qkv = qkv.data(),
                            .layer = KeyWorld::kLayer,
                            .tables = x.world.tables},
                           x.world.pool);
  cpu::KeyFactorDecode({.decode = step.view(),
                        .qkv = qkv.data(),
                        .layer = KeyWorld::kLayer,
                        .tables = x.world.tables,
                        .rope_table = x.rotation.table().data()},
                       x.world.pool);
  AppendToken(x.world, step, qkv, KeyWorld::kLayer);
}

// The prompts by prefill, `decoded` tokens more by steps; now and then the tail is on the host alone.
inline void Run(KeyWorld& x, int32_t decoded) {
  Elements staging = x.MakeStaging();
  const Staging area = {staging.data(), x.staging_pages};
  cpu::Offload({.slices = x.slices.data(),
                .num_slices = KeyWorld::kRows,
                .layer = KeyWorld::kLayer,
                .tables = x.world.tables,
                .staging = area},
               x.world.pool);
  std::vector<float> spread(
      static_cast<size_t>(x.world.geometry.num_kv_heads * RoundUp(x.staging_pages, 4)));
  cpu::LandmarkIndexPrefill({.slices = x.slices.data(),
                             .num_slices = KeyWorld::kRows,
                             .layer = KeyWorld::kLayer,
                             .tables = x.world.tables,
                             .staging = area,
                             .outlier_pages = KeyWorld::kOutliers,
                             .local_pages = KeyWorld::kWholeLast - 1,
                             .spread = spread.data()},
                            x.world.pool);
  cpu::KeyFactorPrefill(x.PrefillParams(area), x.world.pool);
  for (int32_t i = 0; i < decoded; ++i) {
    Step(x, {1, 0}, x.prompts[0] + i, i % 3 == 1);
    Step(x, {2}, x.prompts[2] + i, i % 3 == 1);
  }
}

inline double Dot(const std::vector<double>& a, const std::vector<double>& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

// k V, and k V V^T.
inline std::vector<double> Project(const std::vector<double>& key,
                                   const std::vector<double>& basis) {
  const size_t rank = basis.size() / key.size();
  std::vector<double> out(rank, 0);
  for (size_t i = 0; i < basis.size(); ++i) out[i % rank] += key[i / rank] * basis[i];
  return out;
}
inline std::vector<double> Expand(const std::vector<double>& factor,
                                  const std::vector<double>& basis) {
  std::vector<double> out(basis.size() / factor.size(), 0);
  for (size_t i = 0; i < basis.size(); ++i) {
    out[i / factor.size()] += factor[i % factor.size()] * basis[i];
  }
  return out;
}

}  // namespace spin::testing
