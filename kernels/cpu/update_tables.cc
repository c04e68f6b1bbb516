// Changes of the tables between steps, applied in the order of the list.
#include <algorithm>
#include <cstring>

#include "common/check.h"
#include "kernels/cpu/families.h"

namespace spin::cpu {
namespace {

constexpr int64_t kCopyGrain = 128 * 1024;  // bytes a thread takes at least

class TableWriter {
 public:
  TableWriter(const UpdateTablesParams& p, ThreadPool& pool)
      : p_(p), t_(p.tables), g_(p.tables.geometry), pool_(pool) {}

  void Apply(const TableCommand& c) {
    SPIN_CHECK(c.row >= 0 && c.row < g_.max_rows && c.layer >= 0 && c.layer < g_.num_layers);
    switch (c.kind) {
      case TableCommandKind::kSetPlacement:
        t_.placement[c.row] = c.value;
        return;
      case TableCommandKind::kSetSlotExtent:
        Entry(t_.slot_dir, c) = c.value;
        if (c.value != kAbsent) {
          std::fill_n(t_.slot_owner + First(c.value), g_.pages_per_extent(), kAbsent);
          std::fill_n(t_.slot_age + First(c.value), g_.pages_per_extent(), uint8_t{0});
        }
        return;
      case TableCommandKind::kSetHostExtent:
        Entry(t_.host_dir, c) = c.value;
        return;
      case TableCommandKind::kSetSummaryExtent:
        Entry(t_.summary_dir, c) = c.value;
        return;
      case TableCommandKind::kSetMetaSegment:
        Entry(t_.meta_dir, c) = c.value;
        if (c.value != kAbsent) {
          std::fill_n(t_.meta + First(c.value), g_.pages_per_extent(), kAbsent);
        }
        return;
      case TableCommandKind::kSetNumSlots:
        SetNumSlots(c);
        return;
      case TableCommandKind::kShareSlotExtent:
        Entry(t_.slot_dir, c) = c.value;
        return;
      case TableCommandKind::kCopySlotExtent:
        CopyExtent(t_.slots, c.index, t_.slots, c.value, g_.extent_bytes());
        return;
      case TableCommandKind::kCopyHostExtent:
        CopyExtent(t_.host_pages, c.index, t_.host_pages, c.value, g_.extent_bytes());
        return;
      case TableCommandKind::kCopySummaryExtent:
        CopyExtent(t_.summaries, c.index, t_.summaries, c.value, g_.summary_extent_bytes());
        return;
      case TableCommandKind::kCopyKeyBasis:
        CopyExtent(t_.key_basis, c.index, t_.key_basis, c.value, g_.key_basis_bytes());
        return;
      case TableCommandKind::kSpillExtent:
        CopyExtent(t_.host_pages, c.index, t_.slots, c.value, g_.extent_bytes());
        return;
      case TableCommandKind::kBindSlots:
        BindSlots(c);
        return;
      case TableCommandKind::kClearHistory:
        SPIN_CHECK(p_.history != nullptr);
        std::fill_n(p_.history + int64_t{c.row} * p_.vocab, p_.vocab, uint32_t{0});
        return;
    }
    SPIN_CHECK(false);  // no such command
  }

 private:
  int64_t First(int32_t extent) const { return g_.PageIndex(extent, 0, 0); }

  int32_t& Entry(int32_t* directory, const TableCommand& c) const {
    SPIN_CHECK(c.index >= 0 && c.index < g_.max_extents);
    SPIN_CHECK_GE(c.value, kAbsent);
    return directory[g_.DirIndex(c.row, c.layer, c.index)];
  }

  // Entry i of a head in a pool that `directory` maps, or null where nothing is mapped.
  template <typename T>
  T* Find(T* pool, const int32_t* directory, const TableCommand& c, int32_t head, int32_t i) const {
    const int32_t e = i / g_.extent_pages();
    if (e >= g_.max_extents) return nullptr;
    const int32_t extent = directory[g_.DirIndex(c.row, c.layer, e)];
    if (extent == kAbsent) return nullptr;
    return pool + g_.PageIndex(extent, head, i % g_.extent_pages());
  }

  // A smaller budget frees the slots at the end, so that no meta entry names a slot that is gone.
  void SetNumSlots(const TableCommand& c) {
    SPIN_CHECK_GE(c.value, 0);
    int32_t& num_slots = t_.num_slots[int64_t{c.row} * g_.num_layers + c.layer];
    const int32_t before = num_slots;
    num_slots = c.value;
    if (t_.placement[c.row] != static_cast<int32_t>(Placement::kTiered)) return;
    for (int32_t head = 0; head < g_.num_kv_heads; ++head) {
      for (int32_t j = c.value; j < before; ++j) {
        int32_t* owner = Find(t_.slot_owner, t_.slot_dir, c, head, j);
        if (owner == nullptr || *owner == kAbsent) continue;
        if (int32_t* meta = Find(t_.meta, t_.meta_dir, c, head, *owner)) *meta = kAbsent;
        *owner = kAbsent;
        *Find(t_.slot_age, t_.slot_dir, c, head, j) = 0;
      }
    }
  }

  void BindSlots(const TableCommand& c) {
    const int32_t num_slots = t_.num_slots[int64_t{c.row} * g_.num_layers + c.layer];
    for (int32_t head = 0; head < g_.num_kv_heads; ++head) {
      for (int32_t j = 0; j < num_slots && c.index + j < c.value; ++j) {
        int32_t* owner = Find(t_.slot_owner, t_.slot_dir, c, head, j);
        int32_t* meta = Find(t_.meta, t_.meta_dir, c, head, c.index + j);
        SPIN_CHECK(owner != nullptr && meta != nullptr);
        *owner = c.index + j;
        *meta = j;
        *Find(t_.slot_age, t_.slot_dir, c, head, j) = 0;
      }
    }
  }

  void CopyExtent(void* to, int32_t to_extent, const void* from, int32_t from_extent,
                  int64_t bytes) {
    SPIN_CHECK(to_extent >= 0 && from_extent >= 0);
    char* dst = static_cast<char*>(to) + to_extent * bytes;
    const char* src = static_cast<const char*>(from) + from_extent * bytes;
    if (dst == src) return;
    pool_.ParallelFor(bytes, kCopyGrain, [&](int64_t begin, int64_t end) {
      std::memcpy(dst + begin, src + begin, static_cast<size_t>(end - begin));
    });
  }

  const UpdateTablesParams& p_;
  const KvTables& t_;
  const KvGeometry& g_;
  ThreadPool& pool_;
};

}  // namespace

void UpdateTables(const UpdateTablesParams& p, ThreadPool& pool) {
  TableWriter writer(p, pool);
  for (int32_t i = 0; i < p.num_commands; ++i) writer.Apply(p.commands[i]);
}

void MarkPrompt(const MarkPromptParams& p, ThreadPool&) {
  uint32_t* history = p.history + int64_t{p.row} * p.vocab;
  for (int32_t i = 0; i < p.n; ++i) {
    SPIN_CHECK(p.ids[i] >= 0 && p.ids[i] < p.vocab);
    if (p.generated) {
      ++history[p.ids[i]];
    } else {
      history[p.ids[i]] |= uint32_t{1} << 31;
    }
  }
}

}  // namespace spin::cpu
