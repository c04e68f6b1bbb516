// Packed-weight products against double sums; and the promise that a row's outputs do not depend on
// its batch.
#include <string>

#include "kernels/cpu/families.h"
#include "kernels/cpu/pack_weight.h"
#include "tests/kernels/kernel_testing.h"

namespace spin {
namespace {

using testing::Elements;
using testing::ForEachIsa;

struct Problem {
  Problem(DType dtype, int32_t m, int32_t n, int32_t k, float outlier = 1)
      : m(m),
        n(n),
        k(k),
        a(dtype, int64_t{m} * k),
        b(dtype, int64_t{n} * k),
        packed(size_t(cpu::PackedWeightBytes(n, k, dtype))) {
    Random random(static_cast<uint64_t>(m * 1000 + n * 10 + k));
    a.Randomize(random, 1);
    b.Randomize(random, 1);
    if (k > 3) {
      for (int32_t i = 0; i < m; ++i) a.Set(int64_t{i} * k + 3, outlier);
    }
    // Rows past n must not matter.
    std::fill(packed.begin(), packed.end(), static_cast<unsigned char>(0xff));
    cpu::PackWeight(packed.data(), n, k, dtype, 0, n, b.data(), dtype);
  }

  GemmParams Params(Elements& c) const {
    GemmParams p;
    p.a = a.data();
    p.lda = k;
    p.w = {packed.data(), n, k, a.dtype()};
    p.m = m;
    p.c = c.data();
    p.ldc = n;
    p.c_dtype = c.dtype();
    return p;
  }
  std::vector<double> Reference() const {
    std::vector<double> c;
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        double sum = 0;
        for (int64_t x = 0; x < k; ++x) sum += double{a[i * k + x]} * b[j * k + x];
        c.push_back(sum);
      }
    }
    return c;
  }

  int32_t m, n, k;
  Elements a, b;
  std::vector<unsigned char> packed;
};

TEST_CASE("products equal the double reference at odd sizes, on every instruction set") {
  ThreadPool pool(2);
  struct Size {
    int32_t m, n, k;
  };
  for (const DType dtype : {DType::kF32, DType::kBf16}) {
    for (const Size s : {Size{1, 1, 1}, Size{1, 31, 2}, Size{2, 32, 7}, Size{3, 33, 64},
                         Size{12, 65, 65}, Size{13, 100, 130}, Size{25, 16, 96}, Size{37, 47, 3}}) {
      const Problem problem(dtype, s.m, s.n, s.k);
      const std::vector<double> expected = problem.Reference();
      ForEachIsa([&](cpu::Isa) {
        INFO(NameOf(dtype) << " " << s.m << " x " << s.n << " x " << s.k);
        Elements c(DType::kF32, int64_t{s.m} * s.n);
        c.Fill(NAN);
        cpu::Gemm(problem.Params(c), pool);
        CHECK(testing::RelativeError(c, expected) < 1e-5);
        Elements rounded(DType::kBf16, c.size());
        cpu::Gemm(problem.Params(rounded), pool);
        CHECK(testing::RelativeError(rounded, expected) < 5e-3);
      });
    }
  }
}

TEST_CASE("zero rows are no work") {
  ThreadPool pool(2);
  const Problem problem(DType::kBf16, 0, 32, 32);
  Elements c(DType::kF32, 1);
  c.Fill(7);
  cpu::Gemm(problem.Params(c), pool);
  CHECK(c[0] == 7);
}

TEST_CASE("an outlier channel keeps its precision") {
  ThreadPool pool(1);
  const Problem problem(DType::kBf16, 4, 64, 576, 3000);
  const std::vector<double> expected = problem.Reference();
  ForEachIsa([&](cpu::Isa) {
    Elements c(DType::kF32, 4 * 64);
    cpu::Gemm(problem.Params(c), pool);
    CHECK(testing::RelativeError(c, expected) < 1e-5);
  });
}

