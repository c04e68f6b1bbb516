#include "tools/eval/variant_switch.h"

#include <algorithm>

#include "common/check.h"
#include "models/sparse/sparse_registry.h"
#include "tools/eval/host_selection.h"

namespace spin::eval {

absl::StatusOr<std::unique_ptr<VariantSwitch>> VariantSwitch::Create(
    std::span<const Variant> variants, const ModelConfig& model, const KvGeometry& geometry,
    int32_t max_batch, Device& device) {
  SPIN_CHECK(!variants.empty() && variants[0].selector == Selector::kAlgorithm);
  const SparseModelShape shape = {.num_layers = model.num_layers,
                                  .num_q_heads = model.num_q_heads,
                                  .num_kv_heads = model.num_kv_heads,
                                  .head_dim = model.head_dim};
  std::vector<std::unique_ptr<SparseAlgorithm>> members;
  for (const Variant& variant : variants) {
    SPIN_CHECK(variant.sparse.algorithm == variants[0].sparse.algorithm);
    SPIN_CHECK_EQ(variant.sparse.exact, variants[0].sparse.exact);
    SPIN_ASSIGN_OR_RETURN(std::unique_ptr<SparseAlgorithm> member,
                          MakeSparseAlgorithm(variant.sparse, shape));
    if (variant.selector != Selector::kAlgorithm) {
      SPIN_ASSIGN_OR_RETURN(member, HostSelection::Create(std::move(member), variant.selector,
                                                          geometry, max_batch, device));
    }
    members.push_back(std::move(member));
  }
  return std::unique_ptr<VariantSwitch>(new VariantSwitch(std::move(members)));
}

LayerDemand VariantSwitch::Demand(int32_t layer) const {
  LayerDemand most = members_[0]->Demand(layer);
  for (const auto& member : members_) {
    const LayerDemand demand = member->Demand(layer);
    SPIN_CHECK_EQ(demand.whole_context, most.whole_context);
    most.fixed_pages = std::max(most.fixed_pages, demand.fixed_pages);
    most.selectable_pages = std::max(most.selectable_pages, demand.selectable_pages);
    // The larger share of the context; 0 is none.
    if (most.context_divisor == 0 ||
        (demand.context_divisor > 0 && demand.context_divisor < most.context_divisor)) {
      most.context_divisor = demand.context_divisor;
    }
  }
  return most;
}

int32_t VariantSwitch::MaxEstimated(int32_t pages) const {
  int32_t most = 0;
  for (const auto& member : members_) most = std::max(most, member->MaxEstimated(pages));
  return most;
}

int64_t VariantSwitch::WeightBytes(DType dtype) const {
  int64_t bytes = 0;
  for (const auto& member : members_) bytes += member->WeightBytes(dtype);
  return bytes;
}

absl::Status VariantSwitch::Load(DType dtype, Device& device) {
  for (const auto& member : members_) SPIN_RETURN_IF_ERROR(member->Load(dtype, device));
  return absl::OkStatus();
}

}  // namespace spin::eval
