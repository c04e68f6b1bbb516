#include "tools/eval/evaluation.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "common/check.h"
#include "common/mapped_file.h"
#include "tools/eval/documents.h"
#include "tools/eval/forced_decode.h"
#include "tools/eval/prose.h"
#include "tools/eval/session.h"
#include "tools/eval/task_registry.h"

namespace spin::eval {
namespace {

constexpr int32_t kProseSentences =
    20'000;  // of haystacks: about 400 thousand tokens before they repeat

struct NamedSample {
  std::string task;
  TaskSample sample;
};

// What all variants are measured on, and what dense made of it.
struct Inputs {
  std::vector<Tokens> documents;
  std::vector<NamedSample> samples;
  std::vector<GreedyPrompt> free_runs;
  std::vector<GreedyPrompt> questions;  // of the samples
  std::vector<int32_t> stop_tokens;
  int32_t max_tokens = 0;  // of the longest sequence

  std::vector<std::vector<float>> dense_logits;  // [documents * forced][vocab]
  std::vector<std::vector<int32_t>> dense_runs;  // by free run
};

absl::Status AddTaskSamples(const Options& options, const ModelFolder& folder,
                            const std::string& text, Inputs& inputs) {
  std::vector<std::string> sentences =
      text.empty() ? MakeProse(options.seed, kProseSentences) : SplitSentences(text);
  if (sentences.empty()) return InvalidArgument("--text %s: no sentence in it", options.text);
  SPIN_ASSIGN_OR_RETURN(const auto tasks,
                        MakeTasks(options.task_names, folder, std::move(sentences)));
  for (const auto& task : tasks) {
    for (int32_t i = 0; i < options.samples; ++i) {
      SPIN_ASSIGN_OR_RETURN(TaskSample sample, task->Sample(options.context, options.seed, i));
      inputs.questions.push_back({sample.prompt, sample.max_new});
      inputs.samples.push_back({task->name(), std::move(sample)});
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Inputs> MakeInputs(const Options& options, const ModelFolder& folder) {
  Inputs inputs;
  inputs.stop_tokens = folder.eos_token_ids();
  std::string text;
  if (!options.text.empty()) {
    SPIN_ASSIGN_OR_RETURN(text, ReadTextFile(options.text));
  }
  if (options.kl || options.recall || options.greedy) {
    SPIN_ASSIGN_OR_RETURN(inputs.documents, MakeDocuments(folder, {.text = text,
                                                                   .count = options.documents,
                                                                   .tokens = options.context,
                                                                   .seed = options.seed}));
    inputs.max_tokens = options.context;
  }
  if (options.greedy) {
    for (const Tokens& document : inputs.documents) {
      inputs.free_runs.push_back({Tokens(document.begin(), document.end() - options.greedy_tokens),
                                  options.greedy_tokens});
    }
  }
  if (options.tasks) SPIN_RETURN_IF_ERROR(AddTaskSamples(options, folder, text, inputs));
  for (const GreedyPrompt& prompt : inputs.questions) {
    inputs.max_tokens =
        std::max(inputs.max_tokens, static_cast<int32_t>(prompt.tokens.size()) + prompt.max_new);
  }
  return inputs;
}

// kl and recall, in one pass over the documents. Dense's logits are kept.
absl::Status MeasureForced(const Options& options, Session& session, Inputs& inputs,
                           VariantResult& result) {
  ForcedOptions forced = {.num_forced = options.forced};
  std::unique_ptr<AttentionMeter> meter;
  if (options.recall) {
    SPIN_ASSIGN_OR_RETURN(
        meter, AttentionMeter::Create(session.device(), session.geometry(), session.batch()));
    forced.meter = meter.get();
    forced.num_measured = options.recall_steps;
  }
  const auto steps = static_cast<size_t>(options.forced);
  const bool is_reference = inputs.dense_logits.empty();
  if (is_reference && options.kl) inputs.dense_logits.resize(inputs.documents.size() * steps);
  LogitSummary summary;
  const auto take = [&](size_t document, int32_t step, std::span<const float> logits) {
    if (!options.kl) return;
    std::vector<float>& dense = inputs.dense_logits[document * steps + static_cast<size_t>(step)];
    if (is_reference) dense.assign(logits.begin(), logits.end());
    const Tokens& tokens = inputs.documents[document];
    const size_t next = tokens.size() - steps + static_cast<size_t>(step) + 1;
    summary.Add(dense, logits, next < tokens.size() ? tokens[next] : -1);
  };
  SPIN_RETURN_IF_ERROR(ForcedDecode(session, inputs.documents, forced, take));
  if (options.kl) result.logits = std::move(summary);
  if (meter != nullptr) result.recall = meter->layers();
  return absl::OkStatus();
}

absl::Status MeasureFreeRuns(Session& session, Inputs& inputs, VariantResult& result) {
  SPIN_ASSIGN_OR_RETURN(auto runs, GreedyDecode(session, inputs.free_runs, inputs.stop_tokens));
  if (inputs.dense_runs.empty()) inputs.dense_runs = runs;
  result.greedy = CompareRuns(inputs.dense_runs, runs);
  return absl::OkStatus();
}

absl::Status MeasureTasks(const Options& options, Session& session, const Inputs& inputs,
                          VariantResult& result) {
  SPIN_ASSIGN_OR_RETURN(const auto said,
                        GreedyDecode(session, inputs.questions, inputs.stop_tokens));
  for (size_t i = 0; i < inputs.samples.size(); ++i) {
    const auto& [task, sample] = inputs.samples[i];
    if (result.tasks.empty() || result.tasks.back().task != task) result.tasks.push_back({task, 0});
    result.tasks.back().score += sample.score(said[i]) / options.samples;
  }
  return absl::OkStatus();
}

absl::StatusOr<VariantResult> MeasureVariant(const Options& options, const ServerConfig& config,
                                             const Variant& variant, Inputs& inputs,
                                             Evaluation& evaluation) {
  const auto begin = std::chrono::steady_clock::now();
  VariantResult result;
  result.variant = variant;
  SPIN_ASSIGN_OR_RETURN(const std::unique_ptr<Session> session,
                        Session::Create(config, variant, options.batch, inputs.max_tokens));
  evaluation.device = session->device().info().name;
  if (options.kl || options.recall) {
    SPIN_RETURN_IF_ERROR(MeasureForced(options, *session, inputs, result));
  }
  if (options.greedy) SPIN_RETURN_IF_ERROR(MeasureFreeRuns(*session, inputs, result));
  if (!inputs.samples.empty()) {
    SPIN_RETURN_IF_ERROR(MeasureTasks(options, *session, inputs, result));
  }
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return result;
}

}  // namespace

double VariantResult::mean_task_score() const {
  double sum = 0;
  for (const TaskScore& task : tasks) sum += task.score;
  return tasks.empty() ? 0 : sum / static_cast<double>(tasks.size());
}

absl::StatusOr<Evaluation> Evaluate(const Options& options, const ServerConfig& config,
                                    const std::function<void(const Variant&)>& progress) {
  if (config.model_path.empty()) return InvalidArgument("no model: give --model FOLDER");
  SPIN_ASSIGN_OR_RETURN(const ModelFolder folder, ReadModelFolder(config.model_path));
  SPIN_ASSIGN_OR_RETURN(const std::vector<Variant> variants,
                        ListVariants(options, config, folder.config));
  SPIN_ASSIGN_OR_RETURN(Inputs inputs, MakeInputs(options, folder));
  if (inputs.max_tokens == 0) return InvalidArgument("--measure tasks: no task suits this model");
  Evaluation evaluation;
  evaluation.model = config.model_path;
  evaluation.dtype = config.dtype;
  for (const Variant& variant : variants) {
    progress(variant);
    SPIN_ASSIGN_OR_RETURN(VariantResult result,
                          MeasureVariant(options, config, variant, inputs, evaluation));
    evaluation.results.push_back(std::move(result));
  }
  const VariantResult& dense = evaluation.results.front();
  if (dense.logits.has_value()) evaluation.dense_perplexity = dense.logits->dense_perplexity();
  return evaluation;
}

}  // namespace spin::eval
