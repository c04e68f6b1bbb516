// Tasks in text: a prompt with as much filler as the context has room for, an answer that is begun for the model, and
// references that its words must contain.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/random.h"
#include "common/status.h"
#include "models/model_folder.h"
#include "tools/eval/task.h"

namespace spin::eval {

struct TextSample {
  std::string prompt;
  std::string answer_prefix;  // the answer's begin, which the model goes on from
  std::vector<std::string> references;
};

// A family of prompts that grow with `filler`.
class TextTask {
 public:
  virtual ~TextTask() = default;

  virtual std::string name() const = 0;
  virtual int32_t max_new() const = 0;       // tokens of an answer
  virtual int32_t least_filler() const = 0;  // units: sentences, lines or words
  // `random` begins anew for each filler, so that only the filler differs.
  virtual TextSample Make(int32_t filler, int32_t context, Random random) const = 0;
};

// Text to tokens as a chat client would send it: one user message through the chat template, then the begin of the
// answer. Models without a template get the prompt as it stands.
class TextCodec {
 public:
  // `folder` has a tokenizer and outlives the codec.
  explicit TextCodec(const ModelFolder& folder) : folder_(folder) {}

  absl::StatusOr<std::vector<int32_t>> Encode(const TextSample& sample) const;
  std::string Decode(std::span<const int32_t> tokens) const;

 private:
  const ModelFolder& folder_;
};

// RULER's score (string_match_all): the share of references that occur in the answer, letter case ignored.
double MatchAll(std::string_view answer, std::span<const std::string> references);

// A TextTask with its filler grown until prompt and answer just fit.
class FittedTask final : public EvalTask {
 public:
  FittedTask(std::unique_ptr<TextTask> task, TextCodec codec)
      : task_(std::move(task)), codec_(codec) {}

  std::string name() const override { return task_->name(); }
  absl::StatusOr<TaskSample> Sample(int32_t context, uint64_t seed, int32_t index) const override;

 private:
  std::unique_ptr<TextTask> task_;
  TextCodec codec_;
};

}  // namespace spin::eval
