#include "kernels/cpu/cpu_device.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "common/check.h"
#include "common/host_limits.h"
#include "common/math.h"
#include "common/units.h"
#include "kernels/cpu/cpu_stream.h"
#include "kernels/cpu/isa.h"

namespace spin::cpu {
namespace {

constexpr int64_t kPageBytes = 4096;
constexpr int64_t kHugePageBytes = 2 << 20;

CpuStream& Cpu(Stream& stream) {
  return static_cast<CpuStream&>(stream);
}
CpuEvent& Cpu(Event& event) {
  return static_cast<CpuEvent&>(event);
}

struct CopyTask {
  void* dst;
  const void* src;
  int64_t bytes;
};
struct FillTask {
  void* dst;
  uint8_t value;
  int64_t bytes;
};
struct EventTask {
  CpuEvent* event;
  uint64_t ticket;
};

void EnqueueWait(CpuEvent& event, Stream& stream) {
  event.AddUse();
  Cpu(stream).Enqueue<EventTask>(
      [](const EventTask& t) {
        t.event->Await(t.ticket);
        t.event->DropUse();
      },
      EventTask{&event, event.recorded()});
}

}  // namespace

CpuDevice::CpuDevice(int threads, bool inline_streams)
    : inline_streams_(inline_streams), memory_(MemoryLimitBytes()) {
  info_.name = absl::StrFormat("%s (%d threads, %s)", CpuModelName(), threads, NameOf(ActiveIsa()));
  info_.shares_host_memory = true;
  info_.host_bytes = MemoryLimitBytes();
  info_.device_bytes = info_.host_bytes;
}

CpuDevice::~CpuDevice() = default;

absl::StatusOr<Buffer> CpuDevice::Allocate(MemoryKind kind, int64_t bytes,
                                           AllocationProgress /*progress*/) {
  SPIN_CHECK_GE(bytes, 0);
  if (bytes == 0) return Buffer();
  const int64_t size = RoundUp(bytes, kPageBytes);
  SPIN_RETURN_IF_ERROR(memory_.Take(size));
  void* data = mmap(nullptr, static_cast<size_t>(size), PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) {
    const std::string why = std::strerror(errno);
    memory_.Give(size);
    return ResourceExhausted("cannot map %s: %s", FormatBytes(bytes), why);
  }
  // Advice: where the system has no huge pages, small ones serve.
  if (size >= kHugePageBytes) madvise(data, static_cast<size_t>(size), MADV_HUGEPAGE);
  return Buffer(this, kind, data, bytes);
}

void CpuDevice::Free(MemoryKind /*kind*/, void* data, int64_t bytes) noexcept {
  const int64_t size = RoundUp(bytes, kPageBytes);
  munmap(data, static_cast<size_t>(size));
  memory_.Give(size);
}

// All streams compute on one pool: priorities mean nothing.
std::unique_ptr<Stream> CpuDevice::CreateStream(const char* name, StreamPriority /*priority*/) {
  if (inline_streams_) return std::make_unique<InlineStream>();
  return std::make_unique<ThreadStream>(name);
}

std::unique_ptr<Event> CpuDevice::CreateEvent() {
  return std::make_unique<CpuEvent>();
}

void CpuDevice::Copy(void* dst, const void* src, int64_t bytes, Stream& stream) {
  Cpu(stream).Enqueue<CopyTask>(
      [](const CopyTask& t) { std::memcpy(t.dst, t.src, static_cast<size_t>(t.bytes)); },
      CopyTask{dst, src, bytes});
}

void CpuDevice::Fill(void* dst, uint8_t value, int64_t bytes, Stream& stream) {
  Cpu(stream).Enqueue<FillTask>(
      [](const FillTask& t) { std::memset(t.dst, t.value, static_cast<size_t>(t.bytes)); },
      FillTask{dst, value, bytes});
}

void CpuDevice::Record(Event& event, Stream& stream) {
  CpuEvent& e = Cpu(event);
  // Tickets must complete in order: another stream's earlier Record comes first.
  if (e.stream() != &stream && !e.Passed(e.recorded())) EnqueueWait(e, stream);
  const uint64_t ticket = e.BeginRecord(stream);
  Cpu(stream).Enqueue<EventTask>([](const EventTask& t) { t.event->Complete(t.ticket); },
                                 EventTask{&e, ticket});
}

void CpuDevice::Wait(Stream& stream, Event& event) {
  CpuEvent& e = Cpu(event);
  if (!e.Passed(e.recorded())) EnqueueWait(e, stream);
}

bool CpuDevice::Passed(Event& event) {
  return Cpu(event).Passed(Cpu(event).recorded());
}

void CpuDevice::Synchronize(Event& event) {
  Cpu(event).Await(Cpu(event).recorded());
}

void CpuDevice::Synchronize(Stream& stream) {
  Cpu(stream).Drain();
}

int64_t CpuDevice::ElapsedNs(Event& begin, Event& end) {
  SPIN_CHECK(Cpu(begin).Passed(Cpu(begin).recorded()));
  SPIN_CHECK(Cpu(end).Passed(Cpu(end).recorded()));
  return Cpu(end).passed_ns() - Cpu(begin).passed_ns();
}

void CpuDevice::Replay(uint64_t /*key*/, Stream& /*stream*/, absl::FunctionRef<void()> enqueue) {
  enqueue();
}

}  // namespace spin::cpu
