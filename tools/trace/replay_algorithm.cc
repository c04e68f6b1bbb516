#include "tools/trace/replay_algorithm.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "common/check.h"
#include "common/random.h"

namespace spin::trace {
namespace {

absl::StatusOr<Buffer> ToDevice(Device& device, const std::vector<int32_t>& values) {
  const auto bytes = static_cast<int64_t>(values.size() * sizeof(int32_t));
  SPIN_ASSIGN_OR_RETURN(Buffer there, device.Allocate(MemoryKind::kDevice, bytes));
  SPIN_ASSIGN_OR_RETURN(const Buffer pinned, device.Allocate(MemoryKind::kPinned, bytes));
  std::memcpy(pinned.data(), values.data(), static_cast<size_t>(bytes));
  const std::unique_ptr<Stream> stream = device.CreateStream("trace");
  device.Copy(there.data(), pinned.data(), bytes, *stream);
  device.Synchronize(*stream);
  return there;
}

// (position + phase) mod num_steps is the step at which a row begins, when position is the context's end.
std::vector<int32_t> Phases(int32_t num_steps, const ReplayOptions& options) {
  const bool fits = options.run_steps < num_steps;
  const auto choices = static_cast<uint32_t>(fits ? num_steps - options.run_steps : num_steps);
  const int32_t context = options.context_tokens % num_steps;
  Random random(options.seed);
  std::vector<int32_t> phases(static_cast<size_t>(options.max_rows));
  for (int32_t& phase : phases) {
    phase = static_cast<int32_t>(random.Below(choices)) + num_steps - context;
  }
  return phases;
}

}  // namespace

absl::StatusOr<std::unique_ptr<SparseAlgorithm>> ReplayAlgorithm::Create(
    std::unique_ptr<SparseAlgorithm> inner, Device& device, const SelectionTrace& trace,
    const ReplayOptions& options) {
  SPIN_CHECK(trace.complete());
  const TraceHeader& header = trace.header();
  const int32_t page_tokens = inner->page_tokens();
  if (inner->partition_tokens() != page_tokens) {
    return InvalidArgument("the algorithm selects parts of pages: a trace does not say which");
  }
  const int32_t scale = options.context_tokens / page_tokens / header.num_pages();
  if (scale < 1) {
    return InvalidArgument("a context of %d tokens has fewer pages than the %d of the trace",
                           options.context_tokens, header.num_pages());
  }
  for (int32_t layer = 0; layer < options.num_layers; ++layer) {
    const LayerDemand demand = inner->Demand(layer);
    const int32_t pages = demand.fixed_pages + demand.selectable_pages;
    if (demand.whole_context || pages == header.budget_pages * scale) continue;
    return InvalidArgument(
        "the trace selects %d of %d pages, hence %d of a context of %d tokens; "
        "sparse.budget_tokens "
        "selects %d: set it to %d",
        header.budget_pages, header.num_pages(), header.budget_pages * scale,
        options.context_tokens, pages, header.budget_pages * scale * page_tokens);
  }
  std::unique_ptr<ReplayAlgorithm> made(new ReplayAlgorithm);
  made->inner_ = std::move(inner);
  made->num_steps_ = header.num_steps;
  made->num_layers_ = header.num_layers;
  made->num_heads_ = header.num_kv_heads;
  made->max_recorded_ = header.budget_pages;
  made->pages_per_recorded_ = scale;
  SPIN_RETURN_IF_ERROR(made->Upload(device, trace, options));
  return made;
}

absl::Status ReplayAlgorithm::Upload(Device& device, const SelectionTrace& trace,
                                     const ReplayOptions& options) {
  const int64_t entries = int64_t{num_steps_} * num_layers_ * num_heads_;
  std::vector<int32_t> ids(static_cast<size_t>(entries * max_recorded_), 0);
  std::vector<int32_t> counts;
  counts.reserve(static_cast<size_t>(entries));
  for (int32_t step = 0; step < num_steps_; ++step) {
    for (int32_t layer = 0; layer < num_layers_; ++layer) {
      for (int32_t head = 0; head < num_heads_; ++head) {
        const std::span<const int32_t> selected = trace.stream(layer, head).At(step);
        std::ranges::copy(selected, ids.begin() + std::ssize(counts) * max_recorded_);
        counts.push_back(static_cast<int32_t>(selected.size()));
      }
    }
  }
  SPIN_ASSIGN_OR_RETURN(recorded_, ToDevice(device, ids));
  SPIN_ASSIGN_OR_RETURN(recorded_count_, ToDevice(device, counts));
  SPIN_ASSIGN_OR_RETURN(phase_, ToDevice(device, Phases(num_steps_, options)));
  return absl::OkStatus();
}

Selection ReplayAlgorithm::Select(const DecodeStage& stage) const {
  Selection selection = inner_->Select(stage);
  if (selection.ids == nullptr) return selection;
  stage.ops.ReplaySelection({.decode = stage.decode,
                             .layer = stage.layer,
                             .geometry = stage.tables.geometry,
                             .recorded = recorded_.as<int32_t>(),
                             .recorded_count = recorded_count_.as<int32_t>(),
                             .num_steps = num_steps_,
                             .num_layers = num_layers_,
                             .num_heads = num_heads_,
                             .max_recorded = max_recorded_,
                             .phase = phase_.as<int32_t>(),
                             .pages_per_recorded = pages_per_recorded_,
                             .ids = stage.scratch.ids,
                             .count = stage.scratch.count,
                             .max_selected = stage.scratch.max_selected},
                            stage.stream);
  selection.ids = stage.scratch.ids;
  selection.count = stage.scratch.count;
  selection.max_selected = stage.scratch.max_selected;
  return selection;
}

SelectionTrace RandomSelections(const TraceHeader& header, uint64_t seed) {
  SPIN_CHECK(header.budget_pages >= 2 && header.budget_pages <= header.Tail(0) + 1);
  SelectionTrace trace(header);
  Random random(seed);
  std::vector<int32_t> ids;
  std::vector<bool> chosen;
  for (int32_t layer = 0; layer < header.num_layers; ++layer) {
    for (int32_t head = 0; head < header.num_kv_heads; ++head) {
      for (int32_t step = 0; step < header.num_steps; ++step) {
        const int32_t tail = header.Tail(step);
        chosen.assign(static_cast<size_t>(tail) + 1, false);
        chosen.front() = chosen.back() = true;
        for (int32_t left = header.budget_pages - 2; left > 0;) {
          const auto page = static_cast<size_t>(random.Below(static_cast<uint32_t>(tail)));
          if (chosen[page]) continue;
          chosen[page] = true;
          --left;
        }
        ids.clear();
        for (int32_t page = 0; page <= tail; ++page) {
          if (chosen[static_cast<size_t>(page)]) ids.push_back(page);
        }
        trace.Append(layer, head, ids);
      }
    }
  }
  return trace;
}

}  // namespace spin::trace
