// Linear layers on the GPU against float64, through the weights' own way onto the device.
#include <cmath>

#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/families.h"
#include "tests/twin/twin_testing.h"

namespace spin::testing {
namespace {

struct Shape {
  int32_t m, n, k;
};

enum class Way { kOps, kSkinny };

void CheckGemm(const Shape& shape, DType dtype, DType c_dtype, bool accumulate,
               Way way = Way::kOps) {
  INFO("m " << shape.m << " n " << shape.n << " k " << shape.k << " " << NameOf(dtype)
            << (accumulate ? " accumulated" : ""));
  Gpu& gpu = Gpu::Get();
  Random random(static_cast<uint64_t>(shape.m + shape.n));
  Elements a(dtype, int64_t{shape.m} * shape.k), w(dtype, int64_t{shape.n} * shape.k);
  Elements c(c_dtype, int64_t{shape.m} * shape.n);
  a.Randomize(random, 1);
  w.Randomize(random, 1);
  c.Randomize(random, 1);
  std::vector<double> expected(static_cast<size_t>(c.size()));
  for (int64_t i = 0; i < shape.m; ++i) {
    for (int64_t j = 0; j < shape.n; ++j) {
      double sum = accumulate ? double{c[i * shape.n + j]} : 0;
      for (int64_t x = 0; x < shape.k; ++x) {
        sum += double{a[i * shape.k + x]} * double{w[j * shape.k + x]};
      }
      expected[static_cast<size_t>(i * shape.n + j)] = sum;
    }
  }
  const ElementsOnDevice a_device(a), c_device(c);
  const Buffer weight =
      gpu.Allocate(MemoryKind::kDevice, gpu.ops().PackedWeightBytes(shape.n, shape.k, dtype));
  const int32_t half = shape.n / 2;  // a fused weight is packed in parts
  REQUIRE(
      gpu.ops().PackWeight(weight.data(), shape.n, shape.k, dtype, 0, half, w.data(), dtype).ok());
  const char* rest = static_cast<const char*>(w.data()) + int64_t{half} * shape.k * SizeOf(dtype);
  REQUIRE(gpu.ops()
              .PackWeight(weight.data(), shape.n, shape.k, dtype, half, shape.n - half, rest, dtype)
              .ok());
  const GemmParams p = {.a = a_device.data(),
                        .lda = shape.k,
                        .w = {weight.data(), shape.n, shape.k, dtype},
                        .m = shape.m,
                        .c = c_device.data(),
                        .ldc = shape.n,
                        .c_dtype = c_dtype,
                        .accumulate = accumulate};
  if (way == Way::kOps) {
    gpu.ops().Gemm(p, gpu.stream());
  } else {
    cuda::SkinnyGemm(p, cuda::StreamOf(gpu.stream()));
  }
  gpu.Finish();
  CHECK(RelativeError(c_device.Read(), expected) <= Tolerance(c_dtype));
}

TEST_CASE("products of every type equal float64 within rounding") {
  for (const Shape shape :
       {Shape{1, 64, 64}, Shape{3, 96, 192}, Shape{17, 320, 576}, Shape{300, 128, 64}}) {
    CheckGemm(shape, DType::kF32, DType::kF32, false);
    CheckGemm(shape, DType::kF32, DType::kF32, true);
    CheckGemm(shape, DType::kBf16, DType::kBf16, false);
    CheckGemm(shape, DType::kBf16, DType::kF32, false);
    CheckGemm(shape, DType::kBf16, DType::kF32, true);
  }
}

// Slices of k of unequal length, of none at all, longer than what is in flight; every number of rows.
TEST_CASE("products of a few rows by the own kernel equal float64 within rounding") {
  for (const Shape shape : {Shape{1, 64, 64}, Shape{2, 576, 576}, Shape{5, 16, 4096},
                            Shape{8, 192, 1536}, Shape{9, 96, 2592}, Shape{16, 1040, 288}}) {
    CheckGemm(shape, DType::kBf16, DType::kBf16, false, Way::kSkinny);
    CheckGemm(shape, DType::kBf16, DType::kF32, false, Way::kSkinny);
    CheckGemm(shape, DType::kBf16, DType::kF32, true, Way::kSkinny);
  }
  for (int32_t m = 1; m <= 16; ++m) {
    CheckGemm({m, 48, 544}, DType::kBf16, DType::kF32, true, Way::kSkinny);
  }
}

TEST_CASE("weights of any file type arrive rounded to nearest even") {
  Gpu& gpu = Gpu::Get();
  constexpr int32_t kRows = 3, kCols = 1000;
  Random random(5);
  std::vector<float> values = RandomFloats(random, kRows * kCols, 3);
  const Buffer weight =
      gpu.Allocate(MemoryKind::kDevice, gpu.ops().PackedWeightBytes(kRows, kCols, DType::kBf16));
  REQUIRE(gpu.ops()
              .PackWeight(weight.data(), kRows, kCols, DType::kBf16, 0, kRows, values.data(),
                          DType::kF32)
              .ok());
  std::vector<uint16_t> packed(values.size());
  gpu.CopyOut(packed.data(), weight.data(), static_cast<int64_t>(packed.size() * 2));
  bool equal = true;
  for (size_t i = 0; i < values.size(); ++i) equal = equal && packed[i] == FloatToBf16(values[i]);
  CHECK(equal);
}

TEST_CASE("a small product by the own kernel", "[small]") {
  CheckGemm({3, 48, 544}, DType::kBf16, DType::kF32, true, Way::kSkinny);
}

}  // namespace
}  // namespace spin::testing
