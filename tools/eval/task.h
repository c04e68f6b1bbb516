// EvalTask: questions with known answers over a long context. RULER's tasks are text (ruler_*.h); another language of
// tasks is another file that implements this interface, and a line in task_registry.cc.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "common/hash.h"
#include "common/random.h"
#include "common/status.h"

namespace spin::eval {

struct TaskSample {
  std::vector<int32_t> prompt;
  int32_t max_new = 0;  // tokens that the model may answer with
  // 0..1 of what the model said: greedy, at most max_new tokens, without the end-of-sequence token.
  std::function<double(std::span<const int32_t> said)> score;
};

class EvalTask {
 public:
  virtual ~EvalTask() = default;

  virtual std::string name() const = 0;

  // Sample `index` for a context of `context` tokens: a function of its arguments, on every machine. InvalidArgument:
  // the context is too short for the task.
  virtual absl::StatusOr<TaskSample> Sample(int32_t context, uint64_t seed,
                                            int32_t index) const = 0;
};

// The draws of one sample: apart for each task, length, seed and index.
inline Random SampleRandom(const std::string& task, int32_t context, uint64_t seed, int32_t index) {
  const auto block = Philox(Fnv1a(task), seed,
                            (static_cast<uint64_t>(context) << 32) | static_cast<uint32_t>(index));
  return Random((uint64_t{block[1]} << 32) | block[0]);
}

}  // namespace spin::eval
