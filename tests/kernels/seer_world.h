// SeerAttention-R in a small KV cache: seeded queries and keys before rotation, their rotated forms in staging, slots
// and host pages, random gates, and what the gates must give, in double precision and straight from the definition
// (SeerGate in kernels/params.h; arXiv 2506.08889).
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "tests/kernels/kv_testing.h"
#include "tests/kernels/rotation.h"

namespace spin::testing {

struct RandomGate {
  RandomGate(const KvGeometry& g, bool with_norm, Random& random)
      : wq(g.dtype, int64_t{g.num_kv_heads} * g.head_dim * g.group() * g.head_dim),
        wk(g.dtype, int64_t{g.num_kv_heads} * g.head_dim * 3 * g.head_dim) {
    wq.Randomize(random, 0.2f);
    wk.Randomize(random, 0.2f);
    if (!with_norm) return;
    for (auto* norm : {&q_norm, &k_norm}) {
      for (int32_t c = 0; c < g.head_dim; ++c) norm->push_back(0.5f + random.Uniform());
    }
  }
  SeerGate view() const {
    return {.wq = wq.data(),
            .wk = wk.data(),
            .q_norm = q_norm.empty() ? nullptr : q_norm.data(),
            .k_norm = k_norm.empty() ? nullptr : k_norm.data()};
  }
  Elements wq, wk;
  std::vector<float> q_norm, k_norm;
};

// Rows 0 (Resident) and 1 (Tiered, two slots a stream), of up to `total` tokens. Place 0 of a step is row 1.
class SeerWorld {
 public:
  static constexpr int32_t kRows = 2;
  static constexpr int32_t kLayer = 1;

  SeerWorld(DType dtype, int32_t d, int32_t page_tokens, int32_t group, bool with_norm,
            int32_t total)
      : world(Geometry(dtype, d, page_tokens, group)),
        step({1, 0}, world.geometry.max_rows),
        rotation(d, total),
        gate(world.geometry, with_norm, random),
        total_(total) {
    const KvGeometry& g = world.geometry;
    world.AddRow(0, Placement::kResident, total);
    world.AddRow(1, Placement::kTiered, total, 2);
    const auto heads = static_cast<size_t>(kRows * total * (g.num_q_heads + g.num_kv_heads));
    for (size_t i = 0; i < heads; ++i) {
      plain_.push_back(RandomFloats(random, d, 1.5f));
    }
  }

  // The head as the model makes it: query heads first, then KV heads.
  std::vector<double> Plain(int32_t row, int32_t t, int32_t head) const {
    const int32_t heads = world.geometry.num_q_heads + world.geometry.num_kv_heads;
    const auto& x = plain_[static_cast<size_t>((row * total_ + t) * heads + head)];
    return {x.begin(), x.end()};
  }
  std::vector<double> PlainKey(int32_t row, int32_t t, int32_t head) const {
    return Plain(row, t, world.geometry.num_q_heads + head);
  }

  // The first `prompt` tokens of both rows in staging, row 1 behind a prefix.
  Elements MakeStaging(int32_t prompt) {
    const KvGeometry& g = world.geometry;
    const int32_t pages = CeilDiv(prompt, g.page_tokens);
    slices = {{.row = 0, .num_tokens = prompt, .page_begin = 1},
              {.row = 1, .num_tokens = prompt - 4, .page_begin = pages + 1, .prefix_tokens = 4}};
    staging_pages = 2 * pages + 1;
    Elements staging = world.MakeStaging(staging_pages, slices, random);
    for (const PrefillSlice& slice : slices) {
      for (int32_t head = 0; head < g.num_kv_heads; ++head) {
        for (int32_t t = 0; t < prompt; ++t) {
          const int64_t page = int64_t{head} * staging_pages + slice.page_begin + t / g.page_tokens;
          Put(staging, page * g.page_elements() + g.KeyOffset(t % g.page_tokens),
              rotation(PlainKey(slice.row, t, head), t));
        }
      }
    }
    return staging;
  }

  // Queries, keys and values of token t of both rows.
  Elements MakeQkv(int32_t t) {
    const KvGeometry& g = world.geometry;
    const int32_t heads = g.num_q_heads + 2 * g.num_kv_heads;
    Elements qkv(g.dtype, int64_t{kRows} * heads * g.head_dim);
    qkv.Randomize(random, 1);
    for (int32_t place = 0; place < kRows; ++place) {
      for (int32_t head = 0; head < heads - g.num_kv_heads; ++head) {
        Put(qkv, (int64_t{place} * heads + head) * g.head_dim,
            rotation(Plain(1 - place, t, head), t));
      }
    }
    step.position[0] = step.position[1] = t;
    return qkv;
  }

