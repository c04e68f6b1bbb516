#include "tools/bench/step_selection.h"

#include <utility>

#include "tools/trace/replay_algorithm.h"

namespace spin::bench {
namespace {

constexpr char kTracePrefix[] = "trace:";
constexpr uint64_t kSeed = 7;
// Steps before random selections repeat: many more than a cache remembers.
constexpr int32_t kRandomSteps = 64;

absl::StatusOr<trace::SelectionTrace> Random(const ModelPlan& plan, int32_t context) {
  const KvGeometry& g = plan.cache.plan.geometry;
  const LayerDemand demand = plan.algorithm->Demand(g.num_layers - 1);
  const int32_t budget = demand.fixed_pages + demand.selectable_pages;
  if (demand.whole_context || int64_t{budget} * g.page_tokens + kRandomSteps > context) {
    return InvalidArgument("--selection=random: every page of %d tokens is selected", context);
  }
  return trace::RandomSelections(
      {.num_layers = g.num_layers,
       .num_kv_heads = g.num_kv_heads,
       .page_tokens = g.page_tokens,
       .budget_pages = budget,
       .fixed_pages = demand.fixed_pages,
       .prompt_tokens = context / g.page_tokens * g.page_tokens - kRandomSteps,
       .num_steps = kRandomSteps},
      kSeed);
}

}  // namespace

bool IsSelection(const std::string& name) {
  return name == "model" || name == "random" || name.rfind(kTracePrefix, 0) == 0;
}

absl::Status SetSelection(const std::string& selection, int32_t context, int32_t run_steps,
                          ModelPlan& plan) {
  if (selection == "model") return absl::OkStatus();
  const bool is_random = selection == "random";
  SPIN_ASSIGN_OR_RETURN(
      const trace::SelectionTrace trace,
      is_random ? Random(plan, context)
                : trace::SelectionTrace::ReadFile(selection.substr(sizeof(kTracePrefix) - 1)));
  const KvGeometry& g = plan.cache.plan.geometry;
  // Where random selections begin again nothing breaks off: any step is a good one to begin with.
  SPIN_ASSIGN_OR_RETURN(plan.algorithm, trace::ReplayAlgorithm::Create(
                                            std::move(plan.algorithm), *plan.backend.device, trace,
                                            {.num_layers = g.num_layers,
                                             .max_rows = g.max_rows,
                                             .context_tokens = context,
                                             .run_steps = is_random ? 0 : run_steps,
                                             .seed = kSeed}));
  return absl::OkStatus();
}

}  // namespace spin::bench
