#include "tools/eval/task_registry.h"

#include <absl/strings/str_join.h>

#include <algorithm>
#include <utility>

#include "tools/eval/ruler_counting.h"
#include "tools/eval/ruler_niah.h"
#include "tools/eval/ruler_tracking.h"
#include "tools/eval/testbed_tasks.h"
#include "tools/eval/text_task.h"

namespace spin::eval {
namespace {

std::vector<std::unique_ptr<TextTask>> MakeRulerTasks(std::vector<std::string> sentences) {
  const auto text = std::make_shared<const std::vector<std::string>>(std::move(sentences));
  std::vector<std::unique_ptr<TextTask>> tasks;
  for (const NiahConfig& config : NiahConfigs()) tasks.push_back(MakeNiah(config, text));
  tasks.push_back(MakeVariableTracking());
  tasks.push_back(MakeCommonWords());
  tasks.push_back(MakeFrequentWords());
  return tasks;
}

}  // namespace

std::vector<std::string> TaskNames() {
  std::vector<std::string> names;
  for (const auto& task : MakeRulerTasks({""})) names.push_back(task->name());
  for (const auto& task : MakeTestbedTasks()) names.push_back(task->name());
  return names;
}

absl::StatusOr<std::vector<std::unique_ptr<EvalTask>>> MakeTasks(
    std::span<const std::string> names, const ModelFolder& folder,
    std::vector<std::string> sentences) {
  std::vector<std::unique_ptr<EvalTask>> all;
  if (folder.tokenizer != nullptr) {
    for (auto& task : MakeRulerTasks(std::move(sentences))) {
      all.push_back(std::make_unique<FittedTask>(std::move(task), TextCodec(folder)));
    }
  } else if (SpeaksTestbed(folder)) {
    all = MakeTestbedTasks();
  }
  if (names.empty()) return all;
  std::vector<std::unique_ptr<EvalTask>> chosen;
  for (const std::string& name : names) {
    const auto found = std::find_if(all.begin(), all.end(), [&](const auto& task) {
      return task != nullptr && task->name() == name;
    });
    if (found == all.end()) {
      return InvalidArgument(
          "task '%s' is unknown, named twice, or not one for this model; known: %s (RULER's need a "
          "tokenizer.json, the "
          "testbed's a vocabulary of %d without one)",
          name, absl::StrJoin(TaskNames(), ", "), kTestbedVocab);
    }
    chosen.push_back(std::move(*found));
  }
  return chosen;
}

}  // namespace spin::eval
