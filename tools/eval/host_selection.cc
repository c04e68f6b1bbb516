#include "tools/eval/host_selection.h"

#include <algorithm>

#include "common/check.h"
#include "tools/eval/attention_mass.h"

namespace spin::eval {

namespace {

// Pages that Select returns of a stream that has `pages` or more.
int32_t BudgetOf(const LayerDemand& demand, int32_t pages) {
  return demand.fixed_pages + demand.Selectable(pages);
}

}  // namespace

absl::StatusOr<std::unique_ptr<HostSelection>> HostSelection::Create(
    std::unique_ptr<SparseAlgorithm> inner, Selector selector, const KvGeometry& geometry,
    int32_t max_batch, Device& device) {
  SPIN_CHECK(selector != Selector::kAlgorithm);
  const int32_t most = MostSelected(*inner, geometry);
  const int64_t streams = int64_t{max_batch} * geometry.num_kv_heads;
  SPIN_ASSIGN_OR_RETURN(std::unique_ptr<PageReader> reader, PageReader::Create(device, geometry));
  SPIN_ASSIGN_OR_RETURN(Buffer ids, device.Allocate(MemoryKind::kPinned, streams * most * 4));
  SPIN_ASSIGN_OR_RETURN(Buffer count, device.Allocate(MemoryKind::kPinned, streams * 4));
  return std::unique_ptr<HostSelection>(new HostSelection(std::move(inner), selector, device,
                                                          std::move(reader), most, std::move(ids),
                                                          std::move(count)));
}

std::vector<int32_t> HostSelection::Choose(const std::vector<float>& mass,
                                           const KvGeometry& geometry, int32_t head, int32_t pages,
                                           int32_t budget) const {
  if (selector_ == Selector::kWindow) return WindowPages(pages, budget);
  return BestPages(GroupMass(mass, geometry, head), budget);
}

Selection HostSelection::Select(const DecodeStage& stage) const {
  const LayerDemand demand = inner_->Demand(stage.layer);
  if (demand.whole_context) return {};
  const KvGeometry& geometry = stage.tables.geometry;
  const int32_t rows = reader_->NumRows(stage);  // the previous layer's ids have been copied by now
  SPIN_CHECK_LE(int64_t{rows} * geometry.num_kv_heads * width_ * 4, ids_.bytes());
  SPIN_CHECK_LE(width_, stage.scratch.max_selected);
  LayerView view;
  for (int32_t place = 0; place < rows; ++place) {
    std::vector<float> mass;
    if (selector_ == Selector::kOracle) {
      reader_->Read(stage, place, view);
      mass = PageMass(view, geometry);
    }
    const int32_t pages = reader_->Position(stage, place) / geometry.page_tokens + 1;
    for (int32_t head = 0; head < geometry.num_kv_heads; ++head) {
      const std::vector<int32_t> chosen =
          Choose(mass, geometry, head, pages, BudgetOf(demand, pages));
      const int64_t stream = int64_t{place} * geometry.num_kv_heads + head;
      std::copy(chosen.begin(), chosen.end(), ids_.as<int32_t>() + stream * width_);
      count_.as<int32_t>()[stream] = static_cast<int32_t>(chosen.size());
    }
  }
  const int64_t streams = int64_t{rows} * geometry.num_kv_heads;
  device_.Copy(stage.scratch.ids, ids_.data(), streams * width_ * 4, stage.stream);
  device_.Copy(stage.scratch.count, count_.data(), streams * 4, stage.stream);
  return {.ids = stage.scratch.ids, .count = stage.scratch.count, .max_selected = width_};
}

}  // namespace spin::eval
