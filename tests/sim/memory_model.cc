#include "tests/sim/memory_model.h"

#include <algorithm>

#include "common/check.h"
#include "common/math.h"

namespace spin::sim {
namespace {

constexpr uint64_t kPoison = 0xdeadbeefdeadbeef;

uint64_t Mix(uint64_t a, uint64_t b) {  // splitmix64 of a combination
  uint64_t z = a * 0x9E3779B97F4A7C15 + b + 0x632BE59BD9B4E019;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
  return z ^ (z >> 31);
}

uint64_t LayerMask(int32_t layer) {
  return Mix(static_cast<uint64_t>(layer), 77);
}

}  // namespace

MemoryModel::MemoryModel(const MemoryPlan& plan) : g_(plan.geometry) {
  const auto entries = static_cast<size_t>(g_.max_rows * g_.num_layers * g_.max_extents);
  for (auto* dir : {&slot_dir_, &host_dir_, &summary_dir_, &meta_dir_})
    dir->assign(entries, kAbsent);
  placement_.assign(static_cast<size_t>(g_.max_rows), 0);
  num_slots_.assign(static_cast<size_t>(g_.max_rows * g_.num_layers), 0);
  const auto per_extent = static_cast<size_t>(g_.extent_pages());
  meta_.assign(static_cast<size_t>(plan.num_meta_segments) * per_extent, kAbsent);
  owner_.assign(static_cast<size_t>(plan.num_slot_extents) * per_extent, kAbsent);
  slots_.assign(owner_.size(), kPoison);
  host_.assign(static_cast<size_t>(plan.num_host_extents) * per_extent, kPoison);
  summaries_.assign(static_cast<size_t>(plan.num_summary_extents) * per_extent, kPoison);
  expected_.resize(static_cast<size_t>(g_.max_rows));
  selected_.assign(static_cast<size_t>(g_.max_pages()), 0);
}

size_t MemoryModel::Dir(int32_t row, int32_t layer, int32_t i) const {
  SPIN_CHECK(row >= 0 && row < g_.max_rows && layer >= 0 && layer < g_.num_layers);
  SPIN_CHECK(i >= 0 && i < g_.max_extents);
  return static_cast<size_t>(g_.DirIndex(row, layer, i));
}

size_t MemoryModel::Find(const std::vector<int32_t>& directory, int32_t row, int32_t layer,
                         int32_t p) const {
  const int32_t extent = directory[Dir(row, layer, p / g_.extent_pages())];
  SPIN_CHECK_GE(extent, 0);
  return static_cast<size_t>(extent * g_.extent_pages() + p % g_.extent_pages());
}

int32_t MemoryModel::NumSlots(int32_t row, int32_t layer) const {
  return num_slots_[static_cast<size_t>(row * g_.num_layers + layer)];
}

bool MemoryModel::Tiered(int32_t row) const {
  const int32_t placement = placement_[static_cast<size_t>(row)];
  SPIN_CHECK_NE(placement, static_cast<int32_t>(Placement::kNone));
  return placement == static_cast<int32_t>(Placement::kTiered);
}

// ---- Commands ----------------------------------------------------------------------------------

void MemoryModel::Apply(std::span<const TableCommand> commands) {
  for (const TableCommand& command : commands) ApplyOne(command);
  if (!commands.empty()) PoisonUnmapped();
}

void MemoryModel::ApplyOne(const TableCommand& c) {
  const int32_t per_extent = g_.extent_pages();
  const auto copy = [&](std::vector<uint64_t>& to, const std::vector<uint64_t>& from) {
    SPIN_CHECK(c.index >= 0 && c.value >= 0);
    std::copy_n(from.begin() + int64_t{c.value} * per_extent, per_extent,
                to.begin() + int64_t{c.index} * per_extent);
  };
  const auto clear = [&](std::vector<int32_t>& entries) {
    if (c.value != kAbsent) {
      std::fill_n(entries.begin() + int64_t{c.value} * per_extent, per_extent, kAbsent);
    }
  };
  switch (c.kind) {
    case TableCommandKind::kSetPlacement:
      placement_[static_cast<size_t>(c.row)] = c.value;
      return;
    case TableCommandKind::kSetSlotExtent:
      slot_dir_[Dir(c.row, c.layer, c.index)] = c.value;
      return clear(owner_);
    case TableCommandKind::kShareSlotExtent:
      slot_dir_[Dir(c.row, c.layer, c.index)] = c.value;
      return;
    case TableCommandKind::kSetHostExtent:
      host_dir_[Dir(c.row, c.layer, c.index)] = c.value;
      return;
    case TableCommandKind::kSetSummaryExtent:
      summary_dir_[Dir(c.row, c.layer, c.index)] = c.value;
      return;
    case TableCommandKind::kSetMetaSegment:
      meta_dir_[Dir(c.row, c.layer, c.index)] = c.value;
      return clear(meta_);
    case TableCommandKind::kSetNumSlots:
      return SetNumSlots(c);
    case TableCommandKind::kCopySlotExtent:
      return copy(slots_, slots_);
    case TableCommandKind::kCopyHostExtent:
      return copy(host_, host_);
    case TableCommandKind::kCopySummaryExtent:
      return copy(summaries_, summaries_);
    case TableCommandKind::kSpillExtent:
      return copy(host_, slots_);
    case TableCommandKind::kBindSlots:
      return BindSlots(c);
    default:
      SPIN_CHECK(false);  // not for memory/ to send
  }
}

void MemoryModel::StartSpills(std::span<const TableCommand> copies) {
  if (copies.empty()) return;
  SPIN_CHECK(spills_.empty());  // one piece at a time
  spills_.assign(copies.begin(), copies.end());
}

bool MemoryModel::RunSpills(Random& random) {
  std::erase_if(spills_, [&](const TableCommand& copy) {
    const bool runs = random.Below(3) == 0;
    SPIN_CHECK(copy.kind == TableCommandKind::kSpillExtent);
    if (runs) ApplyOne(copy);
    return runs;
  });
  return spills_.empty();
}

bool MemoryModel::Leaving(int32_t row) const {
  const bool resident =
      placement_[static_cast<size_t>(row)] == static_cast<int32_t>(Placement::kResident);
  return resident && host_dir_[Dir(row, 0, 0)] != kAbsent;
}

// As the kernel: of a Tiered row a smaller budget frees the slots at the end that are still mapped.
void MemoryModel::SetNumSlots(const TableCommand& c) {
  int32_t& num_slots = num_slots_[static_cast<size_t>(c.row * g_.num_layers + c.layer)];
  const int32_t before = std::exchange(num_slots, c.value);
  if (placement_[static_cast<size_t>(c.row)] != static_cast<int32_t>(Placement::kTiered)) return;
  for (int32_t j = c.value; j < before; ++j) {
    if (slot_dir_[Dir(c.row, c.layer, j / g_.extent_pages())] == kAbsent) continue;
    int32_t& owner = owner_[Find(slot_dir_, c.row, c.layer, j)];
    if (owner != kAbsent) meta_[Find(meta_dir_, c.row, c.layer, owner)] = kAbsent;
    owner = kAbsent;
  }
}

void MemoryModel::BindSlots(const TableCommand& c) {
  for (int32_t j = 0; j < NumSlots(c.row, c.layer) && c.index + j < c.value; ++j) {
    owner_[Find(slot_dir_, c.row, c.layer, j)] = c.index + j;
    meta_[Find(meta_dir_, c.row, c.layer, c.index + j)] = j;
  }
}

void MemoryModel::PoisonUnmapped() {
  const auto poison = [&](const std::vector<int32_t>& directory, std::vector<uint64_t>& pages) {
    const int32_t per_extent = g_.extent_pages();
    std::vector<uint8_t> mapped(pages.size() / static_cast<size_t>(per_extent));
    for (const int32_t extent : directory) {
      if (extent != kAbsent) mapped[static_cast<size_t>(extent)] = 1;
    }
    for (size_t extent = 0; extent < mapped.size(); ++extent) {
      if (mapped[extent] != 0) continue;
      std::fill_n(pages.begin() + static_cast<int64_t>(extent) * per_extent, per_extent, kPoison);
    }
  };
  poison(slot_dir_, slots_);
  poison(host_dir_, host_);
  poison(summary_dir_, summaries_);
}

// ---- Writers -----------------------------------------------------------------------------------

void MemoryModel::Append(uint64_t& content, int32_t layer, int64_t position, uint64_t name) const {
  const uint64_t mask = LayerMask(layer);
  const uint64_t before = position % g_.page_tokens == 0 ? 0 : content ^ mask;
  content = Mix(before, Mix(name, static_cast<uint64_t>(position))) ^ mask;
}

void MemoryModel::ExpectPrompt(int32_t row) {
  Expected& e = expected(row);
  e.live = true;
  e.length = e.prompt_tokens;
  e.pages.assign(static_cast<size_t>(CeilDiv(e.length, g_.page_tokens)), 0);
  for (int64_t t = 0; t < e.length; ++t) {
    uint64_t& hash = e.pages[static_cast<size_t>(t / g_.page_tokens)];
    hash = Mix(hash, Mix(e.prompt_name, static_cast<uint64_t>(t)));
  }
}

void MemoryModel::WritePrompt(int32_t row) {
  ExpectPrompt(row);
  const Expected& e = expected(row);
  const auto pages = static_cast<int32_t>(e.pages.size());
  for (int32_t layer = 0; layer < g_.num_layers; ++layer) {
    const uint64_t mask = LayerMask(layer);
    const int32_t resident = Tiered(row) ? std::min(pages, NumSlots(row, layer)) : pages;
    for (int32_t p = 0; p < pages; ++p) {
      const uint64_t content = e.pages[static_cast<size_t>(p)] ^ mask;
      if (g_.summary_elements > 0) summaries_[Find(summary_dir_, row, layer, p)] = content;
      if (!Tiered(row)) {
        slots_[Find(slot_dir_, row, layer, p)] = content;
        continue;
      }
      host_[Find(host_dir_, row, layer, p)] = content;
      const int32_t local = p - (pages - resident);
      if (local < 0) continue;
      const size_t slot = Find(slot_dir_, row, layer, local);
      SPIN_CHECK_EQ(owner_[slot], kAbsent);
      slots_[slot] = content;
      owner_[slot] = p;
      meta_[Find(meta_dir_, row, layer, p)] = local;
    }
  }
}

void MemoryModel::Settle(int32_t row, int32_t i) {
  Expected& e = expected(row);
  ++settled_;
  for (int32_t p = i * g_.extent_pages(); p < (i + 1) * g_.extent_pages(); ++p) {
    uint64_t& hash = e.pages[static_cast<size_t>(p)];
    hash = Mix(hash, e.own_name);
    for (int32_t layer = 0; layer < g_.num_layers; ++layer) {
      const auto change = [&](uint64_t& content) {
        content = Mix(content ^ LayerMask(layer), e.own_name) ^ LayerMask(layer);
      };
      if (g_.summary_elements > 0) change(summaries_[Find(summary_dir_, row, layer, p)]);
      int32_t local = p;
      if (Tiered(row)) {
        change(host_[Find(host_dir_, row, layer, p)]);
        local = meta_[Find(meta_dir_, row, layer, p)];
      }
      if (local != kAbsent) change(slots_[Find(slot_dir_, row, layer, local)]);
    }
  }
}

void MemoryModel::Decode(int32_t row, std::span<const LayerDemand> layers, Random& random) {
  Expected& e = expected(row);
  SPIN_CHECK(e.live);
  const int64_t position = e.length;
  const int64_t settled = g_.SettledExtents(position);
  if (g_.unsettled_tokens > 0 && g_.SettledExtents(position + 1) > settled) {
    Settle(row, static_cast<int32_t>(settled));
  }
  const auto page = static_cast<int32_t>(position / g_.page_tokens);
  for (int32_t layer = 0; layer < g_.num_layers; ++layer) {
    int32_t local = page;
    if (Tiered(row)) {
      SelectAndFetch(row, layer, layers[static_cast<size_t>(layer)], random);
      local = meta_[Find(meta_dir_, row, layer, page)];
      Append(host_[Find(host_dir_, row, layer, page)], layer, position, e.own_name);
    }
    Append(slots_[Find(slot_dir_, row, layer, local)], layer, position, e.own_name);
    if (g_.summary_elements > 0) {
      Append(summaries_[Find(summary_dir_, row, layer, page)], layer, position, e.own_name);
    }
  }
  if (position % g_.page_tokens == 0) e.pages.push_back(0);
  e.pages.back() = Mix(e.pages.back(), Mix(e.own_name, static_cast<uint64_t>(position)));
  ++e.length;
}

void MemoryModel::SelectAndFetch(int32_t row, int32_t layer, const LayerDemand& demand,
                                 Random& random) {
  const auto tail = static_cast<int32_t>(expected(row).length / g_.page_tokens);
  const int32_t own = expected(row).budget_pages;
  const int32_t budget = own > 0 ? own : demand.fixed_pages + demand.selectable_pages;
  const int32_t most = demand.whole_context ? tail + 1 : budget;
  std::fill(selected_.begin(), selected_.end(), uint8_t{0});
  selected_[static_cast<size_t>(tail)] = 1;
  if (tail + 1 <= most) {
    std::fill_n(selected_.begin(), tail + 1, uint8_t{1});
  } else {
    for (int32_t i = 1; i < most; ++i) {
      selected_[random.Below(static_cast<uint32_t>(tail) + 1)] = 1;
    }
  }
  for (int32_t p = 0; p <= tail; ++p) {
    if (selected_[static_cast<size_t>(p)] != 0) Fetch(row, layer, p, random);
  }
}

void MemoryModel::Fetch(int32_t row, int32_t layer, int32_t page, Random& random) {
  int32_t& meta = meta_[Find(meta_dir_, row, layer, page)];
  const Expected& e = expected(row);
  if (meta == kAbsent) {
    const int32_t num_slots = NumSlots(row, layer);
    int32_t victim = kAbsent;
    const auto begin = static_cast<int32_t>(random.Below(static_cast<uint32_t>(num_slots)));
    for (int32_t k = 0; k < num_slots; ++k) {
      const int32_t j = (begin + k) % num_slots;
      const int32_t owner = owner_[Find(slot_dir_, row, layer, j)];
      if (owner == kAbsent || selected_[static_cast<size_t>(owner)] == 0) victim = j;
      if (owner == kAbsent) break;
    }
    SPIN_CHECK_NE(victim, kAbsent);  // the budget holds all that one step selects
    const size_t slot = Find(slot_dir_, row, layer, victim);
    if (owner_[slot] != kAbsent) meta_[Find(meta_dir_, row, layer, owner_[slot])] = kAbsent;
    owner_[slot] = page;
    meta = victim;
    slots_[slot] = host_[Find(host_dir_, row, layer, page)];
  }
  if (page < static_cast<int32_t>(e.pages.size())) {
    SPIN_CHECK_EQ(slots_[Find(slot_dir_, row, layer, meta)],
                  e.pages[static_cast<size_t>(page)] ^ LayerMask(layer));
  }
}

Residency MemoryModel::Residents() const {
  Residency residents(num_slots_.size());
  for (int32_t row = 0; row < g_.max_rows; ++row) {
    if (placement_[static_cast<size_t>(row)] != static_cast<int32_t>(Placement::kTiered)) continue;
    for (int32_t layer = 0; layer < g_.num_layers; ++layer) {
      auto& pages = residents[static_cast<size_t>(row * g_.num_layers + layer)];
      for (int32_t j = 0; j < NumSlots(row, layer); ++j) {
        pages.push_back(owner_[Find(slot_dir_, row, layer, j)]);
      }
    }
  }
  return residents;
}

// ---- Checks ------------------------------------------------------------------------------------

void MemoryModel::CheckContents() const {
  const auto extents = [&](const auto& pages) {
    return pages.size() / static_cast<size_t>(g_.extent_pages());
  };
  CheckExclusive(slot_dir_, extents(slots_), true);
  CheckExclusive(host_dir_, extents(host_), true);
  CheckExclusive(summary_dir_, extents(summaries_), true);
  CheckExclusive(meta_dir_, extents(meta_), false);
  for (int32_t row = 0; row < g_.max_rows; ++row) {
    for (int32_t layer = 0; layer < g_.num_layers; ++layer) CheckRow(row, layer);
  }
}

void MemoryModel::CheckRow(int32_t row, int32_t layer) const {
  if (placement_[static_cast<size_t>(row)] == static_cast<int32_t>(Placement::kNone)) {
    for (const auto* dir : {&slot_dir_, &host_dir_, &summary_dir_, &meta_dir_}) {
      for (int32_t i = 0; i < g_.max_extents; ++i)
        SPIN_CHECK_EQ((*dir)[Dir(row, layer, i)], kAbsent);
    }
    SPIN_CHECK_EQ(NumSlots(row, layer), 0);
    return;
  }
  const Expected& e = expected_[static_cast<size_t>(row)];
  if (!e.live) return;
  const auto pages = static_cast<int32_t>(e.pages.size());
  const bool tiered = Tiered(row);
  for (int32_t p = 0; p < pages; ++p) {
    const uint64_t want = e.pages[static_cast<size_t>(p)] ^ LayerMask(layer);
    if (g_.summary_elements > 0) SPIN_CHECK_EQ(summaries_[Find(summary_dir_, row, layer, p)], want);
    if (!tiered) {
      SPIN_CHECK_EQ(slots_[Find(slot_dir_, row, layer, p)], want);
      continue;
    }
    SPIN_CHECK_EQ(host_[Find(host_dir_, row, layer, p)], want);
    const int32_t local = meta_[Find(meta_dir_, row, layer, p)];
    if (local == kAbsent) continue;
    SPIN_CHECK(local >= 0 && local < NumSlots(row, layer));
    SPIN_CHECK_EQ(slots_[Find(slot_dir_, row, layer, local)], want);
    SPIN_CHECK_EQ(owner_[Find(slot_dir_, row, layer, local)], p);
  }
  for (int32_t j = 0; tiered && j < NumSlots(row, layer); ++j) {
    const int32_t owner = owner_[Find(slot_dir_, row, layer, j)];
    if (owner == kAbsent) continue;
    SPIN_CHECK(owner >= 0 && owner < pages);
    SPIN_CHECK_EQ(meta_[Find(meta_dir_, row, layer, owner)], j);
  }
}

int64_t MemoryModel::CheckKept(const Residency& then) const {
  const Residency now = Residents();
  int64_t evicted = 0;
  for (size_t stream = 0; stream < now.size(); ++stream) {
    if (then[stream].empty() || now[stream].empty()) continue;
    const auto row = static_cast<int32_t>(stream) / g_.num_layers;
    const auto layer = static_cast<int32_t>(stream) % g_.num_layers;
    const size_t kept = std::min(then[stream].size(), now[stream].size());
    for (size_t j = 0; j < kept; ++j) SPIN_CHECK_EQ(now[stream][j], then[stream][j]);
    for (size_t j = kept; j < now[stream].size(); ++j) SPIN_CHECK_EQ(now[stream][j], kAbsent);
    for (size_t j = kept; j < then[stream].size(); ++j) {
      const int32_t page = then[stream][j];
      if (page == kAbsent) continue;
      SPIN_CHECK_EQ(meta_[Find(meta_dir_, row, layer, page)], kAbsent);
      ++evicted;
    }
  }
  return evicted;
}

// An extent that several rows map is a settled one of one prompt, at one place, and no cache.
void MemoryModel::CheckExclusive(const std::vector<int32_t>& directory, size_t num_extents,
                                 bool may_share) const {
  std::vector<int32_t> first(num_extents, kAbsent);  // directory index of the first holder
  for (size_t at = 0; at < directory.size(); ++at) {
    if (directory[at] == kAbsent) continue;
    int32_t& holder = first[static_cast<size_t>(directory[at])];
    if (holder == kAbsent) {
      holder = static_cast<int32_t>(at);
      continue;
    }
    SPIN_CHECK(may_share);
    const int32_t row_entries = g_.num_layers * g_.max_extents;
    const auto here = static_cast<int32_t>(at);
    SPIN_CHECK_EQ(here % row_entries, holder % row_entries);  // same layer, same place
    const Expected& a = expected_[static_cast<size_t>(here / row_entries)];
    const Expected& b = expected_[static_cast<size_t>(holder / row_entries)];
    SPIN_CHECK_EQ(a.prompt_name, b.prompt_name);
    SPIN_CHECK_LE((here % g_.max_extents + 1) * int64_t{kExtentTokens} + g_.unsettled_tokens,
                  a.prompt_tokens);
    if (&directory == &slot_dir_) {
      SPIN_CHECK(!Tiered(here / row_entries) && !Tiered(holder / row_entries));
    }
  }
}

}  // namespace spin::sim
