// Rows of RetroInfer's kernels, on prompts that its own Index has clustered.
#include <algorithm>
#include <string>
#include <vector>

#include "common/math.h"
#include "tools/bench/kernel_shapes.h"

namespace spin::bench {
namespace {

constexpr int32_t kSegment = kClusterSegmentTokens;

KvGeometry ClusterGeometry(int32_t batch, int32_t max_extents) {
  KvGeometry g = Geometry(kClusterPageTokens, batch, max_extents);
  g.partition_tokens = kClusterTokens;
  g.unsettled_tokens = kClusterLocalTokens;
  g.summary_elements = 2 * kHeadDim + kClusterTailElements;
  return g;
}

// Resident rows of `extents` extents each, in order.
KvTables ClusterTables(BenchMemory& memory, int32_t batch, int32_t extents) {
  KvTables t;
  t.geometry = ClusterGeometry(batch, extents);
  const KvGeometry& g = t.geometry;
  std::vector<int32_t> ids(static_cast<size_t>(batch * extents));
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i);
  t.slot_dir = memory.Ints(ids);
  t.summary_dir = memory.Ints(ids);
  t.placement = memory.Ints(
      std::vector<int32_t>(static_cast<size_t>(batch), static_cast<int32_t>(Placement::kResident)));
  t.num_slots = memory.Ints(std::vector<int32_t>(static_cast<size_t>(batch), 0));
  t.slots = memory.RandomBf16(static_cast<int64_t>(ids.size()) * g.pages_per_extent() *
                              g.page_elements());
  t.summaries = memory.Zeros(static_cast<int64_t>(ids.size()) * g.summary_extent_bytes());
  return t;
}

double KMeansOperations(double tokens, double segment) {
  return 2.0 * kClusterIterations * kKvHeads * tokens * (segment / kClusterTokens) * kHeadDim;
}

// What clusters a prompt of `tokens`, of row 0.
ClusterIndexPrefillParams PrefillParams(BenchMemory& memory, const KvTables& tables,
                                        int32_t tokens) {
  const KvGeometry& g = tables.geometry;
  const int32_t pages = CeilDiv(tokens, g.page_tokens);
  ClusterIndexPrefillParams p;
  p.num_slices = 1;
  p.tables = tables;
  p.staging = {memory.RandomBf16(int64_t{kKvHeads} * pages * g.page_elements()), pages};
  p.order = static_cast<int32_t*>(memory.Zeros(int64_t{kKvHeads} * pages * g.page_tokens * 4));
  p.scratch = memory.Zeros(memory.backend().ops->ClusterPrefillScratchBytes(g, pages));
  return p;
}

KernelRow IndexPrefillRow(const std::string& name, int32_t tokens, BenchMemory& memory) {
  const KvTables tables = ClusterTables(memory, 1, tokens / kExtentTokens + 1);
  ClusterIndexPrefillParams p = PrefillParams(memory, tables, tokens + kClusterLocalTokens);
  p.slices = memory.Ints(std::vector<PrefillSlice>{{.num_tokens = tokens + kClusterLocalTokens}});
  return {name, Ceiling::kProduct, KMeansOperations(tokens, kSegment), 1,
          [=, &memory](int64_t) { memory.backend().ops->ClusterIndexPrefill(p, memory.stream()); }};
}

// One step in 512 a row's token lets an extent settle; here all rows' do.
KernelRow IndexDecodeRow(const std::string& name, int32_t batch, BenchMemory& memory) {
  ClusterIndexDecodeParams p;
  p.tables = ClusterTables(memory, batch, 3);
  p.decode =
      MakeDecodeRows(memory, std::vector<int32_t>(static_cast<size_t>(batch),
                                                  2 * kExtentTokens + kClusterLocalTokens - 1));
  p.scratch =
      memory.Zeros(memory.backend().ops->ClusterDecodeScratchBytes(p.tables.geometry, batch));
  return {name, Ceiling::kProduct, batch * KMeansOperations(kExtentTokens, kExtentTokens), 4,
          [=, &memory](int64_t) { memory.backend().ops->ClusterIndexDecode(p, memory.stream()); }};
}

// The buffers of a step over `batch` clustered rows of `tokens` clustered tokens each, filled up to the selection.
struct ClusterStep {
  ClusterStep(int32_t batch, int32_t tokens, BenchMemory& memory) {
    Ops& ops = *memory.backend().ops;
    const int32_t length = tokens + kClusterLocalTokens;
    const KvTables tables = ClusterTables(memory, batch, CeilDiv(length, kExtentTokens));
    const KvGeometry& g = tables.geometry;
    ClusterIndexPrefillParams prefill = PrefillParams(memory, tables, length);
    prefill.slices = memory.Ints(std::vector<PrefillSlice>{{.num_tokens = length}});
    ops.ClusterIndexPrefill(prefill, memory.stream());
    for (int32_t row = 1; row < batch; ++row) {  // copies of the first one
      const int64_t bytes = g.max_extents * g.summary_extent_bytes();
      memory.backend().device->Copy(static_cast<char*>(tables.summaries) + row * bytes,
                                    tables.summaries, bytes, memory.stream());
    }
    const int64_t streams = int64_t{batch} * kKvHeads;
    const auto zeros = [&]<typename T>(T*& to, int64_t count) {
      to = static_cast<T*>(memory.Zeros(count * static_cast<int64_t>(sizeof(T))));
    };
    const DecodeRows decode =
        MakeDecodeRows(memory, std::vector<int32_t>(static_cast<size_t>(batch), length - 1));
    const uint16_t* qkv = memory.RandomBf16(int64_t{batch} * kQkv);
    score = {.decode = decode,
             .qkv = qkv,
             .tables = tables,
             .kind = SummaryKind::kClusters,
             .reduction = GroupReduction::kSum};
    zeros(score.logits, int64_t{batch} * kQHeads * g.max_pages());
    zeros(score.scores, streams * g.max_pages());
    select = {.decode = decode, .tables = tables, .scores = score.scores};
    const int32_t clusters = tokens / kClusterTokens;
    select.max_selected = std::min(select.budget.MaxPages(clusters) + 80, g.max_pages());
    select.max_estimate = select.budget.Retrieve(clusters) + select.budget.Estimate(clusters);
    zeros(select.ids, streams * select.max_selected);
    zeros(select.count, streams);
    zeros(select.page_mask, streams * select.max_selected);
    zeros(select.estimate_ids, streams * select.max_estimate);
    zeros(select.estimate_count, streams);
    estimate = {.decode = decode,
                .qkv = qkv,
                .tables = tables,
                .estimate_ids = select.estimate_ids,
                .estimate_count = select.estimate_count,
                .max_estimate = select.max_estimate};
    zeros(estimate.partial, int64_t{batch} * kQHeads * (kHeadDim + 2));
    ops.ScoreSummaries(score, memory.stream());
    ops.ClusterSelect(select, memory.stream());
    const double records = static_cast<double>(streams) * clusters;
    centroid_bytes = 2.0 * records * kHeadDim;
    score_bytes = 4.0 * records;
    estimate_bytes =
        4.0 * kHeadDim * static_cast<double>(streams) * select.budget.Estimate(clusters);
  }
  ScoreSummariesParams score;
  ClusterSelectParams select;
  ClusterEstimateParams estimate;
  double centroid_bytes = 0, score_bytes = 0, estimate_bytes = 0;
};

KernelRow ScoreRow(const std::string& name, int32_t batch, int32_t tokens, BenchMemory& memory) {
  const ClusterStep step(batch, tokens, memory);
  return {name, Ceiling::kCopy, step.centroid_bytes, 8, [=, &memory](int64_t) {
            memory.backend().ops->ScoreSummaries(step.score, memory.stream());
          }};
}

KernelRow SelectRow(const std::string& name, int32_t batch, int32_t tokens, BenchMemory& memory) {
  const ClusterStep step(batch, tokens, memory);
  return {name, Ceiling::kCopy, step.score_bytes, 16, [=, &memory](int64_t) {
            memory.backend().ops->ClusterSelect(step.select, memory.stream());
          }};
}

KernelRow EstimateRow(const std::string& name, int32_t batch, int32_t tokens, BenchMemory& memory) {
  const ClusterStep step(batch, tokens, memory);
  return {name, Ceiling::kCopy, step.estimate_bytes, 16, [=, &memory](int64_t) {
            memory.backend().ops->ClusterEstimate(step.estimate, memory.stream());
          }};
}

}  // namespace

