// Embedding, row gathering, RMSNorm, SiLU and rotary embedding on the GPU: copies equal the CPU's, arithmetic is as
// close to its formula in double as the CPU tests ask of the CPU.
#include <cmath>

#include "tests/twin/twin_testing.h"

namespace spin {
namespace {

using testing::Elements;
using testing::ElementsOnDevice;
using testing::Gpu;
using testing::OnDevice;
using testing::RandomFloats;
using testing::RowsOnDevice;
using testing::StepRows;

constexpr float kUntouched = -4096;

// Rows of a buffer whose tail a kernel has no business with.
void CheckTail(const Elements& out, int64_t from) {
  for (int64_t i = from; i < out.size(); ++i) REQUIRE(out[i] == kUntouched);
}
Elements Untouched(DType dtype, int64_t size) {
  Elements out(dtype, size);
  out.Fill(kUntouched);
  return out;
}

TEST_CASE("embedding equals the CPU's bit for bit, by id and by decode row", "[small]") {
  constexpr int32_t kVocab = 211;
  const int32_t hidden = GENERATE(1, 33, 320, 576, 4096);
  const DType dtype = GENERATE(DType::kF32, DType::kBf16);
  INFO("hidden " << hidden << ", " << NameOf(dtype));
  Random random(1);
  ThreadPool pool(2);
  Elements table(dtype, int64_t{kVocab} * hidden);
  table.Randomize(random, 2);
  const ElementsOnDevice table_gpu(table);
  const auto run = [&](EmbeddingParams p, const EmbeddingParams& gpu_ids) {
    p.dtype = dtype;
    p.hidden = hidden;
    std::vector<float> out(static_cast<size_t>((p.n + 1) * hidden), kUntouched);
    const OnDevice<float> out_gpu(out);
    EmbeddingParams q = p;
    q.ids = gpu_ids.ids;
    q.decode = gpu_ids.decode;
    q.table = table_gpu.data();
    q.out = out_gpu.data();
    Gpu::Get().ops().Embedding(q, Gpu::Get().stream());
    p.table = table.data();
    p.out = out.data();
    cpu::Embedding(p, pool);
    Gpu::Get().Finish();
    REQUIRE((out_gpu.Read() == out));
  };
  for (const int32_t n : {0, 1, 50}) {
    std::vector<int32_t> ids;
    for (int32_t i = 0; i < n; ++i) ids.push_back(static_cast<int32_t>(random.Below(kVocab)));
    ids.push_back(kVocab - 1);
    const OnDevice<int32_t> ids_gpu(ids);
    EmbeddingParams p, q;
    p.ids = ids.data();
    p.n = n;
    q.ids = ids_gpu.data();
    run(p, q);
  }
  StepRows step({5, 0, 2}, 6);
  for (int32_t& token : step.token) token = static_cast<int32_t>(random.Below(kVocab));
  const RowsOnDevice rows(step, 8);
  EmbeddingParams p, q;
  p.decode = step.view();
  p.n = 8;
  q.decode = rows.view();
  run(p, q);
}

TEST_CASE("gathered rows equal their sources", "[small]") {
  const int32_t width = GENERATE(1, 7, 320, 4096);
  Random random(2);
  ThreadPool pool(2);
  const std::vector<float> in = RandomFloats(random, int64_t{20} * width, 1);
  std::vector<int32_t> index;
  for (int i = 0; i < 33; ++i) index.push_back(static_cast<int32_t>(random.Below(20)));
  for (const int32_t n : {0, 1, 33}) {
    std::vector<float> out(static_cast<size_t>(34 * width), kUntouched);
    const OnDevice<float> in_gpu(in), out_gpu(out);
    const OnDevice<int32_t> index_gpu(index);
    Gpu::Get().ops().GatherRows({.in = in_gpu.data(),
                                 .index = index_gpu.data(),
                                 .n = n,
                                 .width = width,
                                 .out = out_gpu.data()},
                                Gpu::Get().stream());
    cpu::GatherRows(
        {.in = in.data(), .index = index.data(), .n = n, .width = width, .out = out.data()}, pool);
    Gpu::Get().Finish();
    REQUIRE((out_gpu.Read() == out));
  }
}

TEST_CASE(
    "RMSNorm equals its formula, outliers and all, and a row's bits do not depend on the batch",
    "[small]") {
  const int32_t hidden = GENERATE(1, 15, 64, 100, 320, 576, 1536, 4096, 16384, 16388, 20001);
  const DType dtype = GENERATE(DType::kF32, DType::kBf16);
  Random random(3);
  const std::vector<float> weight = RandomFloats(random, hidden, 1);
  const OnDevice<float> weight_gpu(weight);
  for (const int32_t n : {0, 1, 19}) {
    INFO("n " << n << ", hidden " << hidden << ", " << NameOf(dtype));
    std::vector<float> in = RandomFloats(random, int64_t{n} * hidden, 2);
    if (n > 0) in[in.size() / 2] = 1500;
    in.resize(in.size() + static_cast<size_t>(hidden), NAN);  // what follows is not read
    std::vector<double> expected;
    for (int64_t i = 0; i < n; ++i) {
      const float* row = in.data() + i * hidden;
      double sum = 0;
      for (int32_t j = 0; j < hidden; ++j) sum += double{row[j]} * row[j];
      const double scale = 1 / std::sqrt(sum / hidden + 1e-5);
      for (int32_t j = 0; j < hidden; ++j) expected.push_back(row[j] * scale * weight[size_t(j)]);
    }
    const OnDevice<float> in_gpu(in);
    const ElementsOnDevice out_gpu(Untouched(dtype, int64_t{n + 1} * hidden));
    RmsNormParams p = {.in = in_gpu.data(),
                       .weight = weight_gpu.data(),
                       .eps = 1e-5f,
                       .n = n,
                       .hidden = hidden,
                       .out = out_gpu.data(),
                       .out_dtype = dtype};
    Gpu::Get().ops().RmsNorm(p, Gpu::Get().stream());
    Gpu::Get().Finish();
    const Elements out = out_gpu.Read();
    CHECK(testing::RelativeError(out, expected) < testing::Tolerance(dtype));
    CheckTail(out, int64_t{n} * hidden);
    if (n == 0) continue;
    const ElementsOnDevice last_gpu(Elements(dtype, hidden));
    p.in += int64_t{n - 1} * hidden;
    p.n = 1;
    if (hidden % 4 != 0 || (n - 1) * hidden % 64 == 0) {  // rows of the model are aligned
      p.out = last_gpu.data();
      Gpu::Get().ops().RmsNorm(p, Gpu::Get().stream());
      Gpu::Get().Finish();
      const Elements last = last_gpu.Read();
      for (int32_t j = 0; j < hidden; ++j) REQUIRE(last[j] == out[int64_t{n - 1} * hidden + j]);
    }
  }
}

TEST_CASE("SiLU equals its formula from -200 to 200, and passes NaN on", "[small]") {
  const int32_t width = GENERATE(1, 17, 64, 1536, 12288);
  const DType dtype = GENERATE(DType::kF32, DType::kBf16);
  Random random(4);
  for (const int32_t n : {0, 1, 9}) {
    INFO("n " << n << ", width " << width << ", " << NameOf(dtype));
    Elements gate_up(dtype, int64_t{n} * 2 * width);
    gate_up.Randomize(random, 20);
    if (n > 0 && width > 1) gate_up.Set(0, -200);
    if (n > 1) gate_up.Set(2 * width, 200);
    std::vector<double> expected;
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < width; ++j) {
        const double g = gate_up[i * 2 * width + j];
        expected.push_back(g / (1 + std::exp(-g)) * gate_up[i * 2 * width + width + j]);
      }
    }
    const ElementsOnDevice in_gpu(gate_up), out_gpu(Untouched(dtype, int64_t{n + 1} * width));
    SiluMulParams p = {
        .gate_up = in_gpu.data(), .out = out_gpu.data(), .dtype = dtype, .n = n, .width = width};
    Gpu::Get().ops().SiluMul(p, Gpu::Get().stream());
    Gpu::Get().Finish();
    const Elements out = out_gpu.Read();
    CHECK(testing::RelativeError(out, expected) < testing::Tolerance(dtype));
    CheckTail(out, int64_t{n} * width);
    if (n == 0) continue;
    gate_up.Set(gate_up.size() - 1 - width, NAN);
    const ElementsOnDevice nan_gpu(gate_up);
    p.gate_up = nan_gpu.data();
    Gpu::Get().ops().SiluMul(p, Gpu::Get().stream());
    Gpu::Get().Finish();
    const Elements with_nan = out_gpu.Read();
    CHECK(std::isnan(with_nan[int64_t{n} * width - 1]));
    for (int64_t i = 0; i < int64_t{n} * width - 1; ++i) REQUIRE(with_nan[i] == out[i]);
  }
}

