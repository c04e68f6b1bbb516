// spin_bench kernels: the time of each kernel family on a backend, as a share of the ceilings that the same run
// measures.
//
// Works through the Device and Ops seams, so it measures whatever backend the build has. Sizes are Qwen3-8B's. First
// the ceilings: device copy (bytes read plus written), a large product, the link in both directions. Then a row a
// kernel: median time, its bytes over the copy bandwidth (or its operations over the product's rate) as a percentage.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "kernels/backend.h"

namespace spin::bench {

// Device memory with random contents, for the life of the bench.
class BenchMemory {
 public:
  explicit BenchMemory(Backend& backend);

  // bfloat16 values in (-1, 1).
  uint16_t* RandomBf16(int64_t elements);
  // float32 in (-1, 1).
  float* RandomFloats(int64_t elements);
  template <typename T>
  T* Ints(const std::vector<T>& values) {
    return static_cast<T*>(Upload(values.data(), static_cast<int64_t>(values.size() * sizeof(T))));
  }
  void* Zeros(int64_t bytes);
  void* RandomPinned(int64_t bytes);  // host memory of random bf16

  Backend& backend() { return backend_; }
  Stream& stream() { return *stream_; }
  // Gives back what was taken since the last call.
  void Clear();

 private:
  void* Take(MemoryKind kind, int64_t bytes);
  void* Upload(const void* data, int64_t bytes);
  void Spread(void* to, const Buffer& from, int64_t bytes);

  Backend& backend_;
  std::unique_ptr<Stream> stream_;
  Buffer block_bf16_, block_f32_;  // pinned
  std::vector<Buffer> taken_;
};

// What bounds a kernel.
enum class Ceiling { kCopy, kProduct, kLink, kLinkOut };

struct KernelRow {
  std::string name;
  Ceiling ceiling = Ceiling::kCopy;
  double amount = 0;  // bytes, or operations, a call
  int calls_a_sample =
      1;  // launched back to back in one captured run; 1: launched and timed singly
  std::function<void(int64_t i)> call;  // on copy i of its cold data
};

struct KernelRowMaker {
  std::string name;
  std::function<KernelRow(BenchMemory&)> make;
};

std::vector<KernelRowMaker> DenseKernelRows();    // kernel_rows_dense.cc
std::vector<KernelRowMaker> SparseKernelRows();   // kernel_rows_sparse.cc
std::vector<KernelRowMaker> ClusterKernelRows();  // kernel_rows_clusters.cc
std::vector<KernelRowMaker> KeyKernelRows();      // kernel_rows_keys.cc

// Arguments: --device=auto|cpu|cuda, --filter=TEXT (rows whose name contains it). Returns the exit status.
int RunKernels(std::span<const std::string> args);

}  // namespace spin::bench
