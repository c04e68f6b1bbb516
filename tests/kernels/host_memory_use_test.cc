// Who takes more host memory than there is is refused, and leaves what others have alone.
#include "kernels/host_memory_use.h"

#include <catch2/catch.hpp>

#include <atomic>
#include <thread>
#include <vector>

namespace spin {
namespace {

constexpr int64_t kMiB = 1 << 20;

TEST_CASE("memory is taken up to the limit, and what was refused takes none") {
  HostMemoryUse use(10 * kMiB);
  CHECK(use.Take(6 * kMiB).ok());
  const absl::Status refused = use.Take(5 * kMiB);
  CHECK(absl::IsResourceExhausted(refused));
  CHECK(MessageOf(refused) ==
        "cannot allocate 5.00 MiB: 6.00 MiB of the 10.0 MiB that the process may use are taken");
  CHECK(use.Take(4 * kMiB).ok());
  CHECK_FALSE(use.Take(1).ok());
  use.Give(6 * kMiB);
  CHECK(use.Take(6 * kMiB).ok());
  CHECK_FALSE(use.Take(1).ok());
}

TEST_CASE("threads together never have more than the limit") {
  constexpr int64_t kLimit = 5;
  HostMemoryUse use(kLimit);
  std::atomic<int64_t> held = 0, most = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 20000; ++i) {
        if (!use.Take(2).ok()) continue;
        const int64_t now = held.fetch_add(2) + 2;
        for (int64_t seen = most; now > seen && !most.compare_exchange_weak(seen, now);) {
        }
        held.fetch_sub(2);
        use.Give(2);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(most >= 2);
  CHECK(most <= kLimit);
  CHECK(use.Take(kLimit).ok());  // all of it came back
}

}  // namespace
}  // namespace spin