  SeerIndexPrefillParams PrefillParams(const Staging& staging) const {
    return {.slices = slices.data(),
            .num_slices = kRows,
            .layer = kLayer,
            .tables = world.tables,
            .staging = staging,
            .gate = gate.view(),
            .rope_table = rotation.table().data()};
  }
  SeerIndexDecodeParams DecodeParams(const Elements& qkv) {
    return {.decode = step.view(),
            .qkv = qkv.data(),
            .layer = kLayer,
            .tables = world.tables,
            .gate = gate.view(),
            .rope_table = rotation.table().data()};
  }

  // ---- The definition
  std::vector<double> ReferenceSummary(int32_t row, int32_t head, int32_t page) const {
    const KvGeometry& g = world.geometry;
    const int32_t d = g.head_dim;
    std::vector<double> pooled(static_cast<size_t>(3 * d));
    for (int32_t i = 0; i < g.page_tokens; ++i) {
      const std::vector<double> x = PlainKey(row, page * g.page_tokens + i, head);
      for (int32_t c = 0; c < d; ++c) {
        pooled[c] = i == 0 ? x[c] : std::max(pooled[c], x[c]);
        pooled[d + c] = i == 0 ? x[c] : std::min(pooled[d + c], x[c]);
        pooled[2 * d + c] += x[c] / g.page_tokens;
      }
    }
    return Project(gate.wk, head, pooled, gate.k_norm, page * g.page_tokens);
  }
  std::vector<double> ReferenceQuery(int32_t row, int32_t head, int32_t t) const {
    const KvGeometry& g = world.geometry;
    std::vector<double> group;
    for (int32_t h = 0; h < g.group(); ++h) {
      const std::vector<double> q = Plain(row, t, head * g.group() + h);
      group.insert(group.end(), q.begin(), q.end());
    }
    return Project(gate.wq, head, group, gate.q_norm, t);
  }

  // The stored summary.
  std::vector<double> Summary(int32_t row, int32_t head, int32_t page) const {
    const KvGeometry& g = world.geometry;
    Elements all(g.dtype, g.head_dim);
    std::memcpy(all.data(),
                world.summaries.data() +
                    world.Index(world.summary_dir, row, kLayer, head, page) * g.summary_bytes(),
                static_cast<size_t>(g.summary_bytes()));
    std::vector<double> out;
    for (int32_t c = 0; c < g.head_dim; ++c) out.push_back(double{all[c]});
    return out;
  }

  Random random{11};
  KvWorld world;
  StepRows step;
  Rotation rotation;
  RandomGate gate;
  std::vector<PrefillSlice> slices;
  int32_t staging_pages = 0;

 private:
  static KvGeometry Geometry(DType dtype, int32_t d, int32_t page_tokens, int32_t group) {
    KvGeometry g = SmallGeometry(dtype, d, page_tokens);
    g.num_q_heads = g.num_kv_heads * group;
    g.summary_elements = d;
    return g;
  }
  static void Put(Elements& to, int64_t at, const std::vector<double>& values) {
    for (size_t c = 0; c < values.size(); ++c) {
      to.Set(at + static_cast<int64_t>(c), static_cast<float>(values[c]));
    }
  }
  std::vector<double> Project(const Elements& w, int32_t head, const std::vector<double>& x,
                              const std::vector<float>& norm, int32_t position) const {
    const int32_t d = world.geometry.head_dim;
    const auto inputs = static_cast<int64_t>(x.size());
    std::vector<double> y(static_cast<size_t>(d));
    double squares = 0;
    for (int32_t o = 0; o < d; ++o) {
      for (int64_t i = 0; i < inputs; ++i) {
        y[o] += double{w[(int64_t{head} * d + o) * inputs + i]} * x[static_cast<size_t>(i)];
      }
      squares += y[o] * y[o];
    }
    for (int32_t o = 0; o < d && !norm.empty(); ++o) {
      y[o] *= norm[static_cast<size_t>(o)] / std::sqrt(squares / d + 1e-6);
    }
    return rotation(y, position);
  }

  int32_t total_;
  std::vector<std::vector<float>> plain_;  // [rows][tokens][heads] of d
};

}  // namespace spin::testing
