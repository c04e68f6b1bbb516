// What the twin tests share: the CUDA backend, arrays that exist on both sides, and a KvWorld's copy on the device. A
// twin test runs one Ops method there and the free function of kernels/cpu here on the same inputs.
#pragma once

#include <catch2/catch.hpp>

#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "common/check.h"
#include "kernels/backend.h"
#include "tests/kernels/kv_testing.h"

namespace spin::testing {

// The device, its ops and one stream; made once a process.
class Gpu {
 public:
  static Gpu& Get() {
    static Gpu gpu;
    return gpu;
  }

  Device& device() { return *backend_.device; }
  Ops& ops() { return *backend_.ops; }
  Stream& stream() { return *stream_; }
  void Finish() { device().Synchronize(stream()); }

  Buffer Allocate(MemoryKind kind, int64_t bytes) {
    auto buffer = device().Allocate(kind, bytes);
    SPIN_CHECK_OK(buffer.status());
    return *std::move(buffer);
  }
  void CopyIn(void* to, const void* from, int64_t bytes) {
    if (bytes == 0) return;
    const Buffer bounce = Allocate(MemoryKind::kPinned, bytes);
    std::memcpy(bounce.data(), from, static_cast<size_t>(bytes));
    device().Copy(to, bounce.data(), bytes, stream());
    Finish();
  }
  void CopyOut(void* to, const void* from, int64_t bytes) {
    if (bytes == 0) return;
    const Buffer bounce = Allocate(MemoryKind::kPinned, bytes);
    device().Copy(bounce.data(), from, bytes, stream());
    Finish();
    std::memcpy(to, bounce.data(), static_cast<size_t>(bytes));
  }

 private:
  Gpu() {
    auto backend = CreateBackend({.device = "cuda"});
    SPIN_CHECK_OK(backend.status());
    backend_ = *std::move(backend);
    stream_ = device().CreateStream("twin");
  }
  Backend backend_;
  std::unique_ptr<Stream> stream_;
};

// A copy on the device of a host array; Read brings it back.
template <typename T>
class OnDevice {
 public:
  explicit OnDevice(const std::vector<T>& host, MemoryKind kind = MemoryKind::kDevice)
      : size_(host.size()), buffer_(Gpu::Get().Allocate(kind, bytes() + 1)) {
    Gpu::Get().CopyIn(buffer_.data(), host.data(), bytes());
  }
  T* data() const { return buffer_.template as<T>(); }
  std::vector<T> Read() const {
    std::vector<T> host(size_);
    Gpu::Get().CopyOut(host.data(), buffer_.data(), bytes());
    return host;
  }

 private:
  int64_t bytes() const { return static_cast<int64_t>(size_ * sizeof(T)); }
  size_t size_;
  Buffer buffer_;
};

// Elements (kernel_testing.h) on the device.
class ElementsOnDevice {
 public:
  explicit ElementsOnDevice(const Elements& host)
      : dtype_(host.dtype()),
        size_(host.size()),
        buffer_(Gpu::Get().Allocate(MemoryKind::kDevice, bytes() + 1)) {
    Gpu::Get().CopyIn(buffer_.data(), host.data(), bytes());
  }
  void* data() const { return buffer_.data(); }
  Elements Read() const {
    Elements host(dtype_, size_);
    Gpu::Get().CopyOut(host.data(), buffer_.data(), bytes());
    return host;
  }

 private:
  int64_t bytes() const { return size_ * SizeOf(dtype_); }
  DType dtype_;
  int64_t size_;
  Buffer buffer_;
};

// The pools and tables of a KvWorld on the device (host pages in pinned memory), as they are at construction.
class KvOnDevice {
 public:
  explicit KvOnDevice(const KvWorld& w)
      : slot_dir(w.slot_dir),
        host_dir(w.host_dir),
        summary_dir(w.summary_dir),
        meta_dir(w.meta_dir),
        placement(w.placement),
        num_slots(w.num_slots),
        meta(w.meta),
        slot_owner(w.slot_owner),
        slot_age(w.slot_age),
        slots(w.slots),
        host(w.host, MemoryKind::kPinned),
        summaries(w.summaries),
        key_basis(w.key_basis) {
    tables = {.geometry = w.geometry,
              .slot_dir = slot_dir.data(),
              .host_dir = host_dir.data(),
              .summary_dir = summary_dir.data(),
              .meta_dir = meta_dir.data(),
              .placement = placement.data(),
              .num_slots = num_slots.data(),
              .meta = meta.data(),
              .slot_owner = slot_owner.data(),
              .slot_age = slot_age.data(),
              .slots = slots.data(),
              .host_pages = host.data(),
              .summaries = summaries.data(),
              .key_basis = key_basis.data()};
  }

