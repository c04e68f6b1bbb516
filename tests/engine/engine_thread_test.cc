// The engine on its own thread: submissions and cancellations from several threads, draining,
// stopping.
#include <catch2/catch.hpp>

#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "engine/engine.h"
#include "engine/engine_loop.h"
#include "tests/testing/engine_harness.h"

namespace spin {
namespace {

constexpr int64_t kSecond = 1'000'000'000;

HarnessOptions ThreadHarness() {
  HarnessOptions options = DefaultHarness();
  options.real_time = true;
  return options;
}

TEST_CASE("threads submit and cancel while the loop runs; what is not cancelled is right") {
  HarnessOptions options = ThreadHarness();
  options.engine.max_queue = 1000;
  EngineHarness h(options);
  constexpr int kThreads = 4;
  constexpr int kRequests = 40;
  struct Slot {
    Request request;
    std::shared_ptr<RecordingSink> sink;
    bool cancelled = false;
  };
  std::vector<std::vector<Slot>> slots(kThreads, std::vector<Slot>(kRequests));
  h.engine.Start();
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kRequests; ++i) {
        Slot& slot = slots[static_cast<std::size_t>(t)][static_cast<std::size_t>(i)];
        slot.request = h.MakeRequest(20 + i, 30, static_cast<uint64_t>(1000 * t + i));
        slot.sink = h.Submit(slot.request);
        if (i % 5 == 4) {
          slot.cancelled = true;
          h.engine.Cancel(slot.request.id);
        }
        (void)h.engine.snapshot();
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(h.engine.Drain(60 * kSecond));
  h.engine.Stop();
  for (const auto& of_thread : slots) {
    for (const Slot& slot : of_thread) {
      if (!slot.cancelled) CHECK(h.Matches(slot.request, *slot.sink));
    }
  }
  CHECK(h.memory.usage().slot_extents == 0);
}

TEST_CASE("draining refuses new requests and finishes the running ones") {
  EngineHarness h(ThreadHarness());
  h.engine.Start();
  const Request request = h.MakeRequest(100, 50);
  const auto sink = h.Submit(request);
  CHECK(h.engine.Drain(60 * kSecond));
  CHECK(h.Matches(request, *sink));
  Request late = h.MakeRequest(10, 10);
  late.sink = std::make_shared<RecordingSink>(1);
  CHECK(h.engine.Submit(late).code() == absl::StatusCode::kUnavailable);
  h.engine.Stop();
}

TEST_CASE("a drain that takes too long gives up, and the sinks hear why") {
  HarnessOptions options = ThreadHarness();
  options.collect_sleep_ns = 2'000'000;
  EngineHarness h(options);
  h.engine.Start();
  const auto running = h.Submit(h.MakeRequest(100, 3000, 1));
  const auto queued = h.Submit(h.MakeRequest(3000, 1000, 2));
  CHECK_FALSE(h.engine.Drain(kSecond / 20));
  h.engine.Stop();
  CHECK(running->finished);
  CHECK(running->error.code() == absl::StatusCode::kUnavailable);
  CHECK(queued->error.code() == absl::StatusCode::kUnavailable);
  CHECK(h.memory.usage().slot_extents == 0);
}

TEST_CASE("a second drain with less patience cuts the first one short") {
  HarnessOptions options = ThreadHarness();
  options.collect_sleep_ns = 2'000'000;
  EngineHarness h(options);
  h.engine.Start();
  const auto running = h.Submit(h.MakeRequest(100, 3000));
  bool in_time = false;
  std::thread patient([&] { in_time = h.engine.Drain(600 * kSecond); });
  CHECK_FALSE(h.engine.Drain(kSecond / 20));
  patient.join();
  CHECK(in_time);  // nothing was alive any more when it looked
  h.engine.Stop();
  CHECK(running->error.code() == absl::StatusCode::kUnavailable);
}

TEST_CASE("stopping without draining gives everything up") {
  EngineHarness h(ThreadHarness());
  h.engine.Start();
  const auto sink = h.Submit(h.MakeRequest(100, 3000));
  h.engine.Stop();
  CHECK(sink->finished);
  CHECK(h.memory.usage().slot_extents == 0);
  CHECK_FALSE(h.executor.prefill_active());
}

TEST_CASE("an engine that never started can be drained and destroyed") {
  EngineHarness h(ThreadHarness());
  CHECK(h.engine.Drain(0));
  const EngineHarness unused(ThreadHarness());
}

TEST_CASE("the loop sleeps when idle and wakes for each call, however they fall") {
  std::atomic<int> work{0};
  std::atomic<int> done{0};
  std::atomic<int> steps{0};
  EngineLoop loop([&] {
    steps.fetch_add(1);
    const int taken = work.exchange(0);
    done.fetch_add(taken);
    return taken > 0;
  });
  loop.Start();
  for (int i = 0; i < 1000; ++i) {
    work.fetch_add(1);
    loop.Wake();
  }
  while (done.load() < 1000) std::this_thread::yield();
  const int before = steps.load();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  CHECK(steps.load() <= before + 2);
  loop.Stop();
  loop.Stop();
}

}  // namespace
}  // namespace spin
