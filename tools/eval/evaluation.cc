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
  Runs dense_runs;
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
                           std::span<VariantResult> results) {
  std::vector<std::unique_ptr<AttentionMeter>> meters;
  std::vector<AttentionMeter*> meter_of;
  for (size_t i = 0; options.recall && i < results.size(); ++i) {
    SPIN_ASSIGN_OR_RETURN(std::unique_ptr<AttentionMeter> meter,
                          AttentionMeter::Create(session.device(), session.geometry(),
                                                 session.batch(), session.max_selected()));
    meter_of.push_back(meter.get());
    meters.push_back(std::move(meter));
  }
  const auto steps = static_cast<size_t>(options.forced);
  const bool is_reference = inputs.dense_logits.empty();
  if (is_reference && options.kl) inputs.dense_logits.resize(inputs.documents.size() * steps);
  std::vector<LogitSummary> summaries(results.size());
  const auto take = [&](size_t variant, size_t document, int32_t step,
                        std::span<const float> logits) {
    if (!options.kl) return;
    std::vector<float>& dense = inputs.dense_logits[document * steps + static_cast<size_t>(step)];
    if (is_reference) dense.assign(logits.begin(), logits.end());
    const Tokens& tokens = inputs.documents[document];
    const size_t next = tokens.size() - steps + static_cast<size_t>(step) + 1;
    summaries[variant].Add(dense, logits, next < tokens.size() ? tokens[next] : -1);
  };
  SPIN_RETURN_IF_ERROR(ForcedDecode(
      session, inputs.documents,
      {.num_forced = options.forced, .num_measured = options.recall_steps, .meters = meter_of},
      take));
  for (size_t i = 0; i < results.size(); ++i) {
    if (options.kl) results[i].logits = std::move(summaries[i]);
    if (options.recall) results[i].recall = meters[i]->layers();
  }
  return absl::OkStatus();
}

absl::Status MeasureFreeRuns(Session& session, Inputs& inputs, std::span<VariantResult> results) {
  SPIN_ASSIGN_OR_RETURN(const std::vector<Runs> runs,
                        GreedyDecode(session, inputs.free_runs, inputs.stop_tokens));
  if (inputs.dense_runs.empty()) inputs.dense_runs = runs[0];
  for (size_t i = 0; i < results.size(); ++i) {
    results[i].greedy = CompareRuns(inputs.dense_runs, runs[i]);
  }
  return absl::OkStatus();
}

std::vector<TaskScore> ScoreTasks(const Inputs& inputs, const Runs& said, int32_t samples) {
  std::vector<TaskScore> scores;
  for (size_t i = 0; i < inputs.samples.size(); ++i) {
    const auto& [task, sample] = inputs.samples[i];
    if (scores.empty() || scores.back().task != task) scores.push_back({task, 0});
    scores.back().score += sample.score(said[i]) / samples;
  }
  return scores;
}

absl::Status MeasureGroup(const Options& options, const ServerConfig& config,
                          const VariantGroup& group, Inputs& inputs, Evaluation& evaluation) {
  std::vector<VariantResult> results;
  for (const Variant& variant : group) results.emplace_back().variant = variant;
  SPIN_ASSIGN_OR_RETURN(const std::unique_ptr<Session> session,
                        Session::Create(config, group, options.batch, inputs.max_tokens));
  evaluation.device = session->device().info().name;
  if (options.kl || options.recall) {
    SPIN_RETURN_IF_ERROR(MeasureForced(options, *session, inputs, results));
  }
  if (options.greedy) SPIN_RETURN_IF_ERROR(MeasureFreeRuns(*session, inputs, results));
  if (!inputs.samples.empty()) {
    SPIN_ASSIGN_OR_RETURN(const std::vector<Runs> said,
                          GreedyDecode(*session, inputs.questions, inputs.stop_tokens));
    for (size_t i = 0; i < results.size(); ++i) {
      results[i].tasks = ScoreTasks(inputs, said[i], options.samples);
    }
  }
  for (VariantResult& result : results) evaluation.results.push_back(std::move(result));
  return absl::OkStatus();
}

}  // namespace

double VariantResult::mean_task_score() const {
  double sum = 0;
  for (const TaskScore& task : tasks) sum += task.score;
  return tasks.empty() ? 0 : sum / static_cast<double>(tasks.size());
}

absl::StatusOr<Evaluation> Evaluate(const Options& options, const ServerConfig& config,
                                    const std::function<void(const VariantGroup&)>& progress) {
  const auto begin = std::chrono::steady_clock::now();
  if (config.model_path.empty()) return InvalidArgument("no model: give --model FOLDER");
  SPIN_ASSIGN_OR_RETURN(const ModelFolder folder, ReadModelFolder(config.model_path));
  SPIN_ASSIGN_OR_RETURN(const std::vector<VariantGroup> groups,
                        ListVariants(options, config, folder.config));
  SPIN_ASSIGN_OR_RETURN(Inputs inputs, MakeInputs(options, folder));
  if (inputs.max_tokens == 0) return InvalidArgument("--measure tasks: no task suits this model");
  Evaluation evaluation;
  evaluation.model = config.model_path;
  evaluation.dtype = config.dtype;
  evaluation.documents = options.text.empty() ? DocumentLanguage(folder) : options.text;
  for (const VariantGroup& group : groups) {
    progress(group);
    SPIN_RETURN_IF_ERROR(MeasureGroup(options, config, group, inputs, evaluation));
  }
  const VariantResult& dense = evaluation.results.front();
  if (dense.logits.has_value()) evaluation.dense_perplexity = dense.logits->dense_perplexity();
  evaluation.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return evaluation;
}

}  // namespace spin::eval