  // Every table and pool equals the world's, bit for bit.
  void CheckEquals(const KvWorld& w) const {
    CHECK(slot_dir.Read() == w.slot_dir);
    CHECK(host_dir.Read() == w.host_dir);
    CHECK(summary_dir.Read() == w.summary_dir);
    CHECK(meta_dir.Read() == w.meta_dir);
    CHECK(placement.Read() == w.placement);
    CHECK(num_slots.Read() == w.num_slots);
    CHECK(meta.Read() == w.meta);
    CHECK(slot_owner.Read() == w.slot_owner);
    CHECK(slot_age.Read() == w.slot_age);
    CHECK((slots.Read() == w.slots));
    CHECK((host.Read() == w.host));
    CHECK((summaries.Read() == w.summaries));
    CHECK((key_basis.Read() == w.key_basis));
  }

  OnDevice<int32_t> slot_dir, host_dir, summary_dir, meta_dir, placement, num_slots, meta,
      slot_owner;
  OnDevice<uint8_t> slot_age, slots, host, summaries, key_basis;
  KvTables tables;
};

// A decode step's rows (kv_testing.h) on the device, with a bucket that may be larger than the rows in use.
class RowsOnDevice {
 public:
  RowsOnDevice(const StepRows& step, int32_t max_batch)
      : max_batch_(max_batch),
        count_({step.count}),
        rows_(Padded(step.rows, max_batch)),
        token_(step.token),
        position_(step.position) {}

  DecodeRows view() const {
    return {.max_batch = max_batch_,
            .num_rows = count_.data(),
            .rows = rows_.data(),
            .token = token_.data(),
            .position = position_.data()};
  }
  std::vector<int32_t> Tokens() const { return token_.Read(); }
  std::vector<int32_t> Positions() const { return position_.Read(); }

 private:
  // Places past the count hold no row: reading one is an error that shows.
  static std::vector<int32_t> Padded(std::vector<int32_t> rows, int32_t size) {
    rows.resize(static_cast<size_t>(size), 1 << 30);
    return rows;
  }
  int32_t max_batch_;
  OnDevice<int32_t> count_, rows_, token_, position_;
};

// NaN in every element.
inline Elements Poisoned(DType dtype, int64_t size) {
  Elements elements(dtype, size);
  std::memset(elements.data(), 0xff, static_cast<size_t>(size * SizeOf(dtype)));
  return elements;
}

// Staging as the CPU keeps it, [Hkv][num_pages] pages, as the GPU does: [Hkv][2][num_pages * P][d], planes.
inline Elements PlanesOf(const Elements& pages, const KvGeometry& g, int32_t num_pages) {
  Elements planes(g.dtype, pages.size());
  const int64_t plane = g.plane_elements() * SizeOf(g.dtype);
  const auto* from = static_cast<const char*>(pages.data());
  auto* to = static_cast<char*>(planes.data());
  for (int64_t head = 0; head < g.num_kv_heads; ++head) {
    for (int64_t page = 0; page < num_pages; ++page) {
      for (int64_t kv = 0; kv < 2; ++kv) {
        std::memcpy(to + ((head * 2 + kv) * num_pages + page) * plane,
                    from + ((head * num_pages + page) * 2 + kv) * plane,
                    static_cast<size_t>(plane));
      }
    }
  }
  return planes;
}

// The worst |a - b| over the worst |b|; NaN anywhere gives NaN.
inline double RelativeDifference(const Elements& a, const Elements& b) {
  std::vector<double> reference(static_cast<size_t>(b.size()));
  for (int64_t i = 0; i < b.size(); ++i) reference[static_cast<size_t>(i)] = double{b[i]};
  return RelativeError(a, reference);
}

}  // namespace spin::testing
