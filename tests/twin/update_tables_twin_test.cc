// Command lists on the GPU, each in one call, and on the CPU, command by command: tables, pools and histories agree bit
// for bit for thousands of seeded lists of what memory/ sends (admit, grow, demote, suspend, resume, release), and of
// what it could send at worst.
#include <algorithm>
#include <numeric>

#include "tests/twin/twin_testing.h"

namespace spin {
namespace {

using enum TableCommandKind;
using testing::Gpu;
using testing::KvOnDevice;
using testing::KvWorld;
using testing::OnDevice;

constexpr int32_t kVocab = 37;
constexpr int32_t kMaxCommands = 40000;

// Thin pages: what is in them matters to the copies alone.
KvGeometry Geometry(int32_t page_tokens, int32_t num_kv_heads) {
  KvGeometry g = testing::SmallGeometry(DType::kBf16, 2, page_tokens);
  g.num_kv_heads = num_kv_heads;
  g.num_q_heads = num_kv_heads;
  g.key_rank = 16;
  return g;
}

class Twins {
 public:
  explicit Twins(const KvGeometry& g, uint64_t seed)
      : world_(g),
        history_(static_cast<size_t>(g.max_rows * kVocab)),
        random_(seed),
        pinned_(Gpu::Get().Allocate(MemoryKind::kPinned,
                                    int64_t{kMaxCommands} * int64_t{sizeof(TableCommand)})) {
    for (auto* pool : {&world_.slots, &world_.host, &world_.summaries, &world_.key_basis}) {
      for (uint8_t& byte : *pool) byte = static_cast<uint8_t>(random_.NextU32());
    }
    for (uint32_t& entry : history_) entry = random_.NextU32();
    for (int32_t& owner : world_.slot_owner) owner = Below(g.max_pages() + 9) - 1;
    gpu_ = std::make_unique<KvOnDevice>(world_);
    gpu_history_ = std::make_unique<OnDevice<uint32_t>>(history_);
  }

  // Adds a command to the list and does it on the CPU: what comes next may look at the tables as they are then.
  void Do(const TableCommand& c) {
    list_.push_back(c);
    cpu::UpdateTables({.commands = &c,
                       .num_commands = 1,
                       .tables = world_.tables,
                       .history = history_.data(),
                       .vocab = kVocab},
                      world_.pool);
  }

  // Does the list on the GPU and begins a new one. Returns how long it was.
  int32_t Send() {
    const auto n = static_cast<int32_t>(list_.size());
    REQUIRE(n <= kMaxCommands);
    auto* commands = pinned_.as<TableCommand>();
    std::copy(list_.begin(), list_.end(), commands);
    Gpu::Get().ops().UpdateTables({.commands = commands,
                                   .num_commands = n,
                                   .tables = gpu_->tables,
                                   .history = gpu_history_->data(),
                                   .vocab = kVocab},
                                  Gpu::Get().stream());
    Gpu::Get().Finish();
    list_.clear();
    return n;
  }

  void Check() const {
    gpu_->CheckEquals(world_);
    CHECK(gpu_history_->Read() == history_);
  }

  // ---- What memory/ does with a row -----------------------------------------------------------

  void Admit(int32_t row, Placement where, int32_t extents, int32_t num_slots) {
    const KvGeometry& g = world_.geometry;
    Release(row);
    Do({kSetPlacement, row, 0, 0, static_cast<int32_t>(where)});
    const bool tiered = where == Placement::kTiered;
    for (int32_t layer = 0; layer < g.num_layers; ++layer) {
      for (int32_t i = 0; i < extents; ++i) Grant(kSetSummaryExtent, row, layer, i);
      for (int32_t i = 0; i < extents && tiered; ++i) Grant(kSetHostExtent, row, layer, i);
      for (int32_t i = 0; i < extents && tiered; ++i) Grant(kSetMetaSegment, row, layer, i);
      const int32_t slots = tiered ? CeilDiv(num_slots, g.extent_pages()) : extents;
      for (int32_t i = 0; i < slots; ++i) Grant(kSetSlotExtent, row, layer, i);
      if (tiered) Do({kSetNumSlots, row, layer, 0, num_slots});
    }
  }

  void Release(int32_t row) {
    Do({kSetPlacement, row, 0, 0, static_cast<int32_t>(Placement::kNone)});
    for (int32_t layer = 0; layer < world_.geometry.num_layers; ++layer) {
      Do({kSetNumSlots, row, layer, 0, 0});
      for (const auto kind : {kSetSlotExtent, kSetHostExtent, kSetSummaryExtent, kSetMetaSegment}) {
        Unmap(kind, row, layer, 0);
      }
    }
  }

