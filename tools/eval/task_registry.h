// The tasks by name, and which of them a model can be asked.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "common/status.h"
#include "models/model_folder.h"
#include "tools/eval/task.h"

namespace spin::eval {

// RULER's eleven that need no data set (its qa_1 and qa_2 are questions of SQuAD and HotpotQA), then the testbed's.
std::vector<std::string> TaskNames();

// The named tasks, or with no names all that suit the model: RULER's for one with a tokenizer, the testbed's for one
// without and with its vocabulary, else none. `sentences` fill text (not empty). `folder` outlives the tasks.
absl::StatusOr<std::vector<std::unique_ptr<EvalTask>>> MakeTasks(
    std::span<const std::string> names, const ModelFolder& folder,
    std::vector<std::string> sentences);

}  // namespace spin::eval
