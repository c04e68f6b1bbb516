// Embedding, row gathering, RMSNorm, SiLU and rotary embedding against their formulas in double.
#include "kernels/cpu/families.h"
#include "tests/kernels/kernel_testing.h"

namespace spin {
namespace {

using testing::Elements;
using testing::ForEachIsa;
using testing::RandomFloats;

TEST_CASE("embedding picks rows by id, and by the tokens of a decode batch") {
  ThreadPool pool(2);
  Random random(1);
  for (const DType dtype : {DType::kF32, DType::kBf16}) {
    Elements table(dtype, 10 * 48);
    table.Randomize(random, 1);
    const std::vector<int32_t> ids = {9, 0, 3, 3};
    std::vector<float> out(4 * 48);
    EmbeddingParams p;
    p.table = table.data();
    p.dtype = dtype;
    p.ids = ids.data();
    p.n = 4;
    p.hidden = 48;
    p.out = out.data();
    cpu::Embedding(p, pool);
    for (int64_t i = 0; i < 4 * 48; ++i)
      REQUIRE(out[size_t(i)] == table[ids[size_t(i / 48)] * 48 + i % 48]);

    const std::vector<int32_t> rows = {2, 0, 77, 77};
    std::vector<int32_t> token = {5, 77, 8};
    const int32_t num_rows = 2;
    std::fill(out.begin(), out.end(), -1.0f);
    p.ids = nullptr;
    p.decode = {.max_batch = 4, .num_rows = &num_rows, .rows = rows.data(), .token = token.data()};
    cpu::Embedding(p, pool);
    for (int64_t j = 0; j < 48; ++j) {
      REQUIRE(out[size_t(j)] == table[8 * 48 + j]);
      REQUIRE(out[size_t(48 + j)] == table[5 * 48 + j]);
      REQUIRE(out[size_t(96 + j)] == -1.0f);
    }
  }
}

TEST_CASE("an embedding table may be half precision") {
  ThreadPool pool(1);
  const std::vector<uint16_t> table = {0x3c00, 0xc000, 0x0001, 0x7c00};
  const int32_t id = 0;
  std::vector<float> out(4);
  EmbeddingParams p;
  p.table = table.data();
  p.dtype = DType::kF16;
  p.ids = &id;
  p.n = 1;
  p.hidden = 4;
  p.out = out.data();
  cpu::Embedding(p, pool);
  CHECK(out[0] == 1.0f);
  CHECK(out[1] == -2.0f);
  CHECK(out[2] == 0x1p-24f);
  CHECK(std::isinf(out[3]));
}

TEST_CASE("rows are gathered by index") {
  ThreadPool pool(2);
  Random random(2);
  const std::vector<float> in = RandomFloats(random, 20 * 7, 1);
  std::vector<int32_t> index;
  for (int i = 0; i < 33; ++i) index.push_back(static_cast<int32_t>(random.Below(20)));
  std::vector<float> out(33 * 7);
  cpu::GatherRows({.in = in.data(), .index = index.data(), .n = 33, .width = 7, .out = out.data()},
                  pool);
  for (size_t i = 0; i < out.size(); ++i) REQUIRE(out[i] == in[size_t(index[i / 7]) * 7 + i % 7]);
}

TEST_CASE("RMSNorm equals its formula, outliers and all, whatever the batch") {
  ThreadPool pool(2);
  Random random(3);
  for (const int32_t hidden : {1, 15, 64, 100, 576}) {
    for (const int32_t n : {0, 1, 19}) {
      std::vector<float> in = RandomFloats(random, int64_t{n} * hidden, 2);
      if (!in.empty()) in[in.size() / 2] = 1500;
      const std::vector<float> weight = RandomFloats(random, hidden, 1);
      std::vector<double> expected;
      for (int32_t i = 0; i < n; ++i) {
        double sum = 0;
        for (int32_t j = 0; j < hidden; ++j) sum += std::pow(double{in[size_t(i * hidden + j)]}, 2);
        const double scale = 1 / std::sqrt(sum / hidden + 1e-5);
        for (int32_t j = 0; j < hidden; ++j) {
          expected.push_back(in[size_t(i * hidden + j)] * scale * weight[size_t(j)]);
        }
      }
      ForEachIsa([&](cpu::Isa) {
        for (const DType dtype : {DType::kF32, DType::kBf16}) {
          INFO("n " << n << ", hidden " << hidden << ", " << NameOf(dtype));
          Elements out(dtype, int64_t{n} * hidden);
          RmsNormParams p = {
              .in = in.data(), .weight = weight.data(), .eps = 1e-5f, .n = n, .hidden = hidden};
          p.out = out.data();
          p.out_dtype = dtype;
          cpu::RmsNorm(p, pool);
          CHECK(testing::RelativeError(out, expected) < testing::Tolerance(dtype));
          if (n == 0) continue;
          Elements last(dtype, hidden);
          p.in += int64_t{n - 1} * hidden;
          p.n = 1;
          p.out = last.data();
          cpu::RmsNorm(p, pool);
          for (int32_t j = 0; j < hidden; ++j) REQUIRE(last[j] == out[int64_t{n - 1} * hidden + j]);
        }
      });
    }
  }
}

TEST_CASE("SiLU is right from -inf's side to +inf's, and passes NaN on") {
  ThreadPool pool(2);
  Random random(4);
  for (const int32_t width : {1, 17, 64}) {
    for (const int32_t n : {0, 1, 9}) {
      for (const DType dtype : {DType::kF32, DType::kBf16}) {
        Elements gate_up(dtype, int64_t{n} * 2 * width);
        gate_up.Randomize(random, 20);
        // Errors are relative to the largest output: a row needs one beside the vanishing ones.
        if (n > 0 && width > 1) gate_up.Set(0, -200);
        if (n > 1) gate_up.Set(2 * width, 200);
        std::vector<double> expected;
        for (int64_t i = 0; i < n; ++i) {
          for (int64_t j = 0; j < width; ++j) {
            const double g = gate_up[i * 2 * width + j];
            expected.push_back(g / (1 + std::exp(-g)) * gate_up[i * 2 * width + width + j]);
          }
        }
        ForEachIsa([&](cpu::Isa) {
          Elements out(dtype, int64_t{n} * width);
          SiluMulParams p = {
              .gate_up = gate_up.data(), .out = out.data(), .dtype = dtype, .n = n, .width = width};
          cpu::SiluMul(p, pool);
          CHECK(testing::RelativeError(out, expected) < testing::Tolerance(dtype));
        });
      }
    }
  }
  Elements nan(DType::kF32, 2);
  nan.Set(0, NAN);
  nan.Set(1, 1);
  ForEachIsa([&](cpu::Isa) {
    float out = 0;
    cpu::SiluMul({.gate_up = nan.data(), .out = &out, .dtype = DType::kF32, .n = 1, .width = 1},
                 pool);
    CHECK(std::isnan(out));
  });
}

// q, k with optional norm, rotated in double.
std::vector<double> RopeReference(const Elements& qkv, const RopeParams& p,
                                  const std::vector<int32_t>& positions) {
  std::vector<double> out;
  const int32_t d = p.head_dim;
  const int32_t heads = p.num_q_heads + 2 * p.num_kv_heads;
  for (int64_t i = 0; i < int64_t(positions.size()); ++i) {
    for (int32_t h = 0; h < heads; ++h) {
      std::vector<double> x;
      for (int32_t j = 0; j < d; ++j) x.push_back(qkv[(i * heads + h) * d + j]);
      if (h < p.num_q_heads + p.num_kv_heads) {
        const float* norm = h < p.num_q_heads ? p.q_norm : p.k_norm;
        if (norm != nullptr) {
          double sum = 0;
          for (const double v : x) sum += v * v;
          for (int32_t j = 0; j < d; ++j)
            x[size_t(j)] *= norm[j] / std::sqrt(sum / d + double{p.eps});
        }
        const float* table = p.table + int64_t{positions[size_t(i)]} * d;
        for (int32_t j = 0; j < d / 2; ++j) {
          const double a = x[size_t(j)], b = x[size_t(j + d / 2)];
          x[size_t(j)] = a * table[j] - b * table[j + d / 2];
          x[size_t(j + d / 2)] = b * table[j] + a * table[j + d / 2];
        }
      }
      out.insert(out.end(), x.begin(), x.end());
    }
  }
  return out;
}

TEST_CASE("rotary embedding with and without head norms equals the formula and leaves v alone") {
  ThreadPool pool(2);
  Random random(5);
  for (const int32_t d : {64, 128}) {
    std::vector<float> table;
    for (int position = 0; position < 50; ++position) {
      for (int j = 0; j < d; ++j) {
        const double angle = position / std::pow(10000.0, 2.0 * (j % (d / 2)) / d);
        table.push_back(static_cast<float>(j < d / 2 ? std::cos(angle) : std::sin(angle)));
      }
    }
    const std::vector<float> q_norm = RandomFloats(random, d, 1);
    const std::vector<float> k_norm = RandomFloats(random, d, 1);
    const std::vector<int32_t> positions = {0, 49, 7, 8, 31, 2, 3};
    for (const bool norms : {false, true}) {
      for (const DType dtype : {DType::kF32, DType::kBf16}) {
        Elements qkv(dtype, 7 * 8 * d);
        qkv.Randomize(random, 3);
        RopeParams p;
        p.dtype = dtype;
        p.n = 7;
        p.positions = positions.data();
        p.num_q_heads = 4;
        p.num_kv_heads = 2;
        p.head_dim = d;
        p.q_norm = norms ? q_norm.data() : nullptr;
        p.k_norm = norms ? k_norm.data() : nullptr;
        p.eps = 1e-6f;
        p.table = table.data();
        const std::vector<double> expected = RopeReference(qkv, p, positions);
        ForEachIsa([&](cpu::Isa) {
          Elements out = qkv;
          p.qkv = out.data();
          cpu::Rope(p, pool);
          CHECK(testing::RelativeError(out, expected) < testing::Tolerance(dtype));

          // The same rows as a decode batch, in another order.
          Elements decode = qkv;
          const std::vector<int32_t> rows = {6, 5, 4, 3, 2, 1, 0};
          std::vector<int32_t> position(positions.rbegin(), positions.rend());
          const int32_t num_rows = 7;
          RopeParams q = p;
          q.positions = nullptr;
          q.decode = {.max_batch = 7,
                      .num_rows = &num_rows,
                      .rows = rows.data(),
                      .position = position.data()};
          q.qkv = decode.data();
          cpu::Rope(q, pool);
          CHECK(decode == out);
        });
      }
    }
  }
}

}  // namespace
}  // namespace spin
