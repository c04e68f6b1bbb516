#include "tools/eval/report.h"

#include <absl/strings/str_format.h>

#include <filesystem>
#include <nlohmann/json.hpp>

namespace spin::eval {
namespace {

using Json = nlohmann::ordered_json;

std::string BudgetText(const Variant& variant) {
  return variant.whole() ? "all" : std::to_string(variant.budget());
}

std::string Head(const Options& options, const Evaluation& evaluation) {
  std::string text =
      absl::StrFormat("%s, %s, %s; context %d, seed %d\n",
                      std::filesystem::path(evaluation.model).filename().string(),
                      NameOf(evaluation.dtype), evaluation.device, options.context, options.seed);
  if (options.kl || options.recall || options.greedy) {
    text += absl::StrFormat("%d documents of %s", options.documents, evaluation.documents);
    if (options.kl || options.recall)
      text += absl::StrFormat(", %d forced tokens each", options.forced);
    if (options.recall) text += absl::StrFormat(", recall in %d of them", options.recall_steps);
    if (options.greedy) text += absl::StrFormat(", free runs of %d", options.greedy_tokens);
    text += '\n';
  }
  if (options.tasks) text += absl::StrFormat("%d samples of each task\n", options.samples);
  text += absl::StrFormat("%.0f s in all\n", evaluation.seconds);
  if (evaluation.dense_perplexity > 0) {
    text += absl::StrFormat("dense perplexity %.3f\n", evaluation.dense_perplexity);
  }
  return text;
}

std::string MainTable(const Options& options, const Evaluation& evaluation) {
  std::string head = absl::StrFormat("%-14s %6s", "", "budget");
  if (options.kl)
    head +=
        absl::StrFormat("  %9s %9s %6s %6s %7s", "KL mean", "KL p99", "top-1", "top-5", "ppl x");
  if (options.recall)
    head += absl::StrFormat("  %6s %6s %7s %7s", "mass", "p5", "/oracle", "overlap");
  if (options.greedy) head += absl::StrFormat("  %6s %6s %8s", "same", "equal", "length x");
  if (options.tasks) head += absl::StrFormat("  %6s", "tasks");
  std::string text = head + "\n";
  for (const VariantResult& result : evaluation.results) {
    text += absl::StrFormat("%-14s %6s", result.variant.name(), BudgetText(result.variant));
    if (result.logits.has_value()) {
      const LogitSummary& logits = *result.logits;
      text += absl::StrFormat("  %9.2e %9.2e %5.1f%% %5.1f%% %7.4f", logits.mean_kl(),
                              logits.kl_percentile(99), 100 * logits.top1_agreement(),
                              100 * logits.top5_overlap(), logits.perplexity_ratio());
    }
    if (!result.recall.empty()) {
      const RecallSummary recall = Summarize(result.recall);
      text += absl::StrFormat("  %5.1f%% %5.1f%% %6.1f%% %6.1f%%", 100 * recall.mean,
                              100 * recall.p5, 100 * recall.relative(), 100 * recall.overlap);
    }
    if (result.greedy.has_value()) {
      const GreedyAgreement& greedy = *result.greedy;
      text += absl::StrFormat("  %6.1f %5.1f%% %8.3f", greedy.common_tokens, 100 * greedy.identical,
                              greedy.length_ratio);
    }
    if (!result.tasks.empty()) text += absl::StrFormat("  %5.1f%%", 100 * result.mean_task_score());
    text += '\n';
  }
  return text;
}

// A task a line, a variant a column.
std::string TaskTable(const Evaluation& evaluation) {
  const std::vector<TaskScore>& tasks = evaluation.results.front().tasks;
  if (tasks.empty()) return "";
  std::string text = absl::StrFormat("\n%-16s", "tasks, %");
  for (const VariantResult& result : evaluation.results)
    text += absl::StrFormat(" %12s", result.variant.label());
  text += '\n';
  for (size_t i = 0; i < tasks.size(); ++i) {
    text += absl::StrFormat("%-16s", tasks[i].task);
    for (const VariantResult& result : evaluation.results) {
      text += absl::StrFormat(" %12.1f", 100 * result.tasks[i].score);
    }
    text += '\n';
  }
  return text;
}

std::string LayerTable(const Evaluation& evaluation) {
  std::string text = absl::StrFormat("\n%-16s", "mass / oracle, %");
  for (const VariantResult& result : evaluation.results)
    text += absl::StrFormat(" %12s", result.variant.label());
  text += '\n';
  for (size_t layer = 0; layer < evaluation.results.front().recall.size(); ++layer) {
    text += absl::StrFormat("layer %-10d", layer);
    for (const VariantResult& result : evaluation.results) {
      const RecallSummary recall = Summarize(result.recall[layer]);
      text += absl::StrFormat(
          " %12s", absl::StrFormat("%.1f / %.1f", 100 * recall.mean, 100 * recall.oracle));
    }
    text += '\n';
  }
  return text;
}

Json LogitsJson(const LogitSummary& logits) {
  return {{"positions", logits.positions()},
          {"mean_kl", logits.mean_kl()},
          {"p99_kl", logits.kl_percentile(99)},
          {"top1_agreement", logits.top1_agreement()},
          {"top5_overlap", logits.top5_overlap()},
          {"perplexity", logits.sparse_perplexity()},
          {"perplexity_ratio", logits.perplexity_ratio()}};
}

Json RecallJson(const RecallSummary& recall) {
  return {{"mass", recall.mean},
          {"p5_mass", recall.p5},
          {"oracle_mass", recall.oracle},
          {"relative", recall.relative()},
          {"overlap", recall.overlap}};
}

Json ResultJson(const VariantResult& result) {
  const Variant& variant = result.variant;
  Json json = {{"name", variant.name()},
               {"algorithm", variant.sparse.algorithm},
               {"budget", variant.whole() ? Json(nullptr) : Json(variant.budget())}};
  if (result.logits.has_value()) json["kl"] = LogitsJson(*result.logits);
  if (!result.recall.empty()) {
    json["recall"] = RecallJson(Summarize(result.recall));
    for (const LayerRecall& layer : result.recall) {
      json["recall"]["layers"].push_back(RecallJson(Summarize(layer)));
    }
  }
  if (result.greedy.has_value()) {
    json["greedy"] = {{"identical", result.greedy->identical},
                      {"common_tokens", result.greedy->common_tokens},
                      {"common_share", result.greedy->common_share},
                      {"length_ratio", result.greedy->length_ratio}};
  }
  if (!result.tasks.empty()) {
    json["task_mean"] = result.mean_task_score();
    for (const TaskScore& task : result.tasks) json["tasks"][task.task] = task.score;
  }
  return json;
}

}  // namespace

std::string ReportTable(const Options& options, const Evaluation& evaluation) {
  return Head(options, evaluation) + "\n" + MainTable(options, evaluation) + TaskTable(evaluation) +
         (options.recall && options.per_layer ? LayerTable(evaluation) : "");
}

std::string ReportJson(const Options& options, const Evaluation& evaluation) {
  Json json = {{"model", evaluation.model},
               {"device", evaluation.device},
               {"dtype", NameOf(evaluation.dtype)},
               {"context", options.context},
               {"text", options.text},
               {"seed", options.seed},
               {"documents", options.documents},
               {"forced", options.forced},
               {"recall_steps", options.recall_steps},
               {"greedy_tokens", options.greedy_tokens},
               {"samples", options.samples},
               {"dense_perplexity", evaluation.dense_perplexity},
               {"seconds", evaluation.seconds},
               {"results", Json::array()}};
  for (const VariantResult& result : evaluation.results) {
    json["results"].push_back(ResultJson(result));
  }
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace spin::eval
