// RetroInfer's Select: clusters by rank, within the pages that they may touch; then pages and their masks.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/cpu/cluster_record.h"
#include "kernels/cpu/families.h"
#include "kernels/cpu/top_scores.h"

namespace spin::cpu {
namespace {

constexpr uint8_t kWholePage = 0xff;

// Pages of a stream's selection as they come, ascending.
class PageList {
 public:
  PageList(int32_t* ids, uint8_t* masks, int32_t room) : ids_(ids), masks_(masks), room_(room) {}

  void Add(int32_t page, uint8_t mask) {
    if (count_ > 0 && ids_[count_ - 1] == page) {
      masks_[count_ - 1] |= mask;
      return;
    }
    SPIN_CHECK(count_ < room_ && (count_ == 0 || page > ids_[count_ - 1]));
    ids_[count_] = page;
    masks_[count_++] = mask;
  }
  // Token places [begin, end).
  void AddTokens(int32_t begin, int32_t end) {
    for (int32_t page = begin / kClusterPageTokens; page * kClusterPageTokens < end; ++page) {
      const int32_t first = page * kClusterPageTokens;
      const int32_t from = std::max(begin - first, 0);
      const int32_t to = std::min(end - first, kClusterPageTokens);
      Add(page,
          static_cast<uint8_t>((kWholePage << from) & (kWholePage >> (kClusterPageTokens - to))));
    }
  }
  int32_t count() const { return count_; }

 private:
  int32_t* ids_;
  uint8_t* masks_;
  const int32_t room_;
  int32_t count_ = 0;
};

int32_t PagesOf(const ClusterRun& run) {
  return (run.begin + run.size - 1) / kClusterPageTokens - run.begin / kClusterPageTokens + 1;
}

// The clusters to be attended to, and those to be estimated, both ascending.
struct Chosen {
  std::vector<int32_t> exact, estimated;  // grow at first use only
};

void Choose(const ClusterSelectParams& p, const StreamView& stream, const float* scores,
            int32_t clusters, Chosen& chosen) {
  chosen.exact.clear();
  chosen.estimated.clear();
  const auto ranked = static_cast<int32_t>(
      std::count_if(scores, scores + clusters, [](float s) { return s != -INFINITY; }));
  const int32_t retrieve = std::min(p.budget.Retrieve(clusters), ranked);
  const int32_t best = std::min(retrieve + p.budget.Estimate(clusters), ranked);
  std::vector<int32_t>& order = chosen.estimated;
  ForEachTop(scores, clusters, best, [&](int32_t id) { order.push_back(id); });
  std::partial_sort(
      order.begin(), order.begin() + retrieve, order.end(),
      [&](int32_t a, int32_t b) { return scores[a] != scores[b] ? scores[a] > scores[b] : a < b; });
  int32_t left = p.budget.MaxPages(clusters);
  int32_t passed_over = 0;
  for (int32_t i = 0; i < retrieve; ++i) {
    const int32_t pages = PagesOf(ClusterRunAt(p.tables, stream, order[i]));
    if (pages <= left) {
      left -= pages;
      chosen.exact.push_back(order[i]);
    } else {
      order[passed_over++] = order[i];
    }
  }
  order.erase(order.begin() + passed_over, order.begin() + retrieve);
  std::sort(chosen.exact.begin(), chosen.exact.end());
  std::sort(order.begin(), order.end());
}

void SelectStream(const ClusterSelectParams& p, int64_t i) {
  const KvGeometry& g = p.tables.geometry;
  const int32_t row = p.decode.rows[i / g.num_kv_heads];
  const int32_t tokens = p.decode.position[row] + 1;
  const int32_t own = p.row_pages == nullptr ? 0 : p.row_pages[row];
  SPIN_CHECK(own == 0 || tokens <= own * kClusterPageTokens);
  // Of a row that is attended to as a whole, as if nothing were in clusters.
  const auto indexed = own > 0 ? 0 : static_cast<int32_t>(IndexedTokens(tokens));
  SPIN_CHECK_LE(tokens, g.max_pages() * kClusterPageTokens);
  const StreamView stream(p.tables, row, p.layer, static_cast<int32_t>(i % g.num_kv_heads));
  thread_local Chosen chosen;
  Choose(p, stream, p.scores + i * g.max_pages(), indexed / kClusterTokens, chosen);
  PageList pages(p.ids + i * p.max_selected, p.page_mask + i * p.max_selected, p.max_selected);
  if (indexed > 0) pages.Add(0, kWholePage);
  for (const int32_t cluster : chosen.exact) {  // ascending: so are their places
    const ClusterRun run = ClusterRunAt(p.tables, stream, cluster);
    pages.AddTokens(run.begin, run.begin + run.size);
  }
  pages.AddTokens(indexed, tokens);
  p.count[i] = pages.count();
  SPIN_CHECK_LE(static_cast<int32_t>(chosen.estimated.size()), p.max_estimate);
  std::copy(chosen.estimated.begin(), chosen.estimated.end(), p.estimate_ids + i * p.max_estimate);
  p.estimate_count[i] = static_cast<int32_t>(chosen.estimated.size());
}

}  // namespace

void ClusterSelect(const ClusterSelectParams& p, ThreadPool& pool) {
  const KvGeometry& g = p.tables.geometry;
  SPIN_CHECK_EQ(g.page_tokens, kClusterPageTokens);
  SPIN_CHECK_EQ(g.partition_tokens, kClusterTokens);
  const int64_t streams = int64_t{NumRows(p.decode)} * g.num_kv_heads;
  pool.ParallelFor(streams, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) SelectStream(p, i);
  });
}

}  // namespace spin::cpu
