// ParallelFor: the ranges cover [0, n) once, on grain boundaries, from any number of callers.
#include "common/thread_pool.h"

#include <catch2/catch.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

namespace spin {
namespace {

TEST_CASE("ranges are disjoint, cover everything and begin at multiples of the grain") {
  for (const int threads : {1, 2, 3, 5}) {
    ThreadPool pool(threads);
    CHECK(pool.num_threads() == threads);
    for (const int64_t n : {0, 1, 2, 7, 64, 1000}) {
      for (const int64_t grain : {1, 3, 64, 1000}) {
        std::vector<int> seen(size_t(n), 0);  // each element is written by one thread
        std::atomic<int> ranges{0};
        std::atomic<bool> aligned{true};
        pool.ParallelFor(n, grain, [&](int64_t begin, int64_t end) {
          ++ranges;
          if (begin % grain != 0 || begin >= end) aligned = false;
          for (int64_t i = begin; i < end; ++i) ++seen[size_t(i)];
        });
        INFO(threads << " threads, n " << n << ", grain " << grain);
        REQUIRE(aligned);
        REQUIRE(ranges <= threads);
        REQUIRE(std::all_of(seen.begin(), seen.end(), [](int count) { return count == 1; }));
        if (n > 0 && n <= grain) REQUIRE(ranges == 1);
      }
    }
  }
}

TEST_CASE("a small loop runs on the caller") {
  ThreadPool pool(4);
  std::thread::id id;
  pool.ParallelFor(5, 8, [&](int64_t, int64_t) { id = std::this_thread::get_id(); });
  CHECK(id == std::this_thread::get_id());
}

TEST_CASE("many short loops, with pauses long enough to put the workers to sleep") {
  ThreadPool pool(3);
  int64_t sum = 0;
  for (int round = 0; round < 3000; ++round) {
    int64_t parts[3] = {};
    pool.ParallelFor(3, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) parts[i] = i + 1;
    });
    sum += parts[0] + parts[1] + parts[2];
    if (round % 1000 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  CHECK(sum == 3000 * 6);
}

TEST_CASE("callers from several threads take turns") {
  ThreadPool pool(2);
  std::vector<int64_t> totals(4, 0);
  std::vector<std::thread> callers;
  for (size_t c = 0; c < 4; ++c) {
    callers.emplace_back([&, c] {
      for (int round = 0; round < 200; ++round) {
        std::atomic<int64_t> total{0};
        pool.ParallelFor(100, 10, [&](int64_t begin, int64_t end) { total += end - begin; });
        totals[c] += total;
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  for (const int64_t total : totals) CHECK(total == 200 * 100);
}

}  // namespace
}  // namespace spin
