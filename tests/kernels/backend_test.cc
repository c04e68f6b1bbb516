// The backend as the layers above see it: made by name, working through streams.
#include "kernels/backend.h"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <vector>

namespace spin {
namespace {

TEST_CASE("auto and cpu make a CPU backend; cuda says what is missing; nonsense is refused") {
  for (const char* device : {"auto", "cpu"}) {
    BackendOptions options;
    options.device = device;
    const auto backend = CreateBackend(options);
    REQUIRE(backend.ok());
    CHECK(backend->device->info().host_bytes > 0);
    CHECK_FALSE(backend->device->info().captures_steps);
  }
  BackendOptions cuda;
  cuda.device = "cuda";
  const auto refused = CreateBackend(cuda);
  REQUIRE_FALSE(refused.ok());
  CHECK(MessageOf(refused.status()).find("--config=cuda") != std::string::npos);
  BackendOptions tpu;
  tpu.device = "tpu";
  CHECK(absl::IsInvalidArgument(CreateBackend(tpu).status()));
  BackendOptions threads;
  threads.threads = -1;
  CHECK(absl::IsInvalidArgument(CreateBackend(threads).status()));
}

TEST_CASE("work goes through streams: a linear layer and a norm in order, on threads and inline") {
  for (const bool inline_streams : {false, true}) {
    BackendOptions options;
    options.threads = 2;
    options.inline_streams = inline_streams;
    Backend backend = CreateBackend(options).value();
    Ops& ops = *backend.ops;
    const int32_t n = 40, k = 6;
    const std::vector<float> identity = [&] {
      std::vector<float> w(size_t(n) * k, 0.0f);
      for (int32_t i = 0; i < k; ++i) w[size_t(i) * k + size_t(i)] = 2.0f;
      return w;
    }();
    Buffer weight =
        backend.device->Allocate(MemoryKind::kDevice, ops.PackedWeightBytes(n, k, DType::kF32))
            .value();
    const int32_t step = ops.WeightRowAlignment();
    for (int32_t row = 0; row < n; row += step) {
      REQUIRE(ops.PackWeight(weight.data(), n, k, DType::kF32, row, std::min(step, n - row),
                             identity.data() + int64_t{row} * k, DType::kF32)
                  .ok());
    }
    const std::vector<float> a = {1, -2, 3, -4, 5, -6};
    const std::vector<float> ones(size_t(n), 1.0f);
    std::vector<float> c(size_t(n), -1.0f);
    std::vector<float> normed(size_t(n), -1.0f);
    auto stream = backend.device->CreateStream("test");
    GemmParams gemm;
    gemm.a = a.data();
    gemm.lda = k;
    gemm.w = {weight.data(), n, k, DType::kF32};
    gemm.m = 1;
    gemm.c = c.data();
    gemm.ldc = n;
    ops.Gemm(gemm, *stream);
    RmsNormParams norm;
    norm.in = c.data();
    norm.weight = ones.data();
    norm.n = 1;
    norm.hidden = n;
    norm.out = normed.data();
    norm.out_dtype = DType::kF32;
    ops.RmsNorm(norm, *stream);
    backend.device->Synchronize(*stream);
    CHECK(c[0] == 2);
    CHECK(c[5] == -12);
    CHECK(c[39] == 0);
    // mean of squares: 4 * (1 + 4 + 9 + 16 + 25 + 36) / 40 = 9.1
    CHECK(normed[4] == Approx(10 / std::sqrt(9.1)));
  }
}

}  // namespace
}  // namespace spin
