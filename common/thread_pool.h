// ParallelFor over a fixed set of threads, for the CPU backend.
//
// The caller is one of the threads. Work is split statically, so that results never depend on timing. Workers spin
// for a few microseconds before they sleep: a decode step is hundreds of short loops. One ParallelFor at a time;
// calls from several threads take turns.
#pragma once

#include <absl/functional/function_ref.h>

#include <cstdint>
#include <memory>

namespace spin {

class ThreadPool {
 public:
  // REQUIRES: num_threads >= 1. One means: everything on the caller.
  explicit ThreadPool(int num_threads);
  ~ThreadPool();

  int num_threads() const;

  // Calls body(begin, end) on disjoint ranges that cover [0, n), at most one range a thread, each range begin a
  // multiple of `grain`; returns when all are done. Runs on the caller alone when n <= grain. Does not allocate.
  void ParallelFor(int64_t n, int64_t grain,
                   absl::FunctionRef<void(int64_t begin, int64_t end)> body);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace spin