  // A demotion begins: the host's side is granted, while the row stays Resident.
  void BeginDemotion(int32_t row) {
    for (int32_t layer = 0; layer < world_.geometry.num_layers; ++layer) {
      for (int32_t i = 0; i < Mapped(kSetSlotExtent, row, layer); ++i) {
        Grant(kSetMetaSegment, row, layer, i);
        Grant(kSetHostExtent, row, layer, i);
      }
    }
  }
  int32_t SlotExtents(int32_t row) const { return Mapped(kSetSlotExtent, row, 0); }
  bool LeavesHbm(int32_t row) const { return Mapped(kSetHostExtent, row, 0) > 0; }

  // And ends, some time later: of `holding` extents with tokens the last are spilled, then each layer keeps its last
  // ones, in front of the directory and bound, and is granted cold ones for the rest of `num_slots`.
  void FinishDemotion(int32_t row, int32_t holding, int32_t num_slots) {
    const KvGeometry& g = world_.geometry;
    const int32_t wanted = CeilDiv(num_slots, g.extent_pages());
    const int32_t pages = holding * g.extent_pages() - Below(g.extent_pages());
    for (int32_t layer = 0; layer < g.num_layers; ++layer) {
      for (int32_t i = Below(holding); i < holding; ++i) {
        Do({kSpillExtent, row, layer, Entry(kSetHostExtent, row, layer, i),
            Entry(kSetSlotExtent, row, layer, i)});
      }
    }
    Do({kSetPlacement, row, 0, 0, static_cast<int32_t>(Placement::kTiered)});
    for (int32_t layer = 0; layer < g.num_layers; ++layer) {
      const int32_t begin = std::max(holding - wanted, 0);
      Keep(row, layer, begin, wanted);
      Do({kSetNumSlots, row, layer, 0, num_slots});
      Do({kBindSlots, row, layer, begin * g.extent_pages(), pages});
    }
    for (int32_t layer = 0; layer < g.num_layers; ++layer) {
      for (int32_t i = Mapped(kSetSlotExtent, row, layer); i < wanted; ++i) {
        Grant(kSetSlotExtent, row, layer, i);
      }
    }
  }

  void Suspend(int32_t row) {
    for (int32_t layer = 0; layer < world_.geometry.num_layers; ++layer) {
      Do({kSetNumSlots, row, layer, 0, 0});
      Unmap(kSetSlotExtent, row, layer, 0);
      for (int32_t i = 0; i < Mapped(kSetMetaSegment, row, layer); ++i) {
        Do({kSetMetaSegment, row, layer, i, Entry(kSetMetaSegment, row, layer, i)});
      }
    }
  }

  // Slots for a row that is resumed, more for one that is lent some, fewer for one that gives some back.
  void Resize(int32_t row, int32_t num_slots) {
    const int32_t wanted = CeilDiv(num_slots, world_.geometry.extent_pages());
    for (int32_t layer = 0; layer < world_.geometry.num_layers; ++layer) {
      for (int32_t i = 0; i < wanted; ++i) {
        if (Entry(kSetSlotExtent, row, layer, i) == kAbsent) Grant(kSetSlotExtent, row, layer, i);
      }
      Do({kSetNumSlots, row, layer, 0, num_slots});
      Unmap(kSetSlotExtent, row, layer, wanted);
    }
  }

  // Binds as many slots of a Tiered stream as its tables can.
  void Bind(int32_t row, int32_t layer) {
    const KvGeometry& g = world_.geometry;
    const int32_t slots = world_.num_slots[static_cast<size_t>(row * g.num_layers + layer)];
    const int32_t pages = Mapped(kSetMetaSegment, row, layer) * g.extent_pages();
    if (slots > Mapped(kSetSlotExtent, row, layer) * g.extent_pages() || pages == 0) return;
    const int32_t first = Below(pages);
    Do({kBindSlots, row, layer, first, first + Below(pages - first + 1)});
  }

