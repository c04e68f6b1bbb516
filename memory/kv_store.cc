#include "memory/kv_store.h"

#include <algorithm>

#include "common/check.h"
#include "common/math.h"

namespace spin {
namespace {

constexpr uint8_t kAbsentByte = 0xff;  // four of them are kAbsent
static_assert(kAbsent == -1);

// Cuts arrays out of one buffer, each at a multiple of kArrayAlignment.
class Carver {
 public:
  explicit Carver(const Buffer& buffer) : buffer_(buffer) {}
  ~Carver() { SPIN_CHECK_EQ(offset_, buffer_.bytes()); }

  template <typename T>
  T* Take(int64_t count) {
    T* array = reinterpret_cast<T*>(buffer_.as<char>() + offset_);
    offset_ += RoundUp(count * int64_t{sizeof(T)}, kArrayAlignment);
    SPIN_CHECK_LE(offset_, buffer_.bytes());
    return array;
  }

 private:
  const Buffer& buffer_;
  int64_t offset_ = 0;
};

// An allocation named in errors; none for 0 bytes.
absl::StatusOr<Buffer> AllocateFor(Device& device, MemoryKind kind, int64_t bytes, const char* what,
                                   AllocationProgress progress) {
  if (bytes == 0) return Buffer();
  absl::StatusOr<Buffer> buffer = kind == MemoryKind::kPinned
                                      ? device.Allocate(kind, bytes, progress)
                                      : device.Allocate(kind, bytes);
  if (!buffer.ok()) {
    return Annotate(
        buffer.status(),
        absl::StrFormat("%s of the KV cache (lower %s)", what,
                        kind == MemoryKind::kPinned ? "memory.host_pool" : "memory.hbm_budget"));
  }
  SPIN_CHECK_EQ(buffer->bytes(), bytes);
  return buffer;
}

}  // namespace

absl::StatusOr<std::unique_ptr<KvStore>> KvStore::Create(Device& device, Stream& stream,
                                                         const MemoryPlan& plan,
                                                         AllocationProgress progress) {
  std::unique_ptr<KvStore> store(new KvStore(plan));
  const auto allocate = [&](MemoryKind kind, int64_t bytes, const char* what, Buffer& to) {
    absl::StatusOr<Buffer> buffer = AllocateFor(device, kind, bytes, what, progress);
    if (buffer.ok()) to = *std::move(buffer);
    return buffer.status();
  };
  constexpr MemoryKind kHbm = MemoryKind::kDevice;
  SPIN_RETURN_IF_ERROR(allocate(kHbm, plan.directory_bytes, "directories", store->directories_));
  SPIN_RETURN_IF_ERROR(allocate(kHbm, plan.slot_state_bytes, "slot state", store->slot_state_));
  SPIN_RETURN_IF_ERROR(allocate(kHbm, plan.key_basis_bytes, "bases of keys", store->key_bases_));
  SPIN_RETURN_IF_ERROR(allocate(kHbm, plan.meta_bytes, "meta segments", store->meta_));
  SPIN_RETURN_IF_ERROR(allocate(kHbm, plan.summary_bytes, "summaries", store->summaries_));
  SPIN_RETURN_IF_ERROR(allocate(kHbm, plan.slot_bytes, "slots", store->slots_));
  SPIN_RETURN_IF_ERROR(
      allocate(MemoryKind::kPinned, plan.host_bytes, "host pages", store->host_pages_));
  store->MapTables();
  store->Initialise(device, stream);
  return store;
}

void KvStore::MapTables() {
  const KvGeometry& g = plan_.geometry;
  const int64_t places = int64_t{g.max_rows} * g.num_layers;
  tables_.geometry = g;

  Carver directories(directories_);
  tables_.slot_dir = directories.Take<int32_t>(places * g.max_extents);
  tables_.host_dir = directories.Take<int32_t>(places * g.max_extents);
  tables_.summary_dir = directories.Take<int32_t>(places * g.max_extents);
  tables_.meta_dir = directories.Take<int32_t>(places * g.max_extents);
  tables_.placement = directories.Take<int32_t>(g.max_rows);
  tables_.num_slots = directories.Take<int32_t>(places);

  Carver slot_state(slot_state_);
  const int64_t slots = int64_t{plan_.num_slot_extents} * g.pages_per_extent();
  tables_.slot_owner = slot_state.Take<int32_t>(slots);
  tables_.slot_age = slot_state.Take<uint8_t>(slots);

  tables_.meta = meta_.as<int32_t>();
  tables_.summaries = summaries_.data();
  tables_.slots = slots_.data();
  tables_.host_pages = host_pages_.data();
  tables_.key_basis = key_bases_.data();
}

void KvStore::Initialise(Device& device, Stream& stream) {
  const auto fill = [&](void* begin, uint8_t value, const void* end) {
    const int64_t bytes = static_cast<const char*>(end) - static_cast<char*>(begin);
    if (bytes > 0) device.Fill(begin, value, bytes, stream);
  };
  const auto end_of = [](const Buffer& buffer) { return buffer.as<char>() + buffer.bytes(); };
  fill(directories_.data(), kAbsentByte, tables_.placement);
  fill(tables_.placement, 0, end_of(directories_));  // Placement::kNone, no slots
  static_assert(static_cast<int32_t>(Placement::kNone) == 0);
  fill(tables_.slot_owner, kAbsentByte, tables_.slot_age);
  fill(tables_.slot_age, 0, end_of(slot_state_));
  fill(meta_.data(), kAbsentByte, end_of(meta_));

  device.Synchronize(stream);
}

}  // namespace spin
