#include "tools/bench/kernel_bench.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string_view>

#include "common/check.h"
#include "common/random.h"

namespace spin::bench {
namespace {

constexpr int64_t kBlockBytes = int64_t{64} << 20;
constexpr int kWarmUps = 3;
constexpr int kSamples = 21;

struct Ceilings {
  double copy = 0;                    // bytes/s, read plus written
  double product = 0;                 // operations/s
  double to_device = 0, to_host = 0;  // bytes/s
};

class Timer {
 public:
  explicit Timer(BenchMemory& memory)
      : device_(*memory.backend().device),
        stream_(memory.stream()),
        begin_(device_.CreateEvent()),
        end_(device_.CreateEvent()) {}

  // Median seconds of one call.
  double Seconds(const KernelRow& row) {
    const uint64_t key = ++next_key_;
    int64_t at = 0;
    const auto run = [&] {
      for (int i = 0; i < row.calls_a_sample; ++i) row.call(at++);
    };
    const auto once = [&] {
      if (row.calls_a_sample == 1) {
        run();
      } else {
        device_.Replay(key, stream_, run);
      }
    };
    for (int i = 0; i < kWarmUps; ++i) once();
    std::vector<double> seconds;
    for (int i = 0; i < kSamples; ++i) {
      device_.Record(*begin_, stream_);
      once();
      device_.Record(*end_, stream_);
      device_.Synchronize(*end_);
      const auto ns = static_cast<double>(device_.ElapsedNs(*begin_, *end_));
      seconds.push_back(ns * 1e-9 / row.calls_a_sample);
    }
    std::nth_element(seconds.begin(), seconds.begin() + kSamples / 2, seconds.end());
    return seconds[kSamples / 2];
  }

