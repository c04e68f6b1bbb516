// The whole evaluation on a small recorded checkpoint: what must be exact is, what leaves something out shows it, and
// the controls bound the algorithm.
#include "tools/eval/evaluation.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/check.h"
#include "server/config_loader.h"
#include "tests/testing/model_runner.h"
#include "tools/eval/documents.h"
#include "tools/eval/report.h"

namespace spin::eval {
namespace {

const std::string kFolder = "tests/models/testdata/golden/llama_gqa3_llama3rope";

ServerConfig Config(const std::string& placement) {
  ConfigSources sources;
  sources.environment = [](const std::string&) -> const char* { return nullptr; };
  sources.assignments = {{"model.path", kFolder},
                         {"model.dtype", "float32"},
                         {"memory.hbm_budget", "160MiB"},
                         {"memory.host_pool", "160MiB"},
                         {"memory.placement", placement}};
  const auto loaded = LoadConfig(sources);
  SPIN_CHECK_OK(loaded.status());
  return loaded->config;
}

Options SmallOptions() {
  Options options;
  options.algorithms = {"quest"};
  options.budgets = {64, 1024};
  options.context = 600;
  options.documents = 3;
  options.batch = 2;  // the last document runs alone
  options.forced = 20;
  options.recall_steps = 3;
  options.greedy_tokens = 24;
  return options;
}

Evaluation Run(const Options& options, const std::string& placement = "auto") {
  auto evaluation = Evaluate(options, Config(placement), [](const VariantGroup&) {});
  SPIN_CHECK_OK(evaluation.status());
  return *std::move(evaluation);
}

const VariantResult& Find(const Evaluation& evaluation, const std::string& label) {
  for (const VariantResult& result : evaluation.results) {
    if (result.variant.label() == label) return result;
  }
  FAIL("no " << label);
  return evaluation.results.front();
}

TEST_CASE("every page selected: no difference to dense") {
  const Evaluation evaluation = Run(SmallOptions());
  REQUIRE(evaluation.results.size() == 8);
  CHECK(evaluation.results.front().variant.name() == "dense");
  for (const std::string label :
       {"dense", "quest exact", "quest 1024", "window 1024", "oracle 1024"}) {
    INFO(label);
    const VariantResult& result = Find(evaluation, label);
    CHECK(result.logits->positions() == 3 * 20);
    CHECK(result.logits->kl_percentile(100) < 1e-12);
    CHECK(result.logits->top1_agreement() == 1);
    CHECK(result.logits->top5_overlap() == 1);
    CHECK(result.logits->perplexity_ratio() == 1);
    const RecallSummary recall = Summarize(result.recall);
    CHECK(recall.p5 == Approx(1).epsilon(1e-5));
    CHECK(recall.overlap == 1);
    CHECK(result.greedy->identical == 1);
    CHECK(result.greedy->length_ratio == 1);
  }
}

TEST_CASE("a small budget shows, and the oracle bounds every selection of its size") {
  const Evaluation evaluation = Run(SmallOptions());
  const RecallSummary oracle = Summarize(Find(evaluation, "oracle 64").recall);
  CHECK(oracle.relative() == Approx(1).epsilon(1e-9));
  CHECK(oracle.overlap == 1);
  CHECK(oracle.mean < 0.95);
  for (const std::string label : {"quest 64", "window 64", "oracle 64"}) {
    INFO(label);
    const VariantResult& result = Find(evaluation, label);
    CHECK(result.logits->mean_kl() > 1e-6);
    CHECK(result.logits->kl_percentile(99) >= result.logits->mean_kl());
    CHECK(result.greedy->identical < 1);
    for (const LayerRecall& layer : result.recall) {
      CHECK(layer.mass.size() == 3 * 3 * 6);     // steps, documents, query heads
      CHECK(layer.overlap.size() == 3 * 3 * 2);  // KV heads
      const RecallSummary recall = Summarize(layer);
      CHECK(recall.mean <= recall.oracle + 1e-6);
      CHECK(recall.mean > 0);
    }
  }
  for (const std::string label : {"quest 64", "window 64"}) {
    CHECK(Summarize(Find(evaluation, label).recall).overlap < 1);
  }
}

TEST_CASE("under masks mass is counted token by token, and the oracle has as many tokens") {
  Options options = SmallOptions();
  options.algorithms = {"retroinfer"};
  options.budgets = {632};
  options.context = 1300;
  const Evaluation evaluation = Run(options);
  const VariantResult& exact = Find(evaluation, "retroinfer exact");
  CHECK(exact.logits->kl_percentile(100) < 1e-6);  // another order of the same tokens
  CHECK(Summarize(exact.recall).p5 == Approx(1).epsilon(1e-5));
  const VariantResult& result = Find(evaluation, "retroinfer 632");
  CHECK(result.logits->mean_kl() > 1e-9);
  for (const LayerRecall& layer : result.recall) {
    const RecallSummary recall = Summarize(layer);
    CHECK(recall.mean > 0.2);
    CHECK(recall.mean < 1);
    CHECK(recall.mean <= recall.oracle + 1e-6);
    CHECK(recall.overlap > 0.2);
  }
}

TEST_CASE("placement does not change a figure") {
  Options options = SmallOptions();
  options.budgets = {64};
  options.exact = false;
  const Evaluation resident = Run(options, "resident");
  const Evaluation tiered = Run(options, "tiered");
  REQUIRE(resident.results.size() == tiered.results.size());
  for (size_t i = 0; i < resident.results.size(); ++i) {
    const VariantResult& a = resident.results[i];
    const VariantResult& b = tiered.results[i];
    INFO(a.variant.label());
    CHECK(a.logits->mean_kl() == b.logits->mean_kl());
    CHECK(a.logits->sparse_perplexity() == b.logits->sparse_perplexity());
    CHECK(Summarize(a.recall).mean == Summarize(b.recall).mean);
    CHECK(Summarize(a.recall).oracle == Summarize(b.recall).oracle);
    CHECK(a.greedy->common_tokens == b.greedy->common_tokens);
  }
}

TEST_CASE("forced decode steps compute what a prefill of the whole document does") {
  Options options = SmallOptions();
  options.recall = options.greedy = options.tasks = false;
  options.documents = 1;
  const Evaluation evaluation = Run(options);
  const auto folder = ReadModelFolder(kFolder);
  REQUIRE(folder.ok());
  const auto documents = MakeDocuments(
      *folder, {.text = "", .count = 1, .tokens = options.context, .seed = options.seed});
  spin::testing::ModelRunner runner({.folder = kFolder, .dtype = DType::kF32});
  const std::vector<float> logprobs = runner.Score(documents->front());
  double nll = 0;  // of the tokens behind forced ones
  for (int32_t i = 0; i < options.forced - 1; ++i) {
    nll -= logprobs[logprobs.size() - 1 - static_cast<size_t>(i)];
  }
  CHECK(evaluation.dense_perplexity == Approx(std::exp(nll / (options.forced - 1))).epsilon(1e-4));
}

TEST_CASE("what cannot be measured is refused by name") {
  const auto progress = [](const VariantGroup&) {};
  Options options = SmallOptions();
  options.budgets = {16};
  auto evaluation = Evaluate(options, Config("auto"), progress);
  CHECK(MessageOf(evaluation.status()).find("budget_tokens") != std::string::npos);
  options = SmallOptions();
  options.algorithms = {"nothing"};
  evaluation = Evaluate(options, Config("auto"), progress);
  CHECK(MessageOf(evaluation.status()).find("nothing") != std::string::npos);
  options = SmallOptions();
  options.kl = options.recall = options.greedy = false;
  evaluation = Evaluate(options, Config("auto"), progress);
  CHECK(MessageOf(evaluation.status()).find("no task") != std::string::npos);
}

TEST_CASE("the report has a line and an object for each variant") {
  const Options options = SmallOptions();
  const Evaluation evaluation = Run(options);
  const std::string table = ReportTable(options, evaluation);
  const auto json = nlohmann::json::parse(ReportJson(options, evaluation));
  CHECK(json.at("context") == 600);
  REQUIRE(json.at("results").size() == evaluation.results.size());
  for (size_t i = 0; i < evaluation.results.size(); ++i) {
    const VariantResult& result = evaluation.results[i];
    const auto& object = json.at("results")[i];
    CHECK(object.at("name") == result.variant.name());
    CHECK(object.at("budget").is_null() == result.variant.whole());
    CHECK(object.at("kl").at("mean_kl") == result.logits->mean_kl());
    CHECK(object.at("recall").at("layers").size() == 3);
    CHECK(object.at("greedy").at("identical") == result.greedy->identical);
    CHECK_FALSE(object.contains("tasks"));
    CHECK(table.find("\n" + result.variant.name()) != std::string::npos);
  }
}

}  // namespace
}  // namespace spin::eval
