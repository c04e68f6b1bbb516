// SelectionRecorder: an observer of decode steps that copies what Select chose to pinned memory.
//
// The copies are device work on the step's stream: what they bring is there once the step has passed. Only the first
// place of a batch is recorded.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "common/status.h"
#include "kernels/device.h"
#include "models/pipeline/step_observer.h"

namespace spin::trace {

class SelectionRecorder final : public StepObserver {
 public:
  // REQUIRES: no layer of the observed algorithm takes the whole context, and one Select returns at most `max_selected`
  // pages. The device outlives the recorder.
  static absl::StatusOr<std::unique_ptr<SelectionRecorder>> Create(Device& device,
                                                                   int32_t num_layers,
                                                                   int32_t num_kv_heads,
                                                                   int32_t max_selected);

  // What the last step that has passed selected in one stream.
  std::span<const int32_t> Recorded(int32_t layer, int32_t head) const;

  void OnAttention(const DecodeStage& stage, const Selection& selection) override;
  void OnLogits(const DecodeRows&, const float*, int32_t, Stream&) override {}

 private:
  explicit SelectionRecorder(Device& device) : device_(device) {}
  int32_t* Ids(int32_t layer) const;
  int32_t* Counts(int32_t layer) const;

  Device& device_;
  int32_t num_kv_heads_ = 0;
  int32_t max_selected_ = 0;
  Buffer ids_;     // pinned, [num_layers][num_kv_heads][max_selected]
  Buffer counts_;  // pinned, [num_layers][num_kv_heads]
};

}  // namespace spin::trace
