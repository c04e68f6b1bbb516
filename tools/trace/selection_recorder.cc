#include "tools/trace/selection_recorder.h"

#include "common/check.h"

namespace spin::trace {

absl::StatusOr<std::unique_ptr<SelectionRecorder>> SelectionRecorder::Create(Device& device,
                                                                             int32_t num_layers,
                                                                             int32_t num_kv_heads,
                                                                             int32_t max_selected) {
  std::unique_ptr<SelectionRecorder> made(new SelectionRecorder(device));
  made->num_kv_heads_ = num_kv_heads;
  made->max_selected_ = max_selected;
  const int64_t streams = int64_t{num_layers} * num_kv_heads;
  SPIN_ASSIGN_OR_RETURN(made->ids_,
                        device.Allocate(MemoryKind::kPinned, streams * max_selected * 4));
  SPIN_ASSIGN_OR_RETURN(made->counts_, device.Allocate(MemoryKind::kPinned, streams * 4));
  return made;
}

int32_t* SelectionRecorder::Ids(int32_t layer) const {
  return ids_.as<int32_t>() + int64_t{layer} * num_kv_heads_ * max_selected_;
}

int32_t* SelectionRecorder::Counts(int32_t layer) const {
  return counts_.as<int32_t>() + int64_t{layer} * num_kv_heads_;
}

std::span<const int32_t> SelectionRecorder::Recorded(int32_t layer, int32_t head) const {
  const int32_t count = Counts(layer)[head];
  SPIN_CHECK(count >= 1 && count <= max_selected_);
  return {Ids(layer) + int64_t{head} * max_selected_, static_cast<size_t>(count)};
}

void SelectionRecorder::OnAttention(const DecodeStage& stage, const Selection& selection) {
  SPIN_CHECK(selection.ids != nullptr);
  SPIN_CHECK_EQ(selection.max_selected, max_selected_);
  device_.Copy(Ids(stage.layer), selection.ids, int64_t{num_kv_heads_} * max_selected_ * 4,
               stage.stream);
  device_.Copy(Counts(stage.layer), selection.count, int64_t{num_kv_heads_} * 4, stage.stream);
}

}  // namespace spin::trace
