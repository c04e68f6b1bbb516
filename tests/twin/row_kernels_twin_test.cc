// Embedding, norms, rotary embedding and SwiGLU on the GPU against the CPU twin: both within rounding of each other.
#include <limits>

#include "tests/twin/twin_testing.h"

namespace spin::testing {
namespace {

ThreadPool& Pool() {
  static ThreadPool pool(2);
  return pool;
}

template <typename T>
std::vector<double> Doubles(const T& values, int64_t n) {
  std::vector<double> result;
  for (int64_t i = 0; i < n; ++i) result.push_back(double{values[i]});
  return result;
}

TEST_CASE("embedding takes rows of the table, by ids or by the rows of a step") {
  const DType dtype = GENERATE(DType::kF32, DType::kBf16);
  const int32_t hidden = GENERATE(576, 4096, 37);
  Gpu& gpu = Gpu::Get();
  Random random(1);
  Elements table(dtype, int64_t{50} * hidden);
  table.Randomize(random, 2);
  const ElementsOnDevice table_device(table);
  const std::vector<int32_t> ids = {7, 0, 49, 7, 13};
  const OnDevice<int32_t> ids_device(ids);
  const OnDevice<float> out(std::vector<float>(ids.size() * size_t(hidden), -1.0f));
  gpu.ops().Embedding({.table = table_device.data(),
                       .dtype = dtype,
                       .ids = ids_device.data(),
                       .decode = {},
                       .n = static_cast<int32_t>(ids.size()),
                       .hidden = hidden,
                       .out = out.data()},
                      gpu.stream());
  gpu.Finish();
  const std::vector<float> rows = out.Read();
  int64_t wrong = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    for (int64_t c = 0; c < hidden; ++c) {
      wrong += rows[i * size_t(hidden) + size_t(c)] != table[ids[i] * int64_t{hidden} + c];
    }
  }
  CHECK(wrong == 0);

  StepRows step({3, 1}, 4);
  step.token = {0, 44, 0, 9};
  const RowsOnDevice rows_device(step, 5);
  const OnDevice<float> stepped(std::vector<float>(size_t(5) * size_t(hidden), -1.0f));
  gpu.ops().Embedding({.table = table_device.data(),
                       .dtype = dtype,
                       .ids = nullptr,
                       .decode = rows_device.view(),
                       .n = 5,
                       .hidden = hidden,
                       .out = stepped.data()},
                      gpu.stream());
  gpu.Finish();
  const std::vector<float> two = stepped.Read();
  CHECK(two[0] == table[int64_t{9} * hidden]);
  CHECK(two[size_t(hidden)] == table[int64_t{44} * hidden]);
  CHECK(two[2 * size_t(hidden)] == -1.0f);  // places past the count are left alone
}

TEST_CASE("RMSNorm equals the CPU within rounding, whatever the width") {
  const DType dtype = GENERATE(DType::kF32, DType::kBf16);
  const int32_t hidden = GENERATE(4, 37, 576, 4096, 9000);
  const int32_t n = GENERATE(1, 3);
  Random random(2);
  std::vector<float> in = RandomFloats(random, int64_t{n} * hidden, 3);
  in[0] = 1000;  // an outlier
  const std::vector<float> weight = RandomFloats(random, hidden, 1);
  Elements expected(dtype, int64_t{n} * hidden), poisoned(dtype, int64_t{n} * hidden);
  poisoned.Fill(std::numeric_limits<float>::quiet_NaN());
  const OnDevice<float> in_device(in), weight_device(weight);
  const ElementsOnDevice out(poisoned);
  RmsNormParams p = {
      .in = in.data(), .weight = weight.data(), .eps = 1e-6f, .n = n, .hidden = hidden};
  p.out = expected.data();
  p.out_dtype = dtype;
  cpu::RmsNorm(p, Pool());
  p.in = in_device.data();
  p.weight = weight_device.data();
  p.out = out.data();
  Gpu::Get().ops().RmsNorm(p, Gpu::Get().stream());
  Gpu::Get().Finish();
  CHECK(RelativeDifference(out.Read(), expected) <= Tolerance(dtype));
}

TEST_CASE("SwiGLU equals the CPU within rounding") {
  const DType dtype = GENERATE(DType::kF32, DType::kBf16);
  const int32_t width = GENERATE(1, 37, 1536, 12288);
  Random random(3);
  constexpr int32_t kRows = 3;
  Elements in(dtype, int64_t{kRows} * 2 * width), expected(dtype, int64_t{kRows} * width);
  in.Randomize(random, 8);
  const ElementsOnDevice in_device(in), out(expected);
  SiluMulParams p;
  p.dtype = dtype;
  p.n = kRows;
  p.width = width;
  p.gate_up = in.data();
  p.out = expected.data();
  cpu::SiluMul(p, Pool());
  p.gate_up = in_device.data();
  p.out = out.data();
  Gpu::Get().ops().SiluMul(p, Gpu::Get().stream());
  Gpu::Get().Finish();
  CHECK(RelativeDifference(out.Read(), expected) <= Tolerance(dtype));
}

TEST_CASE("rotary embedding and head norms equal the CPU within rounding") {
  const DType dtype = GENERATE(DType::kF32, DType::kBf16);
  const int32_t d = GENERATE(64, 128);
  const bool norms = GENERATE(false, true);
  const bool decode = GENERATE(false, true);
  Random random(4);
  constexpr int32_t kQ = 6, kKv = 2, kTokens = 3, kPositions = 40;
  const int64_t width = (kQ + 2 * kKv) * d;
  Elements qkv(dtype, kTokens * width);
  qkv.Randomize(random, 4);
  const std::vector<float> table = RandomFloats(random, int64_t{kPositions} * d, 1);
  const std::vector<float> norm = RandomFloats(random, d, 1);
  const std::vector<int32_t> positions = {39, 0, 17};
  StepRows step({2, 0}, 4);
  step.position = {5, 0, 31, 0};
  const ElementsOnDevice out(qkv);
  const OnDevice<float> table_device(table), norm_device(norm);
  const OnDevice<int32_t> positions_device(positions);
  const RowsOnDevice rows(step, kTokens);
  RopeParams p;
  p.qkv = qkv.data();
  p.dtype = dtype;
  p.n = decode ? 2 : kTokens;
  p.positions = decode ? nullptr : positions.data();
  p.decode = step.view();
  p.num_q_heads = kQ;
  p.num_kv_heads = kKv;
  p.head_dim = d;
  p.q_norm = p.k_norm = norms ? norm.data() : nullptr;
  p.eps = 1e-6f;
  p.table = table.data();
  cpu::Rope(p, Pool());
  p.qkv = out.data();
  p.n = kTokens;  // a bucket larger than the rows in use
  p.positions = decode ? nullptr : positions_device.data();
  p.decode = rows.view();
  p.q_norm = p.k_norm = norms ? norm_device.data() : nullptr;
  p.table = table_device.data();
  Gpu::Get().ops().Rope(p, Gpu::Get().stream());
  Gpu::Get().Finish();
  CHECK(RelativeDifference(out.Read(), qkv) <= Tolerance(dtype));
}

}  // namespace
}  // namespace spin::testing
