// The CPU device: order within a stream, order among streams by events, a full ring, memory and its
// limit.
#include "kernels/cpu/cpu_device.h"

#include <catch2/catch.hpp>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "kernels/cpu/cpu_stream.h"

namespace spin {
namespace {

struct Append {
  std::vector<int>* out;
  int value;
};
void Run(const Append& a) {
  a.out->push_back(a.value);
}

void Enqueue(Stream& stream, std::vector<int>& out, int value) {
  static_cast<cpu::CpuStream&>(stream).Enqueue<Append>(Run, Append{&out, value});
}

struct Nap {
  int milliseconds;
};
void Sleep(Stream& stream, int milliseconds) {
  static_cast<cpu::CpuStream&>(stream).Enqueue<Nap>(
      [](const Nap& nap) {
        std::this_thread::sleep_for(std::chrono::milliseconds(nap.milliseconds));
      },
      Nap{milliseconds});
}

TEST_CASE("work of a stream runs in order, asynchronously, more of it than the ring holds") {
  cpu::CpuDevice device(2, false);
  auto stream = device.CreateStream("test");
  std::vector<int> out;
  Sleep(*stream, 20);  // lets the ring fill up
  constexpr int kTasks = 3 * static_cast<int>(cpu::ThreadStream::kRingTasks);
  for (int i = 0; i < kTasks; ++i) Enqueue(*stream, out, i);
  device.Synchronize(*stream);
  REQUIRE(out.size() == kTasks);
  for (int i = 0; i < kTasks; ++i) REQUIRE(out[size_t(i)] == i);
}

TEST_CASE("enqueueing returns before the work is done; inline streams work at once") {
  std::vector<int> out;
  {
    cpu::CpuDevice device(2, false);
    auto stream = device.CreateStream("test");
    std::atomic<bool> go{false};
    struct Gate {
      std::atomic<bool>* go;
    };
    static_cast<cpu::CpuStream&>(*stream).Enqueue<Gate>(
        [](const Gate& gate) {
          while (!gate.go->load()) std::this_thread::yield();
        },
        Gate{&go});
    Enqueue(*stream, out, 1);
    go = true;  // would never be reached otherwise
  }             // the destructor waits
  CHECK(out.size() == 1);
  cpu::CpuDevice device(1, true);
  auto stream = device.CreateStream("inline");
  Enqueue(*stream, out, 2);
  CHECK(out.size() == 2);
}

TEST_CASE("a stream waits for another's event, for the record it saw") {
  cpu::CpuDevice device(2, false);
  auto a = device.CreateStream("a");
  auto b = device.CreateStream("b");
  auto event = device.CreateEvent();
  for (int round = 0; round < 50; ++round) {
    std::vector<int> out;
    if (round % 10 == 0) Sleep(*a, 2);
    Enqueue(*a, out, 1);
    device.Record(*event, *a);
    device.Wait(*b, *event);
    Enqueue(*b, out, 2);
    device.Record(*event, *b);
    device.Wait(*a, *event);
    Enqueue(*a, out, 3);
    device.Record(*event, *a);
    device.Synchronize(*event);
    REQUIRE(out == std::vector<int>{1, 2, 3});
  }
}

TEST_CASE("whether an event has passed is told without waiting") {
  cpu::CpuDevice device(1, false);
  auto stream = device.CreateStream("a");
  auto event = device.CreateEvent();
  CHECK(device.Passed(*event));  // never recorded
  std::atomic<bool> go{false};
  struct Gate {
    std::atomic<bool>* go;
  };
  static_cast<cpu::CpuStream&>(*stream).Enqueue<Gate>(
      [](const Gate& gate) {
        while (!gate.go->load()) std::this_thread::yield();
      },
      Gate{&go});
  device.Record(*event, *stream);
  CHECK_FALSE(device.Passed(*event));
  go = true;
  device.Synchronize(*event);
  CHECK(device.Passed(*event));
}

TEST_CASE("an event that was never recorded, or was destroyed early, holds nobody up") {
  cpu::CpuDevice device(2, false);
  auto a = device.CreateStream("a");
  auto b = device.CreateStream("b");
  auto idle = device.CreateEvent();
  device.Synchronize(*idle);
  device.Wait(*a, *idle);
  std::vector<int> out;
  {
    auto event = device.CreateEvent();
    Sleep(*a, 5);
    device.Record(*event, *a);
    device.Wait(*b, *event);
    Enqueue(*b, out, 1);
  }
  device.Synchronize(*b);
  CHECK(out.size() == 1);
}

TEST_CASE("an event recorded on two streams passes when the later record has passed") {
  cpu::CpuDevice device(2, false);
  auto slow = device.CreateStream("slow");
  auto fast = device.CreateStream("fast");
  auto event = device.CreateEvent();
  std::vector<int> out;
  Sleep(*slow, 10);
  Enqueue(*slow, out, 1);
  device.Record(*event, *slow);
  device.Record(*event, *fast);
  device.Synchronize(*event);
  CHECK(out.size() == 1);
}

TEST_CASE("elapsed time between two events is the time of the work between them") {
  cpu::CpuDevice device(2, false);
  auto stream = device.CreateStream("test");
  auto begin = device.CreateEvent();
  auto end = device.CreateEvent();
  device.Record(*begin, *stream);
  Sleep(*stream, 10);
  device.Record(*end, *stream);
  device.Synchronize(*end);
  CHECK(device.ElapsedNs(*begin, *end) >= 10'000'000);
  CHECK(device.ElapsedNs(*begin, *end) < 10'000'000'000);
}

TEST_CASE("copies and fills are work of the stream") {
  for (const bool inline_streams : {false, true}) {
    cpu::CpuDevice device(1, inline_streams);
    auto stream = device.CreateStream("test");
    Buffer from = device.Allocate(MemoryKind::kPinned, 10000).value();
    Buffer to = device.Allocate(MemoryKind::kDevice, 10000).value();
    CHECK(reinterpret_cast<uintptr_t>(from.data()) % 4096 == 0);
    CHECK(from.as<char>()[9999] == 0);
    device.Fill(from.data(), 0xab, 9999, *stream);
    device.Copy(to.data(), from.data(), 10000, *stream);
    device.Replay(1, *stream, [&] { device.Fill(from.data(), 1, 5, *stream); });
    device.Synchronize(*stream);
    CHECK(to.as<unsigned char>()[0] == 0xab);
    CHECK(to.as<unsigned char>()[9998] == 0xab);
    CHECK(to.as<unsigned char>()[9999] == 0);
    CHECK(from.as<unsigned char>()[4] == 1);
    CHECK(from.as<unsigned char>()[5] == 0xab);
  }
}

TEST_CASE("memory is refused beyond what the process may use, and comes back when freed") {
  cpu::CpuDevice device(1, false);
  const int64_t limit = device.info().host_bytes;
  CHECK(limit > 0);
  CHECK_FALSE(device.info().captures_steps);
  const auto refused = device.Allocate(MemoryKind::kHost, limit + 1);
  REQUIRE_FALSE(refused.ok());
  CHECK(absl::IsResourceExhausted(refused.status()));
  // Untouched pages cost nothing: most of the limit can be had, but only once.
  for (int round = 0; round < 2; ++round) {
    const auto most = device.Allocate(MemoryKind::kDevice, limit / 4 * 3);
    REQUIRE(most.ok());
    CHECK_FALSE(device.Allocate(MemoryKind::kDevice, limit / 2).ok());
  }
  CHECK(device.Allocate(MemoryKind::kDevice, 0).value().data() == nullptr);
}

}  // namespace
}  // namespace spin
