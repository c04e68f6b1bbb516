// Rows of spin_bench kernels: what a decode step does over the KV cache, at Qwen3-8B's sizes.
#include <absl/strings/str_format.h>

#include <algorithm>
#include <utility>

#include "common/math.h"
#include "tools/bench/kernel_bench.h"
#include "tools/bench/kernel_shapes.h"

namespace spin::bench {
namespace {

KernelRow AttentionRow(const std::string& name, int32_t batch, int32_t tokens, int32_t page_tokens,
                       BenchMemory& memory) {
  const KvGeometry g = Geometry(page_tokens, batch, CeilDiv(tokens, kExtentTokens));
  const int32_t pages = tokens / page_tokens;
  const int64_t call_pages = int64_t{batch} * kKvHeads * pages;
  const int64_t copies = CopiesFor(call_pages * g.page_bytes());
  void* slots = memory.RandomBf16(copies * call_pages * g.page_elements());
  std::vector<int32_t> lists;
  for (int64_t copy = 0; copy < copies; ++copy) {
    for (const int32_t page : Shuffled(static_cast<int32_t>(call_pages), copy + 1)) {
      lists.push_back(static_cast<int32_t>(copy * call_pages) + page);
    }
  }
  const int32_t* page_list = memory.Ints(lists);
  const int32_t* list_len =
      memory.Ints(std::vector<int32_t>(static_cast<size_t>(batch) * kKvHeads, pages));
  const uint16_t* qkv = memory.RandomBf16(int64_t{batch} * kQkv);
  uint16_t* out = memory.RandomBf16(int64_t{batch} * kQHeads * kHeadDim);
  const DecodeRows decode =
      MakeDecodeRows(memory, std::vector<int32_t>(static_cast<size_t>(batch), tokens - 1));
  const double bytes = static_cast<double>(call_pages) * static_cast<double>(g.page_bytes());
  return {name, Ceiling::kCopy, bytes, bytes > 1e9 ? 2 : 16, [=, &memory](int64_t i) {
            PagedAttentionParams p;
            p.decode = decode;
            p.qkv = qkv;
            p.tables.geometry = g;
            p.tables.slots = slots;
            p.page_list = page_list + i % copies * call_pages;
            p.list_len = list_len;
            p.max_list = pages;
            p.out = out;
            memory.backend().ops->PagedAttention(p, memory.stream());
          }};
}

KernelRow ScoreRow(const std::string& name, SummaryKind kind, int32_t batch, int32_t tokens,
                   BenchMemory& memory) {
  const bool bounds = kind == SummaryKind::kBounds;
  const int32_t page_tokens = bounds ? 16 : kLandmarkTokens;
  KvGeometry g = Geometry(page_tokens, batch, tokens / kExtentTokens);
  g.summary_elements = (bounds ? 2 : 1) * kHeadDim;
  const KvTables tables = MakeTables(memory, g, batch, 0, true);
  const uint16_t* qkv = memory.RandomBf16(int64_t{batch} * kQkv);
  float* logits = memory.RandomFloats(int64_t{batch} * kQHeads * g.max_pages());
  float* scores = memory.RandomFloats(int64_t{batch} * kKvHeads * g.max_pages());
  const DecodeRows decode =
      MakeDecodeRows(memory, std::vector<int32_t>(static_cast<size_t>(batch), tokens - 1));
  const double bytes = static_cast<double>(batch) * kKvHeads * (tokens / page_tokens) *
                       static_cast<double>(g.summary_bytes());
  return {name, Ceiling::kCopy, bytes, 8, [=, &memory](int64_t) {
            memory.backend().ops->ScoreSummaries({.decode = decode,
                                                  .qkv = qkv,
                                                  .tables = tables,
                                                  .kind = kind,
                                                  .logits = logits,
                                                  .scores = scores},
                                                 memory.stream());
          }};
}

// ShadowKV's Index at the end of a layer of one prompt: keys read once, an eighth of them written.
KernelRow LandmarkPrefillRow(const std::string& name, int32_t tokens, BenchMemory& memory) {
  KvGeometry g = Geometry(kLandmarkTokens, 1, tokens / kExtentTokens);
  g.summary_elements = kHeadDim;
  const int32_t pages = tokens / kLandmarkTokens;
  LandmarkIndexPrefillParams p;
  p.slices = memory.Ints(std::vector<PrefillSlice>{{.num_tokens = tokens}});
  p.num_slices = 1;
  p.tables = MakeTables(memory, g, 1, 0, true);
  p.staging = {memory.RandomBf16(int64_t{kKvHeads} * pages * g.page_elements()), pages};
  p.outlier_pages = 48;
  p.local_pages = 4;
  p.spread = memory.RandomFloats(int64_t{kKvHeads} * RoundUp(pages, 4));
  const double keys = 2.0 * kKvHeads * tokens * kHeadDim;
  return {name, Ceiling::kCopy, keys * 9 / 8, 2, [=, &memory](int64_t) {
            memory.backend().ops->LandmarkIndexPrefill(p, memory.stream());
          }};
}

// One step in eight a token completes its page; here every one does.
KernelRow LandmarkDecodeRow(const std::string& name, int32_t batch, BenchMemory& memory) {
  KvGeometry g = Geometry(kLandmarkTokens, batch, 2);
  g.summary_elements = kHeadDim;
  LandmarkIndexDecodeParams p;
  p.tables = MakeTables(memory, g, batch, 0, true);
  const int64_t pages = int64_t{batch} * g.max_extents * g.pages_per_extent();
  p.tables.slots = memory.RandomBf16(pages * g.page_elements());
  p.qkv = memory.RandomBf16(int64_t{batch} * kQkv);
  p.decode = MakeDecodeRows(memory, std::vector<int32_t>(static_cast<size_t>(batch), 1023));
  const double keys = 2.0 * batch * kKvHeads * kLandmarkTokens * kHeadDim;
  return {name, Ceiling::kCopy, keys * 9 / 8, 16,
          [=, &memory](int64_t) { memory.backend().ops->LandmarkIndexDecode(p, memory.stream()); }};
}

// Gates and a rotary table of `positions` positions; summaries are one vector.
struct SeerData {
  SeerData(int32_t positions, int32_t batch, int32_t page_tokens, BenchMemory& memory)
      : geometry(Geometry(page_tokens, batch, positions / kExtentTokens)),
        rope_table(memory.RandomFloats(int64_t{positions} * kHeadDim)) {
    geometry.summary_elements = kHeadDim;
    tables = MakeTables(memory, geometry, batch, 0, true);
    gate = {.wq = memory.RandomBf16(int64_t{kQHeads} * kHeadDim * kHeadDim),
            .wk = memory.RandomBf16(int64_t{3} * kKvHeads * kHeadDim * kHeadDim),
            .q_norm = memory.RandomFloats(kHeadDim),
            .k_norm = memory.RandomFloats(kHeadDim)};
  }
  KvGeometry geometry;
  const float* rope_table;
  KvTables tables;
  SeerGate gate;
};

KernelRow SeerScoreRow(const std::string& name, int32_t batch, int32_t tokens, int32_t page_tokens,
                       BenchMemory& memory) {
  const SeerData data(tokens, batch, page_tokens, memory);
  const uint16_t* qkv = memory.RandomBf16(int64_t{batch} * kQkv);
  float* scores = memory.RandomFloats(int64_t{batch} * kKvHeads * data.geometry.max_pages());
  const DecodeRows decode =
      MakeDecodeRows(memory, std::vector<int32_t>(static_cast<size_t>(batch), tokens - 1));
  // Summaries, and the gate's weights once.
  const double bytes = 2.0 * kHeadDim *
                       (static_cast<double>(batch) * kKvHeads * (tokens / page_tokens) +
                        static_cast<double>(kQHeads) * kHeadDim);
  return {name, Ceiling::kCopy, bytes, 8, [=, &memory](int64_t) {
            memory.backend().ops->SeerScore({.decode = decode,
                                             .qkv = qkv,
                                             .tables = data.tables,
                                             .gate = data.gate,
                                             .rope_table = data.rope_table,
                                             .scores = scores},
                                            memory.stream());
          }};
}

KernelRow SeerPrefillRow(const std::string& name, int32_t tokens, int32_t page_tokens,
                         BenchMemory& memory) {
  const SeerData data(tokens, 1, page_tokens, memory);
  const Staging staging = {memory.RandomBf16(int64_t{2} * kKvHeads * tokens * kHeadDim),
                           tokens / page_tokens};
  const PrefillSlice* slices = memory.Ints(std::vector<PrefillSlice>{{.num_tokens = tokens}});
  return {name, Ceiling::kCopy, 2.0 * kKvHeads * tokens * kHeadDim, 4, [=, &memory](int64_t) {
            memory.backend().ops->SeerIndexPrefill({.slices = slices,
                                                    .num_slices = 1,
                                                    .tables = data.tables,
                                                    .staging = staging,
                                                    .gate = data.gate,
                                                    .rope_table = data.rope_table},
                                                   memory.stream());
          }};
}

// `tokens` a multiple of the page: every row completes one. One more: none does.
KernelRow SeerDecodeRow(const std::string& name, int32_t batch, int32_t tokens, int32_t page_tokens,
                        BenchMemory& memory) {
  SeerData data(RoundUp(tokens, kExtentTokens), batch, page_tokens, memory);
  data.tables.slots =
      memory.RandomBf16(int64_t{batch} * data.geometry.max_extents *
                        data.geometry.pages_per_extent() * data.geometry.page_elements());
  const uint16_t* qkv = memory.RandomBf16(int64_t{batch} * kQkv);
  const DecodeRows decode =
      MakeDecodeRows(memory, std::vector<int32_t>(static_cast<size_t>(batch), tokens - 1));
  const double keys = tokens % page_tokens == 0 ? static_cast<double>(batch) * page_tokens : 0;
  return {name, Ceiling::kCopy, 2.0 * kKvHeads * kHeadDim * keys, 16, [=, &memory](int64_t) {
            memory.backend().ops->SeerIndexDecode({.decode = decode,
                                                   .qkv = qkv,
                                                   .tables = data.tables,
                                                   .gate = data.gate,
                                                   .rope_table = data.rope_table},
                                                  memory.stream());
          }};
}

// `threshold`: of the mean probability of a page; 0: none.
KernelRow TopKRow(const std::string& name, int32_t batch, int32_t pages, double threshold,
                  BenchMemory& memory) {
  const KvGeometry g = Geometry(16, batch, pages * 16 / kExtentTokens);
  const float* scores = memory.RandomFloats(int64_t{batch} * kKvHeads * pages);
  constexpr int32_t kBudget = 128;
  auto* ids = static_cast<int32_t*>(memory.Zeros(int64_t{batch} * kKvHeads * kBudget * 4));
  auto* count = static_cast<int32_t*>(memory.Zeros(int64_t{batch} * kKvHeads * 4));
  const DecodeRows decode =
      MakeDecodeRows(memory, std::vector<int32_t>(static_cast<size_t>(batch), pages * 16 - 1));
  auto* counters = static_cast<RetrieveCounters*>(
      memory.Zeros(batch * static_cast<int64_t>(sizeof(RetrieveCounters))));
  return {name, Ceiling::kCopy, 4.0 * batch * kKvHeads * pages, 16, [=, &memory](int64_t) {
            memory.backend().ops->SelectTopK(
                {.decode = decode,
                 .scores = scores,
                 .geometry = g,
                 .budget = {.fixed_first = 1, .selectable = kBudget - 2},
                 .ids = ids,
                 .count = count,
                 .max_selected = kBudget,
                 .threshold = threshold / pages,
                 .counters = counters},
                memory.stream());
          }};
}

// A recorded page for four: what spin_bench step --selection adds to a layer.
KernelRow ReplayRow(const std::string& name, int32_t batch, BenchMemory& memory) {
  constexpr int32_t kSteps = 64, kRecorded = 32, kScale = 4, kBudget = kRecorded * kScale;
  const KvGeometry g = Geometry(16, batch, 64);
  std::vector<int32_t> recorded;
  for (int32_t i = 0; i < kSteps * kRecorded; ++i) recorded.push_back(15 * (i % kRecorded));
  ReplaySelectionParams p;
  p.decode = MakeDecodeRows(memory, std::vector<int32_t>(static_cast<size_t>(batch), 32767));
  p.geometry = g;
  p.recorded = memory.Ints(recorded);
  p.recorded_count = memory.Ints(std::vector<int32_t>(kSteps, kRecorded));
  p.num_steps = kSteps;
  p.num_layers = p.num_heads = 1;
  p.max_recorded = kRecorded;
  p.phase = memory.Ints(std::vector<int32_t>(static_cast<size_t>(batch), 0));
  p.pages_per_recorded = kScale;
  p.ids = static_cast<int32_t*>(memory.Zeros(int64_t{batch} * kKvHeads * kBudget * 4));
  p.count = static_cast<int32_t*>(memory.Zeros(int64_t{batch} * kKvHeads * 4));
  p.max_selected = kBudget;
  const double bytes = 4.0 * batch * kKvHeads * (kRecorded + kBudget);
  return {name, Ceiling::kCopy, bytes, 16,
          [=, &memory](int64_t) { memory.backend().ops->ReplaySelection(p, memory.stream()); }};
}

// Two selections in turn that share most of their pages: each step evicts and fetches a tenth. num_slots 0: Resident,
// the whole context.
KernelRow LookupRow(const std::string& name, int32_t batch, int32_t tokens, int32_t page_tokens,
                    int32_t num_slots, BenchMemory& memory) {
  const KvGeometry g = Geometry(page_tokens, batch, tokens / kExtentTokens);
  const KvTables tables = MakeTables(memory, g, batch, num_slots, false);
  const int32_t streams = batch * kKvHeads;
  const int32_t pages = tokens / page_tokens;
  const int32_t selected = num_slots > 0 ? num_slots / 3 : pages;
  const int32_t* ids[2] = {nullptr, nullptr};
  const int32_t* count = nullptr;
  if (num_slots > 0) {
    for (int which = 0; which < 2; ++which) {
      std::vector<int32_t> all;
      for (int32_t s = 0; s < streams; ++s) {
        std::vector<int32_t> some = Shuffled(pages - 1, static_cast<uint64_t>(s) + 1);
        const int32_t shift = which * selected / 10;
        std::vector<int32_t> chosen(some.begin() + shift, some.begin() + shift + selected - 1);
        chosen.push_back(pages - 1);
        std::sort(chosen.begin(), chosen.end());
        all.insert(all.end(), chosen.begin(), chosen.end());
      }
      ids[which] = memory.Ints(all);
    }
    count = memory.Ints(std::vector<int32_t>(static_cast<size_t>(streams), selected));
  }
  LookupParams p;
  p.decode = MakeDecodeRows(memory, std::vector<int32_t>(static_cast<size_t>(batch), tokens - 1));
  p.count = count;
  p.max_selected = selected;
  p.tables = tables;
  const int64_t entries = int64_t{streams} * selected;
  p.page_list = static_cast<int32_t*>(memory.Zeros(entries * 4));
  p.list_len = static_cast<int32_t*>(memory.Zeros(int64_t{streams} * 4));
  p.max_list = selected;
  p.copy_src = static_cast<int64_t*>(memory.Zeros(entries * 8));
  p.copy_dst = static_cast<int32_t*>(memory.Zeros(entries * 4));
  p.copy_len = static_cast<int32_t*>(memory.Zeros(int64_t{streams} * 4));
  p.counters = static_cast<RetrieveCounters*>(
      memory.Zeros(batch * static_cast<int64_t>(sizeof(RetrieveCounters))));
  const double bytes = 4.0 * static_cast<double>(streams) * (3.0 * selected + 1.25 * num_slots);
  return {name, Ceiling::kCopy, bytes, 16, [=, &memory](int64_t i) {
            LookupParams q = p;
            q.ids = ids[i % 2];
            memory.backend().ops->Lookup(q, memory.stream());
          }};
}

KernelRow GatherRow(const std::string& name, int32_t page_tokens, int32_t copies_a_stream,
                    BenchMemory& memory) {
  constexpr int32_t kBatch = 32;
  constexpr int64_t kHostBytes = int64_t{8} << 30;
  const KvGeometry g = Geometry(page_tokens, kBatch, 64);
  const int32_t streams = kBatch * kKvHeads;
  const int64_t entries = int64_t{streams} * copies_a_stream;
  const auto host_pages = static_cast<int32_t>(kHostBytes / g.page_bytes());
  std::vector<int64_t> src;
  const std::vector<int32_t> order = Shuffled(host_pages);
  for (int64_t i = 0; i < entries; ++i) src.push_back(order[static_cast<size_t>(i) % order.size()]);
  GatherPagesParams p;
  p.decode = MakeDecodeRows(memory, std::vector<int32_t>(kBatch, 0));
  p.tables.geometry = g;
  p.tables.host_pages = memory.RandomPinned(kHostBytes);
  p.tables.slots = memory.RandomBf16(std::max<int64_t>(entries, 1) * g.page_elements());
  p.copy_src = memory.Ints(src.empty() ? std::vector<int64_t>{0} : src);
  p.copy_dst = memory.Ints(Shuffled(static_cast<int32_t>(std::max<int64_t>(entries, 1))));
  p.copy_len = memory.Ints(std::vector<int32_t>(static_cast<size_t>(streams), copies_a_stream));
  p.max_list = copies_a_stream;
  const double bytes = static_cast<double>(entries) * static_cast<double>(g.page_bytes());
  return {name, Ceiling::kLink, bytes, 4,
          [=, &memory](int64_t) { memory.backend().ops->GatherPages(p, memory.stream()); }};
}

}  // namespace

std::vector<KernelRowMaker> SparseKernelRows() {
  std::vector<KernelRowMaker> rows;
  const auto add = [&](const std::string& name, auto row, auto... args) {
    rows.push_back({name, [=](BenchMemory& memory) { return row(name, args..., memory); }});
  };
  for (const int32_t batch : {1, 8, 22, 32}) {
    add(absl::StrFormat("paged_attention dense 32K batch %d", batch), AttentionRow, batch, 32768,
        64);
  }
  for (const int32_t batch : {1, 8, 32}) {
    add(absl::StrFormat("paged_attention 2048 of P 16 batch %d", batch), AttentionRow, batch, 2048,
        16);
  }
  for (const auto& [what, kind] : {std::pair{"bounds of P 16", SummaryKind::kBounds},
                                   std::pair{"means of P 8", SummaryKind::kMean}}) {
    for (const int32_t batch : {1, 8, 22}) {
      add(absl::StrFormat("score %s 32K batch %d", what, batch), ScoreRow, kind, batch, 32768);
    }
    add(absl::StrFormat("score %s 128K batch 8", what), ScoreRow, kind, 8, 131072);
  }
  add("landmark_index prefill 64K", LandmarkPrefillRow, 65536);
  add("landmark_index decode batch 32", LandmarkDecodeRow, 32);
  for (const int32_t batch : {1, 8, 22}) {
    add(absl::StrFormat("seer_score P 64 32K batch %d", batch), SeerScoreRow, batch, 32768, 64);
  }
  add("seer_score P 32 128K batch 8", SeerScoreRow, 8, 131072, 32);
  add("seer_score P 32 128K batch 32", SeerScoreRow, 32, 131072, 32);
  add("seer_index prefill P 64 64K", SeerPrefillRow, 65536, 64);
  add("seer_index decode batch 22, all complete a page", SeerDecodeRow, 22, 2048, 64);
  add("seer_index decode batch 22, none does", SeerDecodeRow, 22, 2049, 64);
  add("select_topk 8 x 2048", TopKRow, 1, 2048, 0.0);
  add("select_topk 256 x 8192", TopKRow, 32, 8192, 0.0);
  add("select_topk 256 x 8192, above a threshold", TopKRow, 32, 8192, 1.2);
  add("replay_selection 128 pages batch 32", ReplayRow, 32);
  add("lookup tiered 128 of 384 slots batch 1", LookupRow, 1, 32768, 16, 384);
  add("lookup tiered 128 of 384 slots batch 32", LookupRow, 32, 32768, 16, 384);
  add("lookup resident dense 32K batch 1", LookupRow, 1, 32768, 64, 0);
  add("lookup resident dense 32K batch 22", LookupRow, 22, 32768, 64, 0);
  add("gather nothing batch 32", GatherRow, 16, 0);
  add("gather 256 pages of 8 KiB", GatherRow, 16, 1);
  for (const int32_t page_tokens : {8, 16, 64}) {
    add(absl::StrFormat("gather 3328 pages of %d KiB", page_tokens / 2), GatherRow, page_tokens,
        13);
  }
  return rows;
}

}  // namespace spin::bench
