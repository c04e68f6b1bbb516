// StepObserver: what a measuring tool sees of a decode step while it is enqueued. The server has none.
//
// The calls come on the engine thread, in the order of the step, from ModelExecutor::EnqueueDecode. What the pointers
// lead to is written by work that is already on the stream: an observer copies it there, and may wait for the stream.
// It changes nothing. With an observer a step is enqueued kernel by kernel, never captured or replayed.
#pragma once

#include <cstdint>

#include "kernels/device.h"
#include "kernels/params.h"
#include "models/pipeline/stage.h"

namespace spin {

class StepObserver {
 public:
  virtual ~StepObserver() = default;

  // After the attention of one layer: the stage's q, k and v, what Select chose, and the pages with the new token
  // in place.
  virtual void OnAttention(const DecodeStage& stage, const Selection& selection) = 0;

  // After the last layer: `logits` [max_batch][vocab], before sampling changes anything.
  virtual void OnLogits(const DecodeRows& decode, const float* logits, int32_t vocab,
                        Stream& stream) = 0;
};

}  // namespace spin