std::vector<KernelRowMaker> ClusterKernelRows() {
  std::vector<KernelRowMaker> rows;
  const auto add = [&](const std::string& name, auto make) {
    rows.push_back({name, [name, make](BenchMemory& memory) { return make(name, memory); }});
  };
  for (const int32_t tokens : {kSegment, 4 * kSegment}) {
    add("cluster index prefill, " + std::to_string(tokens) + " tokens",
        [=](const std::string& name, BenchMemory& m) { return IndexPrefillRow(name, tokens, m); });
  }
  for (const int32_t batch : {1, 8}) {
    const std::string of = ", " + std::to_string(batch) + " x 32768";
    add("cluster index decode, " + std::to_string(batch) + " extents",
        [=](const std::string& name, BenchMemory& m) { return IndexDecodeRow(name, batch, m); });
    add("cluster scores" + of,
        [=](const std::string& name, BenchMemory& m) { return ScoreRow(name, batch, 32768, m); });
    add("cluster select" + of,
        [=](const std::string& name, BenchMemory& m) { return SelectRow(name, batch, 32768, m); });
    add("cluster estimate" + of, [=](const std::string& name, BenchMemory& m) {
      return EstimateRow(name, batch, 32768, m);
    });
  }
  return rows;
}

}  // namespace spin::bench