 private:
  Device& device_;
  Stream& stream_;
  std::unique_ptr<Event> begin_, end_;
  uint64_t next_key_ = 0;
};

double CopyRate(BenchMemory& memory, Timer& timer, void* to, const void* from, int64_t bytes) {
  KernelRow row;
  row.call = [&, to, from, bytes](int64_t) {
    memory.backend().device->Copy(to, from, bytes, memory.stream());
  };
  return static_cast<double>(bytes) / timer.Seconds(row);
}

double ProductRate(BenchMemory& memory, Timer& timer) {
  const int32_t n = memory.backend().device->info().shares_host_memory ? 1024 : 8192;
  GemmParams p;
  p.a = memory.RandomBf16(int64_t{n} * n);
  p.lda = n;
  p.w = {memory.RandomBf16(int64_t{n} * n), n, n, DType::kBf16};
  p.m = n;
  p.c = memory.RandomBf16(int64_t{n} * n);
  p.ldc = n;
  p.c_dtype = DType::kBf16;
  KernelRow row;
  row.call = [&memory, p](int64_t) { memory.backend().ops->Gemm(p, memory.stream()); };
  return 2.0 * n * n * n / timer.Seconds(row);
}

Ceilings MeasureCeilings(BenchMemory& memory, Timer& timer) {
  const int64_t bytes =
      memory.backend().device->info().shares_host_memory ? kBlockBytes : 16 * kBlockBytes;
  Ceilings ceilings;
  void* a = memory.RandomBf16(bytes / 2);
  void* b = memory.RandomBf16(bytes / 2);
  void* host = memory.RandomPinned(bytes);
  ceilings.copy = 2 * CopyRate(memory, timer, a, b, bytes);
  ceilings.to_device = CopyRate(memory, timer, a, host, bytes);
  ceilings.to_host = CopyRate(memory, timer, host, a, bytes);
  ceilings.product = ProductRate(memory, timer);
  memory.Clear();
  return ceilings;
}

double CeilingOf(const KernelRow& row, const Ceilings& ceilings) {
  switch (row.ceiling) {
    case Ceiling::kCopy:
      return ceilings.copy;
    case Ceiling::kProduct:
      return ceilings.product;
    case Ceiling::kLink:
      return ceilings.to_device;
    case Ceiling::kLinkOut:
      return ceilings.to_host;
  }
  SPIN_CHECK(false);
}

void PrintRow(const KernelRow& row, double seconds, const Ceilings& ceilings) {
  const bool product = row.ceiling == Ceiling::kProduct;
  const double rate = row.amount / seconds;
  std::printf("%-52s %10.2f %10.1f %-8s %7.1f\n", row.name.c_str(), seconds * 1e6,
              rate * (product ? 1e-12 : 1e-9), product ? "TFLOP/s" : "GB/s",
              100 * rate / CeilingOf(row, ceilings));
  std::fflush(stdout);
}

}  // namespace

BenchMemory::BenchMemory(Backend& backend)
    : backend_(backend), stream_(backend.device->CreateStream("bench")) {
  block_bf16_ = *backend.device->Allocate(MemoryKind::kPinned, kBlockBytes);
  block_f32_ = *backend.device->Allocate(MemoryKind::kPinned, kBlockBytes);
  Random random(1);
  for (int64_t i = 0; i < kBlockBytes / 4; ++i) {
    const float value = 2 * random.Uniform() - 1;
    block_f32_.as<float>()[i] = value;
    block_bf16_.as<uint16_t>()[2 * i] = FloatToBf16(value);
    block_bf16_.as<uint16_t>()[2 * i + 1] = FloatToBf16(2 * random.Uniform() - 1);
  }
}

void* BenchMemory::Take(MemoryKind kind, int64_t bytes) {
  auto buffer = backend_.device->Allocate(kind, bytes);
  SPIN_CHECK_OK(buffer.status());
  taken_.push_back(*std::move(buffer));
  return taken_.back().data();
}

void BenchMemory::Spread(void* to, const Buffer& from, int64_t bytes) {
  for (int64_t at = 0; at < bytes; at += kBlockBytes) {
    backend_.device->Copy(static_cast<char*>(to) + at, from.data(),
                          std::min(kBlockBytes, bytes - at), *stream_);
  }
  backend_.device->Synchronize(*stream_);
}

uint16_t* BenchMemory::RandomBf16(int64_t elements) {
  void* data = Take(MemoryKind::kDevice, elements * 2);
  Spread(data, block_bf16_, elements * 2);
  return static_cast<uint16_t*>(data);
}

float* BenchMemory::RandomFloats(int64_t elements) {
  void* data = Take(MemoryKind::kDevice, elements * 4);
  Spread(data, block_f32_, elements * 4);
  return static_cast<float*>(data);
}

void* BenchMemory::RandomPinned(int64_t bytes) {
  void* data = Take(MemoryKind::kPinned, bytes);
  Spread(data, block_bf16_, bytes);
  return data;
}

void* BenchMemory::Zeros(int64_t bytes) {
  void* data = Take(MemoryKind::kDevice, bytes);
  backend_.device->Fill(data, 0, bytes, *stream_);
  return data;
}

void* BenchMemory::Upload(const void* data, int64_t bytes) {
  void* to = Take(MemoryKind::kDevice, bytes);
  const Buffer pinned = *backend_.device->Allocate(MemoryKind::kPinned, bytes);
  std::memcpy(pinned.data(), data, static_cast<size_t>(bytes));
  backend_.device->Copy(to, pinned.data(), bytes, *stream_);
  backend_.device->Synchronize(*stream_);
  return to;
}

void BenchMemory::Clear() {
  backend_.device->Synchronize(*stream_);
  taken_.clear();
}

int RunKernels(std::span<const std::string> args) {
  BackendOptions options;
  std::string filter;
  for (const std::string& arg : args) {
    if (arg.starts_with("--device=")) {
      options.device = arg.substr(9);
    } else if (arg.starts_with("--filter=")) {
      filter = arg.substr(9);
    } else {
      const bool help = arg == "--help";
      std::fprintf(help ? stdout : stderr,
                   "usage: spin_bench kernels [--device=auto|cpu|cuda] [--filter=TEXT]\n");
      return help ? 0 : 2;
    }
  }
  absl::StatusOr<Backend> backend = CreateBackend(options);
  if (!backend.ok()) {
    std::fprintf(stderr, "spin_bench kernels: %s\n", MessageOf(backend.status()).c_str());
    return 1;
  }
  BenchMemory memory(*backend);
  Timer timer(memory);
  const Ceilings ceilings = MeasureCeilings(memory, timer);
  std::printf("%s\n", backend->device->info().name.c_str());
  std::printf("ceilings: copy %.2f TB/s, product %.0f TFLOP/s, link %.1f GB/s in, %.1f out\n\n",
              ceilings.copy * 1e-12, ceilings.product * 1e-12, ceilings.to_device * 1e-9,
              ceilings.to_host * 1e-9);
  std::printf("%-52s %10s %19s %7s\n", "kernel", "us", "", "ceil %");
  for (const auto& makers :
       {DenseKernelRows(), SparseKernelRows(), ClusterKernelRows(), KeyKernelRows()}) {
    for (const KernelRowMaker& maker : makers) {
      if (maker.name.find(filter) == std::string::npos) continue;
      const KernelRow row = maker.make(memory);
      PrintRow(row, timer.Seconds(row), ceilings);
      memory.Clear();
    }
  }
  return 0;
}

}  // namespace spin::bench