  // One of the commands on memory's own extents, of which none may lose track of what is free.
  void Anything(int32_t row, int32_t layer) {
    const KvGeometry& g = world_.geometry;
    const int32_t extent = Below(world_.num_extents), other = Below(world_.num_extents);
    switch (random_.Below(7)) {
      case 0:
        return Do({kCopySlotExtent, row, layer, extent, other});
      case 1:
        return Do({kCopyHostExtent, row, layer, extent, other});
      case 2:
        return Do({kCopySummaryExtent, row, layer, extent, other});
      case 3:
        return Do({kSpillExtent, row, layer, extent, other});
      case 4:
        return Do({kClearHistory, row, 0, 0, 0});
      case 5: {
        const int32_t mapped = Mapped(kSetSlotExtent, row, layer);
        return Do({kSetNumSlots, row, layer, 0, Below(mapped * g.extent_pages() + 1)});
      }
      default: {  // the same entry again, kept or anew
        const int32_t i = Below(g.max_extents);
        const int32_t mapped = Entry(kSetSlotExtent, row, layer, i);
        return Do(
            {random_.Below(2) == 0 ? kSetSlotExtent : kShareSlotExtent, row, layer, i, mapped});
      }
    }
  }

  // Plain commands without any sense, often for one entry, and counts that go up and down.
  void Nonsense() {
    const KvGeometry& g = world_.geometry;
    constexpr TableCommandKind kKinds[] = {kSetSlotExtent,    kShareSlotExtent, kSetHostExtent,
                                           kSetSummaryExtent, kSetMetaSegment,  kSetNumSlots,
                                           kSetNumSlots,      kSetPlacement};
    const TableCommandKind kind = kKinds[random_.Below(8)];
    TableCommand c{kind, Below(g.max_rows), Below(g.num_layers), Below(g.max_extents),
                   Below(world_.num_extents + 1) - 1};
    if (kind == kSetNumSlots) c.value = Below(g.max_pages() + 5);
    if (kind == kSetPlacement) {
      if (random_.Below(8) != 0) return;
      c.value = Below(3);
    }
    Do(c);
  }

  int32_t Below(int32_t n) { return static_cast<int32_t>(random_.Below(static_cast<uint32_t>(n))); }
  Placement PlacementOf(int32_t row) const {
    return static_cast<Placement>(world_.placement[static_cast<size_t>(row)]);
  }
  int32_t length() const { return static_cast<int32_t>(list_.size()); }
  const KvGeometry& geometry() const { return world_.geometry; }
  const std::vector<int32_t>& meta() const { return world_.meta; }

 private:
  std::vector<int32_t>& Free(TableCommandKind kind) {
    switch (kind) {
      case kSetSlotExtent:
        return world_.free_slots;
      case kSetHostExtent:
        return world_.free_host;
      case kSetSummaryExtent:
        return world_.free_summaries;
      default:
        return world_.free_meta;
    }
  }
  int32_t Entry(TableCommandKind kind, int32_t row, int32_t layer, int32_t i) const {
    const auto& dir = kind == kSetSlotExtent      ? world_.slot_dir
                      : kind == kSetHostExtent    ? world_.host_dir
                      : kind == kSetSummaryExtent ? world_.summary_dir
                                                  : world_.meta_dir;
    return dir[static_cast<size_t>(world_.geometry.DirIndex(row, layer, i))];
  }
  int32_t Mapped(TableCommandKind kind, int32_t row, int32_t layer) const {
    int32_t n = 0;
    while (n < world_.geometry.max_extents && Entry(kind, row, layer, n) != kAbsent) ++n;
    return n;
  }
  void Grant(TableCommandKind kind, int32_t row, int32_t layer, int32_t i) {
    Do({kind, row, layer, i, KvWorld::Take(Free(kind))});
  }
  void Unmap(TableCommandKind kind, int32_t row, int32_t layer, int32_t first) {
    for (int32_t i = Mapped(kind, row, layer) - 1; i >= first; --i) {
      Free(kind).push_back(Entry(kind, row, layer, i));  // to be granted again, maybe in this list
      Do({kind, row, layer, i, kAbsent});
    }
  }

  // Of a layer's slot extents those from `begin` on stay, at most `count`, as the first ones.
  void Keep(int32_t row, int32_t layer, int32_t begin, int32_t count) {
    std::vector<int32_t> kept;
    const int32_t mapped = Mapped(kSetSlotExtent, row, layer);
    for (int32_t i = 0; i < mapped; ++i) {
      const bool stays = i >= begin && i < begin + count;
      (stays ? kept : world_.free_slots).push_back(Entry(kSetSlotExtent, row, layer, i));
    }
    kept.resize(static_cast<size_t>(mapped), kAbsent);
    for (int32_t i = 0; i < mapped; ++i) {
      Do({kSetSlotExtent, row, layer, i, kept[static_cast<size_t>(i)]});
    }
  }

