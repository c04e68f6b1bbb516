// Rows of spin_bench kernels: what RetroInfer adds to a prefill and to a decode step, at Qwen3-8B's sizes.
#include <absl/strings/str_format.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "common/math.h"
#include "common/random.h"
#include "tools/bench/kernel_bench.h"
#include "tools/bench/kernel_shapes.h"

namespace spin::bench {
namespace {

// `copies` layers: what a call reads is cold when calls go through them in turn.
KvGeometry ClusterGeometry(int32_t batch, int32_t tokens, int64_t copies, int32_t head_dim) {
  KvGeometry g = Geometry(kClusterPageTokens, batch, CeilDiv(tokens, kExtentTokens));
  g.num_layers = static_cast<int32_t>(copies);
  g.head_dim = head_dim;
  g.summary_elements = 2 * head_dim + kClusterTailElements;
  g.partition_tokens = kClusterTokens;
  g.unsettled_tokens = kClusterLocalTokens;
  return g;
}

std::vector<int32_t> Shuffled(int64_t n, uint64_t seed) {
  std::vector<int32_t> ids(static_cast<size_t>(n));
  std::iota(ids.begin(), ids.end(), 0);
  Random random(seed);
  for (size_t i = ids.size(); i > 1; --i) {
    std::swap(ids[i - 1], ids[random.Below(static_cast<uint32_t>(i))]);
  }
  return ids;
}

// Resident rows with a directory of summaries, and of slots.
KvTables ClusterTables(BenchMemory& memory, const KvGeometry& g) {
  KvTables t;
  t.geometry = g;
  const int64_t extents = int64_t{g.max_rows} * g.num_layers * g.max_extents;
  t.summary_dir = memory.Ints(Shuffled(extents, 3));
  t.slot_dir = memory.Ints(Shuffled(extents, 4));
  t.placement = memory.Ints(std::vector<int32_t>(static_cast<size_t>(g.max_rows),
                                                 static_cast<int32_t>(Placement::kResident)));
  return t;
}

int64_t SummaryElements(const KvGeometry& g) {
  return int64_t{g.max_rows} * g.num_layers * g.max_extents * g.summary_extent_bytes() /
         SizeOf(g.dtype);
}

int32_t Clusters(int32_t tokens) {
  return static_cast<int32_t>(IndexedTokens(tokens)) / kClusterTokens;
}

DecodeRows RowsAt(BenchMemory& memory, int32_t batch, int32_t tokens) {
  return MakeDecodeRows(memory, std::vector<int32_t>(static_cast<size_t>(batch), tokens - 1));
}

// The products of all ten assignments.
KernelRow PrefillRow(const std::string& name, int32_t tokens, BenchMemory& memory) {
  const KvGeometry g = ClusterGeometry(1, tokens, 1, kHeadDim);
  KvTables tables = ClusterTables(memory, g);
  tables.summaries = memory.Zeros(SummaryElements(g) * SizeOf(g.dtype));
  const Staging staging = {memory.RandomBf16(int64_t{2} * kKvHeads * tokens * kHeadDim),
                           tokens / kClusterPageTokens};
  const PrefillSlice* slices = memory.Ints(std::vector<PrefillSlice>{{.num_tokens = tokens}});
  auto* order = static_cast<int32_t*>(memory.Zeros(int64_t{kKvHeads} * tokens * 4));
  void* scratch =
      memory.Zeros(memory.backend().ops->ClusterPrefillScratchBytes(g, staging.num_pages));
  double operations = 0;
  const auto indexed = static_cast<int32_t>(IndexedTokens(tokens));
  for (int32_t begin = 0; begin < indexed; begin += kClusterSegmentTokens) {
    const double n = std::min(kClusterSegmentTokens, indexed - begin);
    operations += 2.0 * kClusterIterations * kKvHeads * kHeadDim * n * n / kClusterTokens;
  }
  return {name, Ceiling::kProduct, operations, 2, [=, &memory](int64_t) {
            memory.backend().ops->ClusterIndexPrefill({.slices = slices,
                                                       .num_slices = 1,
                                                       .tables = tables,
                                                       .staging = staging,
                                                       .order = order,
                                                       .scratch = scratch},
                                                      memory.stream());
          }};
}

// At 576 tokens every row clusters its first extent: read and written. At others none does.
KernelRow DecodeRow(const std::string& name, int32_t batch, int32_t tokens, BenchMemory& memory) {
  const KvGeometry g = ClusterGeometry(batch, tokens, 1, kHeadDim);
  KvTables tables = ClusterTables(memory, g);
  tables.summaries = memory.Zeros(SummaryElements(g) * SizeOf(g.dtype));
  tables.slots =
      memory.RandomBf16(int64_t{batch} * g.max_extents * g.pages_per_extent() * g.page_elements());
  void* scratch = memory.Zeros(memory.backend().ops->ClusterDecodeScratchBytes(g, batch));
  const DecodeRows decode = RowsAt(memory, batch, tokens);
  const bool indexes = Clusters(tokens) > Clusters(tokens - 1);
  const double bytes = indexes ? 2.0 * batch * static_cast<double>(g.extent_bytes()) : 0;
  return {name, Ceiling::kCopy, bytes, 16, [=, &memory](int64_t) {
            memory.backend().ops->ClusterIndexDecode(
                {.decode = decode, .tables = tables, .scratch = scratch}, memory.stream());
          }};
}

KernelRow ScoreRow(const std::string& name, int32_t batch, int32_t tokens, BenchMemory& memory) {
  const double clusters = static_cast<double>(batch) * kKvHeads * Clusters(tokens);
  const double bytes = clusters * 2.0 * kHeadDim;  // centroids
  const int64_t copies = CopiesFor(static_cast<int64_t>(bytes));
  const KvGeometry g = ClusterGeometry(batch, tokens, copies, kHeadDim);
  KvTables tables = ClusterTables(memory, g);
  tables.summaries = memory.RandomBf16(SummaryElements(g));
  const uint16_t* qkv = memory.RandomBf16(int64_t{batch} * kQkv);
  float* logits = memory.RandomFloats(int64_t{batch} * kQHeads * g.max_pages());
  float* scores = memory.RandomFloats(int64_t{batch} * kKvHeads * g.max_pages());
  const DecodeRows decode = RowsAt(memory, batch, tokens);
  return {name, Ceiling::kCopy, bytes, 8, [=, &memory](int64_t i) {
            memory.backend().ops->ScoreSummaries({.decode = decode,
                                                  .qkv = qkv,
                                                  .layer = static_cast<int32_t>(i % copies),
                                                  .tables = tables,
                                                  .kind = SummaryKind::kClusters,
                                                  .reduction = GroupReduction::kSum,
                                                  .logits = logits,
                                                  .scores = scores},
                                                 memory.stream());
          }};
}

// Records of clusters of 16 tokens whose begins go up and down a little; thin, since a selection reads runs alone.
KernelRow SelectRow(const std::string& name, int32_t batch, int32_t tokens, BenchMemory& memory) {
  constexpr int32_t kThin = 8;
  const KvGeometry g = ClusterGeometry(batch, tokens, 1, kThin);
  KvTables tables = ClusterTables(memory, g);
  std::vector<int32_t> dir = Shuffled(int64_t{batch} * g.max_extents, 3);
  tables.summary_dir = memory.Ints(dir);
  std::vector<uint16_t> records(static_cast<size_t>(SummaryElements(g)));
  const int32_t clusters = Clusters(tokens);
  for (int32_t i = 0; i < batch * kKvHeads * clusters; ++i) {
    const int32_t c = i % clusters, head = i / clusters % kKvHeads, row = i / clusters / kKvHeads;
    const int32_t extent = dir[static_cast<size_t>(g.DirIndex(row, 0, c / 32))];
    const ClusterRun run = {std::max(c * kClusterTokens - c * 7 % 5, 8), 16};
    const int64_t at = g.SummaryIndex(extent, head, c % 32) * g.summary_elements + 2 * kThin;
    std::memcpy(records.data() + at, &run, sizeof(run));
  }
  tables.summaries = memory.Ints(records);
  const ClusterBudget budget;
  ClusterSelectParams p;
  p.decode = RowsAt(memory, batch, tokens);
  p.tables = tables;
  p.budget = budget;
  const int64_t streams = int64_t{batch} * kKvHeads;
  p.scores = memory.RandomFloats(streams * g.max_pages());
  p.max_selected = 1 + budget.MaxPages(clusters) + 73;
  p.max_estimate = budget.Retrieve(clusters) + budget.Estimate(clusters);
  p.ids = static_cast<int32_t*>(memory.Zeros(streams * p.max_selected * 4));
  p.page_mask = static_cast<uint8_t*>(memory.Zeros(streams * p.max_selected));
  p.count = static_cast<int32_t*>(memory.Zeros(streams * 4));
  p.estimate_ids = static_cast<int32_t*>(memory.Zeros(streams * p.max_estimate * 4));
  p.estimate_count = static_cast<int32_t*>(memory.Zeros(streams * 4));
  const double bytes = 4.0 * static_cast<double>(streams) * (clusters + p.max_estimate);
  return {name, Ceiling::kCopy, bytes, 16,
          [=, &memory](int64_t) { memory.backend().ops->ClusterSelect(p, memory.stream()); }};
}

KernelRow EstimateRow(const std::string& name, int32_t batch, int32_t tokens, BenchMemory& memory) {
  const int32_t clusters = Clusters(tokens), estimated = ClusterBudget().Estimate(clusters);
  const int64_t streams = int64_t{batch} * kKvHeads;
  const int64_t record_bytes = (2 * kHeadDim + kClusterTailElements) * 2;
  const int64_t bytes = streams * estimated * record_bytes;
  // A call reads a quarter of its layer.
  const int64_t copies = CopiesFor(4 * bytes);
  const KvGeometry g = ClusterGeometry(batch, tokens, copies, kHeadDim);
  KvTables tables = ClusterTables(memory, g);
  tables.summaries = memory.RandomBf16(SummaryElements(g));
  std::vector<int32_t> ids;
  for (int64_t s = 0; s < streams; ++s) {
    std::vector<int32_t> some = Shuffled(clusters, static_cast<uint64_t>(s) + 1);
    std::sort(some.begin(), some.begin() + estimated);
    ids.insert(ids.end(), some.begin(), some.begin() + estimated);
  }
  ClusterEstimateParams p;
  p.decode = RowsAt(memory, batch, tokens);
  p.qkv = memory.RandomBf16(int64_t{batch} * kQkv);
  p.tables = tables;
  p.estimate_ids = memory.Ints(ids);
  p.estimate_count = memory.Ints(std::vector<int32_t>(static_cast<size_t>(streams), estimated));
  p.max_estimate = estimated;
  p.partial = memory.RandomFloats(int64_t{batch} * kQHeads * (kHeadDim + 2));
  return {name, Ceiling::kCopy, static_cast<double>(bytes), 16, [=, &memory](int64_t i) {
            ClusterEstimateParams q = p;
            q.layer = static_cast<int32_t>(i % copies);
            memory.backend().ops->ClusterEstimate(q, memory.stream());
          }};
}

// What a selection leaves to attend to: pages of which a mask takes some tokens away, and an estimate to be merged.
KernelRow AttentionRow(const std::string& name, int32_t batch, int32_t tokens, bool masked,
                       BenchMemory& memory) {
  const KvGeometry g = ClusterGeometry(batch, tokens, 1, kHeadDim);
  const int32_t pages = 3 * ClusterBudget().Retrieve(Clusters(tokens)) + 40;
  const int64_t call_pages = int64_t{batch} * kKvHeads * pages;
  const int64_t copies = CopiesFor(call_pages * g.page_bytes());
  PagedAttentionParams p;
  p.decode = RowsAt(memory, batch, tokens);
  p.qkv = memory.RandomBf16(int64_t{batch} * kQkv);
  p.tables.geometry = g;
  p.tables.slots = memory.RandomBf16(copies * call_pages * g.page_elements());
  std::vector<int32_t> lists;
  for (int64_t copy = 0; copy < copies; ++copy) {
    for (const int32_t page : Shuffled(call_pages, static_cast<uint64_t>(copy) + 1)) {
      lists.push_back(static_cast<int32_t>(copy * call_pages) + page);
    }
  }
  const int32_t* page_list = memory.Ints(lists);
  p.list_len = memory.Ints(std::vector<int32_t>(static_cast<size_t>(batch) * kKvHeads, pages));
  p.max_list = pages;
  if (masked) {
    Random random(5);
    std::vector<uint8_t> masks(static_cast<size_t>(call_pages));
    for (uint8_t& mask : masks) mask = static_cast<uint8_t>(1 + random.Below(255));
    p.page_mask = memory.Ints(masks);
    p.estimate = memory.RandomFloats(int64_t{batch} * kQHeads * (kHeadDim + 2));
  }
  p.out = memory.RandomBf16(int64_t{batch} * kQHeads * kHeadDim);
  const double bytes = static_cast<double>(call_pages) * static_cast<double>(g.page_bytes());
  return {name, Ceiling::kCopy, bytes, 16, [=, &memory](int64_t i) {
            PagedAttentionParams q = p;
            q.page_list = page_list + i % copies * call_pages;
            memory.backend().ops->PagedAttention(q, memory.stream());
          }};
}

}  // namespace

std::vector<KernelRowMaker> ClusterKernelRows() {
  std::vector<KernelRowMaker> rows;
  const auto add = [&](const std::string& name, auto row, auto... args) {
    rows.push_back({name, [=](BenchMemory& memory) { return row(name, args..., memory); }});
  };
  for (const int32_t thousands : {2, 8, 32, 64, 128}) {
    add(absl::StrFormat("cluster_index prefill %dK", thousands), PrefillRow, thousands * 1024);
  }
  add("cluster_index decode batch 1, indexes", DecodeRow, 1, 576);
  add("cluster_index decode batch 22, all index", DecodeRow, 22, 576);
  add("cluster_index decode batch 22, none does", DecodeRow, 22, 577);
  for (const int32_t batch : {1, 8, 22}) {
    add(absl::StrFormat("score clusters 32K batch %d", batch), ScoreRow, batch, 32768);
  }
  add("score clusters 128K batch 8", ScoreRow, 8, 131072);
  add("score clusters 128K batch 32", ScoreRow, 32, 131072);
  for (const int32_t batch : {1, 8, 22}) {
    add(absl::StrFormat("cluster_select 32K batch %d", batch), SelectRow, batch, 32768);
  }
  add("cluster_select 128K batch 8", SelectRow, 8, 131072);
  for (const int32_t batch : {1, 8, 22}) {
    add(absl::StrFormat("cluster_estimate 32K batch %d", batch), EstimateRow, batch, 32768);
  }
  add("cluster_estimate 128K batch 8", EstimateRow, 8, 131072);
  for (const int32_t batch : {1, 8, 22}) {
    for (const bool masked : {false, true}) {
      add(absl::StrFormat("paged_attention P 8 32K batch %d%s", batch,
                          masked ? ", masks, estimate" : ""),
          AttentionRow, batch, 32768, masked);
    }
  }
  return rows;
}

}  // namespace spin::bench