TEST_CASE("accumulate adds the product to what is there; strides leave the gaps alone") {
  ThreadPool pool(2);
  const Problem problem(DType::kBf16, 5, 40, 64);
  const std::vector<double> product = problem.Reference();
  ForEachIsa([&](cpu::Isa) {
    Elements c(DType::kF32, 5 * 48);
    c.Fill(2);
    GemmParams p = problem.Params(c);
    p.ldc = 48;
    p.accumulate = true;
    cpu::Gemm(p, pool);
    for (int64_t i = 0; i < 5; ++i) {
      for (int64_t j = 0; j < 48; ++j) {
        const double expected = j < 40 ? 2 + product[size_t(i * 40 + j)] : 2;
        REQUIRE(std::abs(c[i * 48 + j] - expected) < 1e-4);
      }
    }
  });
}

TEST_CASE("a row's outputs are the same bits alone, in any batch, with any number of threads") {
  for (const DType dtype : {DType::kF32, DType::kBf16}) {
    const Problem problem(dtype, 61, 96, 150);
    ForEachIsa([&](cpu::Isa) {
      ThreadPool one(1);
      Elements all(DType::kF32, 61 * 96);
      cpu::Gemm(problem.Params(all), one);
      ThreadPool three(3);
      Elements split(DType::kF32, 61 * 96);
      cpu::Gemm(problem.Params(split), three);
      CHECK(all == split);
      for (const int32_t m : {1, 2, 3, 7, 12, 16, 23, 30}) {
        const int32_t first = 61 - m;
        Elements some(DType::kF32, int64_t{m} * 96);
        GemmParams p = problem.Params(some);
        p.a = static_cast<const char*>(p.a) + int64_t{first} * 150 * SizeOf(dtype);
        p.m = m;
        cpu::Gemm(p, three);
        INFO(NameOf(dtype) << " m " << m);
        REQUIRE(std::memcmp(some.data(),
                            static_cast<const float*>(all.data()) + int64_t{first} * 96,
                            size_t(m) * 96 * 4) == 0);
      }
    });
  }
}

TEST_CASE("a weight packed in pieces, from any type, is the weight packed at once") {
  Random random(3);
  const int32_t n = 70, k = 33;
  Elements f32(DType::kF32, int64_t{n} * k);
  f32.Randomize(random, 1);
  Elements bf16(DType::kBf16, f32.size());
  std::vector<uint16_t> f16(size_t(f32.size()));
  for (int64_t i = 0; i < f32.size(); ++i) {
    bf16.Set(i, f32[i]);
    f16[size_t(i)] =
        static_cast<uint16_t>(0x3c00 + i % 7);  // 1 and a little: exact in bf16's seven bits
  }
  std::vector<unsigned char> whole(size_t(cpu::PackedWeightBytes(n, k, DType::kBf16)));
  std::vector<unsigned char> pieces(whole.size());
  cpu::PackWeight(whole.data(), n, k, DType::kBf16, 0, n, bf16.data(), DType::kBf16);
  for (const auto& [begin, rows] : {std::pair{0, 5}, std::pair{5, 40}, std::pair{45, 25}}) {
    cpu::PackWeight(pieces.data(), n, k, DType::kBf16, begin, rows,
                    static_cast<const float*>(f32.data()) + int64_t{begin} * k, DType::kF32);
  }
  CHECK(whole == pieces);

  std::vector<unsigned char> wide(size_t(cpu::PackedWeightBytes(n, k, DType::kF32)));
  cpu::PackWeight(wide.data(), n, k, DType::kF32, 0, n, f16.data(), DType::kF16);
  float first[3];
  for (int i = 0; i < 3; ++i) std::memcpy(first + i, wide.data() + size_t(i) * 32 * 4, 4);
  CHECK(first[0] == 1.0f);
  CHECK(first[1] == 1.0f + 0x1p-10f);
  CHECK(first[2] == 1.0f + 0x2p-10f);
}

}  // namespace
}  // namespace spin