// cosines, then sines, of positions 0 .. 49.
std::vector<float> RopeTable(int32_t d) {
  std::vector<float> table;
  for (int position = 0; position < 50; ++position) {
    for (int j = 0; j < d; ++j) {
      const double angle = position / std::pow(10000.0, 2.0 * (j % (d / 2)) / d);
      table.push_back(static_cast<float>(j < d / 2 ? std::cos(angle) : std::sin(angle)));
    }
  }
  return table;
}

// One head, normalised when `norm` is given, rotated in double.
void RotateHead(const Elements& qkv, int64_t at, int32_t d, const float* norm, float eps,
                const float* table, std::vector<double>& out) {
  double sum = 0;
  for (int32_t j = 0; j < d; ++j) sum += double{qkv[at + j]} * qkv[at + j];
  const auto x = [&](int32_t j) {
    return norm == nullptr ? double{qkv[at + j]}
                           : qkv[at + j] * norm[j] / std::sqrt(sum / d + double{eps});
  };
  for (int32_t j = 0; j < d / 2; ++j) {
    const double a = x(j), b = x(j + d / 2);
    out[static_cast<size_t>(at + j)] = a * table[j] - b * table[j + d / 2];
    out[static_cast<size_t>(at + j + d / 2)] = b * table[j] + a * table[j + d / 2];
  }
}

