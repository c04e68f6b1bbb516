// Rows of spin_bench kernels: ShadowKV's low-rank keys, at Qwen3-8B's sizes and the paper's rank.
#include <absl/strings/str_format.h>

#include <algorithm>

#include "common/math.h"
#include "tools/bench/kernel_bench.h"
#include "tools/bench/kernel_shapes.h"

namespace spin::bench {
namespace {

constexpr int32_t kRank = 160;
constexpr int32_t kWidth = kKvHeads * kHeadDim;

KvGeometry KeyGeometry(int32_t max_rows, int32_t max_extents) {
  KvGeometry g = Geometry(kLandmarkTokens, max_rows, max_extents);
  g.key_rank = kRank;
  g.summary_elements = kHeadDim + g.key_piece();
  return g;
}

// A table that rotates by nothing: what is rotated back again and again stays as it is.
const float* StillTable(int32_t positions, BenchMemory& memory) {
  std::vector<float> table;
  for (int32_t i = 0; i < positions * kHeadDim; ++i) {
    table.push_back(i % kHeadDim < kHeadDim / 2 ? 1.0f : 0.0f);
  }
  return memory.Ints(table);
}

// The end of a layer of one prompt. Operations: half of the Gram matrix, and the factors.
KernelRow PrefillRow(const std::string& name, int32_t tokens, BenchMemory& memory) {
  const KvGeometry g = KeyGeometry(1, tokens / kExtentTokens);
  KeyFactorPrefillParams p;
  p.slices = memory.Ints(std::vector<PrefillSlice>{{.num_tokens = tokens}});
  p.num_slices = 1;
  p.tables = MakeTables(memory, g, 1, 0, true);
  p.tables.key_basis = memory.RandomBf16(g.key_basis_elements());
  const int32_t pages = tokens / kLandmarkTokens;
  p.staging = {memory.RandomBf16(int64_t{kKvHeads} * pages * g.page_elements()), pages};
  p.rope_table = StillTable(tokens, memory);
  p.scratch = memory.Zeros(kKeySlices * KeyFactorScratchBytes(kWidth, kRank));
  const double operations = static_cast<double>(tokens) * kWidth * (kWidth + 2.0 * kRank);
  return {name, Ceiling::kProduct, operations, 1,
          [=, &memory](int64_t) { memory.backend().ops->KeyFactorPrefill(p, memory.stream()); }};
}

// `tokens` a multiple of the page: every row completes one. One more: none does.
KernelRow DecodeRow(const std::string& name, int32_t batch, int32_t tokens, BenchMemory& memory) {
  const KvGeometry g = KeyGeometry(batch, CeilDiv(tokens, kExtentTokens));
  KeyFactorDecodeParams p;
  p.tables = MakeTables(memory, g, batch, 0, true);
  p.tables.slots =
      memory.RandomBf16(int64_t{batch} * g.max_extents * g.pages_per_extent() * g.page_elements());
  p.tables.key_basis = memory.RandomBf16(batch * g.key_basis_elements());
  p.qkv = memory.RandomBf16(int64_t{batch} * kQkv);
  p.rope_table = StillTable(tokens, memory);
  p.decode = MakeDecodeRows(memory, std::vector<int32_t>(static_cast<size_t>(batch), tokens - 1));
  const bool complete = tokens % kLandmarkTokens == 0;
  const double bytes =
      complete ? 2.0 * batch * (kLandmarkTokens * (kWidth + kRank) + double{kWidth} * kRank) : 0;
  return {name, Ceiling::kCopy, bytes, 16,
          [=, &memory](int64_t) { memory.backend().ops->KeyFactorDecode(p, memory.stream()); }};
}

// Rows of 32K tokens that fetch `copies` pages a stream, all of them to be rebuilt.
struct Fetched {
  Fetched(int32_t batch, int32_t copies, BenchMemory& memory) : g(KeyGeometry(batch, 64)) {
    tables = MakeTables(memory, g, batch, copies, true);
    tables.key_basis = memory.RandomBf16(batch * g.key_basis_elements());
    const int32_t streams = batch * kKvHeads;
    const std::vector<int32_t> slots = Shuffled(streams * copies);
    std::vector<int32_t> owner(slots.size());
    for (int32_t stream = 0; stream < streams; ++stream) {
      const std::vector<int32_t> pages = Shuffled(4000, static_cast<uint64_t>(stream) + 1);
      for (int32_t k = 0; k < copies; ++k) {
        owner[static_cast<size_t>(slots[static_cast<size_t>(stream * copies + k)])] =
            pages[static_cast<size_t>(k)];
      }
    }
    tables.slot_owner = memory.Ints(owner);
    tables.slots = memory.RandomBf16(int64_t{streams} * copies * g.page_elements());
    copy_dst = memory.Ints(slots);
    copy_len = memory.Ints(std::vector<int32_t>(static_cast<size_t>(streams), copies));
    decode = MakeDecodeRows(memory, std::vector<int32_t>(static_cast<size_t>(batch), 32767));
  }
  KvGeometry g;
  KvTables tables;
  const int32_t *copy_dst, *copy_len;
  DecodeRows decode;
};

KernelRow GatherRow(const std::string& name, int32_t batch, int32_t copies, BenchMemory& memory) {
  constexpr int64_t kHostBytes = int64_t{8} << 30;
  const Fetched fetched(batch, copies, memory);
  const int64_t entries = int64_t{batch} * kKvHeads * copies;
  std::vector<int64_t> src;
  const auto host_pages = static_cast<int32_t>(kHostBytes / fetched.g.page_bytes());
  const std::vector<int32_t> order = Shuffled(host_pages);
  for (int64_t i = 0; i < entries; ++i) src.push_back(order[static_cast<size_t>(i)]);
  GatherPagesParams p;
  p.decode = fetched.decode;
  p.whole_last = 5;
  p.list_len = fetched.copy_len;
  p.tables = fetched.tables;
  p.tables.host_pages = memory.RandomPinned(kHostBytes);
  p.copy_src = memory.Ints(src);
  p.copy_dst = fetched.copy_dst;
  p.copy_len = fetched.copy_len;
  p.max_list = copies;
  const double bytes =
      static_cast<double>(entries) * static_cast<double>(fetched.g.page_bytes()) / 2;
  return {name, Ceiling::kLink, bytes, 4,
          [=, &memory](int64_t) { memory.backend().ops->GatherPages(p, memory.stream()); }};
}

// Factors read and keys written, a page; each row's basis read once.
KernelRow RebuildRow(const std::string& name, int32_t batch, int32_t copies, BenchMemory& memory) {
  const Fetched fetched(batch, copies, memory);
  RebuildKeysParams p;
  p.decode = fetched.decode;
  p.whole_last = 5;
  p.list_len = fetched.copy_len;
  p.tables = fetched.tables;
  p.rope_table = StillTable(32768, memory);
  p.copy_dst = fetched.copy_dst;
  p.copy_len = fetched.copy_len;
  p.max_list = copies;
  p.counters = static_cast<RetrieveCounters*>(
      memory.Zeros(batch * static_cast<int64_t>(sizeof(RetrieveCounters))));
  const double pages = static_cast<double>(batch) * kKvHeads * copies;
  const double bytes = 2.0 * (pages * kLandmarkTokens * (kRank + kHeadDim) +
                              static_cast<double>(batch) * kWidth * kRank);
  return {name, Ceiling::kCopy, bytes, 8,
          [=, &memory](int64_t) { memory.backend().ops->RebuildKeys(p, memory.stream()); }};
}

}  // namespace

std::vector<KernelRowMaker> KeyKernelRows() {
  std::vector<KernelRowMaker> rows;
  const auto add = [&](const std::string& name, auto row, auto... args) {
    rows.push_back({name, [=](BenchMemory& memory) { return row(name, args..., memory); }});
  };
  for (const int32_t k : {4, 32, 64}) {
    add(absl::StrFormat("key_factor prefill %dK", k), PrefillRow, k * 1024);
  }
  add("key_factor decode batch 22, all complete a page", DecodeRow, 22, 2048);
  add("key_factor decode batch 22, none does", DecodeRow, 22, 2049);
  add("gather values of 256 pages", GatherRow, 32, 1);
  add("gather values of 3328 pages", GatherRow, 32, 13);
  add("rebuild_keys of 8 x 30 pages", RebuildRow, 1, 30);
  add("rebuild_keys of 256 x 13 pages", RebuildRow, 32, 13);
  return rows;
}

}  // namespace spin::bench