  KvWorld world_;
  std::vector<uint32_t> history_;
  Random random_;
  Buffer pinned_;
  std::unique_ptr<KvOnDevice> gpu_;
  std::unique_ptr<OnDevice<uint32_t>> gpu_history_;
  std::vector<TableCommand> list_;
};

// One thing that happens to a row.
void Event(Twins& twins) {
  const KvGeometry& g = twins.geometry();
  const int32_t row = twins.Below(g.max_rows), layer = twins.Below(g.num_layers);
  const int32_t extents = 1 + twins.Below(g.max_extents);
  const int32_t num_slots = 1 + twins.Below(extents * g.extent_pages());
  switch (twins.PlacementOf(row)) {
    case Placement::kNone:
      return twins.Admit(row, twins.Below(3) == 0 ? Placement::kResident : Placement::kTiered,
                         extents, num_slots);
    case Placement::kResident:
      if (twins.Below(4) == 0) return twins.Release(row);
      if (!twins.LeavesHbm(row)) return twins.BeginDemotion(row);
      return twins.FinishDemotion(row, 1 + twins.Below(twins.SlotExtents(row)), num_slots);
    case Placement::kTiered:
      switch (twins.Below(12)) {
        case 0:
          return twins.Release(row);
        case 1:
          return twins.Suspend(row);
        case 2:
        case 3:
          return twins.Resize(row, num_slots);
        case 4:
          return twins.Admit(row, Placement::kResident, extents, 0);
        case 5:
        case 6:
        case 7:
          return twins.Bind(row, layer);
        default:
          return twins.Anything(row, layer);
      }
  }
}

TEST_CASE("tables: thousands of lists of rows coming, changing and going") {
  const int32_t page_tokens = GENERATE(8, 64);
  const int32_t num_kv_heads = GENERATE(1, 3);
  Twins twins(Geometry(page_tokens, num_kv_heads), 40 + static_cast<uint64_t>(page_tokens));
  int32_t longest = 0;
  bool bound = false;  // a partition was found in a slot, at some time
  for (int32_t list = 0; list < 1000; ++list) {
    const int32_t events = list % 50 == 49 ? 300 : twins.Below(6);
    for (int32_t i = 0; i < events; ++i) Event(twins);
    longest = std::max(longest, twins.Send());
    if (list % 25 == 0 || list % 50 == 49) twins.Check();
    bound = bound || std::any_of(twins.meta().begin(), twins.meta().end(),
                                 [](int32_t slot) { return slot != kAbsent && slot != 12345; });
  }
  twins.Check();
  CHECK(longest > 2048);  // more than two windows
  CHECK(bound);
}

TEST_CASE("tables: whatever comes, entries that are written many times in a list") {
  Twins twins(Geometry(16, 3), 50);
  for (int32_t list = 0; list < 400; ++list) {
    const int32_t length = list % 20 == 19 ? 3000 : 1 + twins.Below(200);
    for (int32_t i = 0; i < length; ++i) twins.Nonsense();
    twins.Send();
    if (list % 10 == 9) twins.Check();
  }
}

TEST_CASE("tables: what a count takes away depends on the list before it") {
  const int32_t before = GENERATE(0, 1, 1019, 1020, 1021, 1022, 1023);  // also across windows
  Twins twins(Geometry(64, 3), 65);
  twins.Admit(1, Placement::kTiered, 2, 16);
  twins.Do({kBindSlots, 1, 0, 0, 16});
  twins.Send();
  for (int32_t i = 0; i < before; ++i) twins.Do({kSetHostExtent, 0, i % 2, i % 3, i % 24});
  twins.Do({kSetPlacement, 1, 0, 0, static_cast<int32_t>(Placement::kResident)});
  twins.Do({kSetNumSlots, 1, 0, 0, 9});  // takes nothing: the row is Resident
  twins.Do({kSetPlacement, 1, 0, 0, static_cast<int32_t>(Placement::kTiered)});
  twins.Do({kSetNumSlots, 1, 0, 0, 4});  // takes 4 to 8
  twins.Send();
  twins.Check();
  for (int32_t i = 0; i < before; ++i) twins.Do({kSetHostExtent, 0, i % 2, i % 3, i % 24});
  twins.Do({kSetNumSlots, 1, 0, 0, 14});
  twins.Do({kSetNumSlots, 1, 0, 0, 10});  // takes 10 to 13
  twins.Do({kSetNumSlots, 1, 0, 0, 15});
  twins.Send();
  twins.Check();
}

TEST_CASE("tables: every length around a window", "[small]") {
  Twins twins(Geometry(32, 2), 60);
  for (const int32_t length : {0, 1, 31, 32, 33, 1023, 1024, 1025, 2047, 2048, 2049}) {
    while (twins.length() < length) twins.Nonsense();
    twins.Send();
    twins.Check();
  }
}

TEST_CASE("tables: admission, suspension and release of long sequences of Qwen3-8B's layers") {
  const KvGeometry g{.num_layers = 36,
                     .num_kv_heads = 2,  // and thin pages: the directories count
                     .num_q_heads = 2,
                     .head_dim = 1,
                     .page_tokens = 16,
                     .max_rows = 3,
                     .max_extents = 64,
                     .summary_elements = 2,
                     .dtype = DType::kBf16};
  Twins twins(g, 70);
  twins.Admit(0, Placement::kTiered, 64, g.max_pages());
  CHECK(twins.length() > 9000);
  twins.Send();
  twins.Check();
  twins.Admit(1, Placement::kResident, 64, 0);
  twins.Admit(2, Placement::kTiered, 64, 300);
  for (int32_t layer = 0; layer < g.num_layers; ++layer) twins.Bind(2, layer);
  twins.Send();
  twins.Check();
  twins.BeginDemotion(1);
  twins.Suspend(2);
  twins.Send();
  twins.FinishDemotion(1, 61, 300);
  twins.Release(0);
  twins.Admit(0, Placement::kTiered, 50, 200);  // of extents that the list gave back
  twins.Send();
  twins.Check();
}

TEST_CASE("tables: copies keep their order where they meet", "[small]") {
  Twins twins(Geometry(64, 3), 80);
  for (const auto kind : {kCopySlotExtent, kCopyHostExtent, kCopySummaryExtent, kSpillExtent}) {
    for (int32_t i = 0; i < 5; ++i) twins.Do({kind, 0, 0, i + 1, i});      // the first becomes all
    for (int32_t i = 0; i < 6; ++i) twins.Do({kind, 0, 0, i + 8, i + 6});  // meet after two
    for (int32_t i = 5; i >= 0; --i) twins.Do({kind, 0, 0, i + 16, i + 9});
    for (int32_t i = 5; i >= 0; --i) twins.Do({kind, 0, 0, i + 1, i});
    twins.Do({kind, 0, 0, 7, 7});
    twins.Send();
    twins.Check();
  }
  twins.Do({kCopySlotExtent, 0, 0, 3, 4});
  twins.Do({kCopyKeyBasis, 3, 0, 3, 2});
  twins.Do({kCopyKeyBasis, 2, 0, 2, 1});
  twins.Do({kSpillExtent, 0, 0, 4, 3});
  twins.Do({kSetSlotExtent, 0, 0, 0, 3});
  twins.Do({kCopyHostExtent, 0, 0, 5, 4});
  twins.Do({kClearHistory, 2, 0, 0, 0});
  twins.Send();
  twins.Check();
}

TEST_CASE("history: prompt tokens are marked, generated ones counted, repeated or not", "[small]") {
  const int32_t vocab = GENERATE(1, 37, 5000);
  Random random(90);
  std::vector<uint32_t> history(static_cast<size_t>(3 * vocab), 5);
  const OnDevice<uint32_t> device_history(history);
  ThreadPool pool(1);
  for (const int32_t n : {0, 1, 255, 256, 257, 3000}) {
    std::vector<int32_t> ids(static_cast<size_t>(n));
    for (int32_t& id : ids) id = static_cast<int32_t>(random.Below(static_cast<uint32_t>(vocab)));
    const OnDevice<int32_t> device_ids(ids, MemoryKind::kPinned);
    for (const bool generated : {true, false}) {
      MarkPromptParams p{.ids = device_ids.data(),
                         .generated = generated,
                         .n = n,
                         .row = generated ? 1 : n % 2,
                         .history = device_history.data(),
                         .vocab = vocab};
      Gpu::Get().ops().MarkPrompt(p, Gpu::Get().stream());
      Gpu::Get().Finish();
      p.ids = ids.data();
      p.history = history.data();
      cpu::MarkPrompt(p, pool);
    }
    CHECK(device_history.Read() == history);
  }
  CHECK(std::count(history.begin(), history.end(), 5u) < 3 * vocab);
}

}  // namespace
}  // namespace spin