TEST_CASE("rotary embedding equals the formula, in prefill and in decode, and leaves v alone",
          "[small]") {
  const int32_t d = GENERATE(64, 128);
  const DType dtype = GENERATE(DType::kF32, DType::kBf16);
  const auto [num_q, num_kv] = GENERATE(table<int32_t, int32_t>({{4, 2}, {9, 3}, {5, 1}, {32, 8}}));
  constexpr int32_t kTokens = 7, kBucket = 9;
  Random random(5);
  const std::vector<float> table = RopeTable(d);
  const std::vector<float> q_norm = RandomFloats(random, d, 1), k_norm = RandomFloats(random, d, 1);
  const std::vector<int32_t> positions = {0, 49, 7, 8, 31, 2, 3};
  const OnDevice<float> table_gpu(table), q_gpu(q_norm), k_gpu(k_norm);
  const OnDevice<int32_t> positions_gpu(positions);
  const int32_t heads = num_q + 2 * num_kv;
  const int64_t width = int64_t{heads} * d;
  for (const int norms : {0, 1, 2}) {  // none, both, q alone
    INFO("d " << d << ", heads " << num_q << " and " << num_kv << ", norms " << norms << ", "
              << NameOf(dtype));
    Elements qkv(dtype, kBucket * width);
    qkv.Randomize(random, 3);
    for (int64_t i = 0; i < kBucket * width; ++i) {
      if (i >= kTokens * width || i % width >= (num_q + num_kv) * int64_t{d}) qkv.Set(i, NAN);
    }
    std::vector<double> expected(static_cast<size_t>(kTokens * width));
    for (int64_t i = 0; i < kTokens; ++i) {
      for (int32_t h = 0; h < num_q + num_kv; ++h) {
        const float* norm = norms == 0   ? nullptr
                            : h < num_q  ? q_norm.data()
                            : norms == 1 ? k_norm.data()
                                         : nullptr;
        RotateHead(qkv, i * width + h * d, d, norm, 1e-6f,
                   table.data() + int64_t{positions[static_cast<size_t>(i)]} * d, expected);
      }
    }
    RopeParams p = {.dtype = dtype,
                    .n = kTokens,
                    .positions = positions_gpu.data(),
                    .decode = {},
                    .num_q_heads = num_q,
                    .num_kv_heads = num_kv,
                    .head_dim = d,
                    .q_norm = norms == 0 ? nullptr : q_gpu.data(),
                    .k_norm = norms == 1 ? k_gpu.data() : nullptr,
                    .eps = 1e-6f,
                    .table = table_gpu.data()};
    const ElementsOnDevice prefill(qkv), decode(qkv);
    p.qkv = prefill.data();
    Gpu::Get().ops().Rope(p, Gpu::Get().stream());
    StepRows step({6, 0, 5, 1, 4, 2, 3}, 8);
    for (size_t b = 0; b < step.rows.size(); ++b) {
      step.position[static_cast<size_t>(step.rows[b])] = positions[b];
    }
    const RowsOnDevice rows(step, kBucket);
    p.qkv = decode.data();
    p.n = kBucket;
    p.positions = nullptr;
    p.decode = rows.view();
    Gpu::Get().ops().Rope(p, Gpu::Get().stream());
    Gpu::Get().Finish();
    const Elements out = prefill.Read();
    CHECK((decode.Read() == out));
    // v, and tokens past the count, keep their NaN; they do not enter the comparison otherwise.
    Elements rotated = out;
    for (int64_t i = 0; i < out.size(); ++i) {
      const bool ours = i < kTokens * width && i % width < (num_q + num_kv) * int64_t{d};
      REQUIRE(std::isnan(out[i]) == !ours);
      if (!ours) rotated.Set(i, 0);
    }
    CHECK(testing::RelativeError(rotated, expected) < testing::Tolerance(dtype));
  }
}

}  // namespace
}  // namespace spin
