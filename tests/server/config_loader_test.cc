#include "server/config_loader.h"

#include <catch2/catch.hpp>
#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>

#include "server/config_schema.h"

namespace spin {
namespace {

std::string WriteYaml(const std::string& text) {
  const char* folder = std::getenv("TEST_TMPDIR");
  const std::string path = std::string(folder != nullptr ? folder : "/tmp") + "/config_test.yaml";
  std::ofstream(path, std::ios::trunc) << text;
  return path;
}

absl::StatusOr<LoadedConfig> LoadText(const std::string& text) {
  ConfigSources sources;
  sources.file = WriteYaml(text);
  return LoadConfig(sources);
}

// The message of a file that must be refused.
std::string Refusal(const std::string& text) {
  const auto loaded = LoadText(text);
  INFO(text);
  REQUIRE_FALSE(loaded.ok());
  CHECK(absl::IsInvalidArgument(loaded.status()));
  return MessageOf(loaded.status());
}

void CheckContains(const std::string& text, std::initializer_list<const char*> parts) {
  for (const char* part : parts) {
    INFO("looking for " << part << " in: " << text);
    CHECK(text.find(part) != std::string::npos);
  }
}

TEST_CASE("without sources every key has its default") {
  const auto loaded = LoadConfig({});
  REQUIRE(loaded.ok());
  CHECK(loaded->values.size() == ConfigKeys().size());
  for (const auto& [name, value] : loaded->values) CHECK(value.source == "default");
  CHECK(loaded->config.http_port == 8000);
}

TEST_CASE("a later source wins, and each value knows its own") {
  ConfigSources sources;
  sources.file =
      WriteYaml("# comment\nserver:\n  http_port: 7000\n  grpc_port: 7001\n  max_queue: 9\n");
  const std::map<std::string, std::string> environment = {{"SPIN_SERVER_HTTP_PORT", "7100"},
                                                          {"SPIN_SERVER_GRPC_PORT", "7101"},
                                                          {"SPIN_UNRELATED", "x"}};
  sources.environment = [&](const std::string& name) {
    const auto found = environment.find(name);
    return found == environment.end() ? nullptr : found->second.c_str();
  };
  sources.assignments = {
      {"server.http_port", "7200"}, {"server.http_port", "7201"}, {"model.path", "/m", "--model"}};
  const auto loaded = LoadConfig(sources);
  REQUIRE(loaded.ok());
  CHECK(loaded->config.http_port == 7201);
  CHECK(loaded->config.grpc_port == 7101);
  CHECK(loaded->config.engine.max_queue == 9);
  CHECK(loaded->config.model_path == "/m");
  CHECK(loaded->values.at("server.http_port").source == "--set");
  CHECK(loaded->values.at("server.grpc_port").source == "SPIN_SERVER_GRPC_PORT");
  CHECK(loaded->values.at("server.max_queue").source == *sources.file + ":5");
  CHECK(loaded->values.at("model.path").source == "--model");
  CHECK(loaded->values.at("server.host").source == "default");
}

TEST_CASE("comments and empty sections change nothing, lists are joined, nested keys are found") {
  CHECK(LoadText("# only a comment\n").ok());
  CHECK(LoadText("server:\nlog:\n").ok());
  const auto loaded = LoadText(
      "model: {served_name: [a, b], path: \"/with: colon\"}\nsparse:\n  quest:\n    dense_layers: "
      "3\n  seer: {gates: /g.safetensors, threshold: 0.004}\n");
  REQUIRE(loaded.ok());
  CHECK(loaded->config.served_names == std::vector<std::string>{"a", "b"});
  CHECK(loaded->config.model_path == "/with: colon");
  CHECK(loaded->config.sparse.quest_dense_layers == 3);
  CHECK(loaded->config.sparse.seer_gates == "/g.safetensors");
  CHECK(loaded->config.sparse.seer_threshold == 0.004);
}

TEST_CASE("the budget is a number or the algorithm's own, whose shape has keys of its own") {
  CHECK_FALSE(LoadText("sparse: {algorithm: shadowkv}\n")->config.sparse.budget_tokens.has_value());
  const auto loaded = LoadText(
      "sparse:\n  budget_tokens: 512\n  shadowkv: {context_fraction: 32, min_budget_tokens: 128, "
      "outlier_pages: 0, local_pages: 8, rank: 160}\n");
  REQUIRE(loaded.ok());
  const SparseOptions& sparse = loaded->config.sparse;
  CHECK(sparse.budget_tokens == 512);
  CHECK(sparse.shadowkv_context_fraction == 32);
  CHECK(sparse.shadowkv_min_budget_tokens == 128);
  CHECK(sparse.shadowkv_outlier_pages == 0);
  CHECK(sparse.shadowkv_local_pages == 8);
  CHECK(sparse.shadowkv_rank == 160);
  const auto clusters = LoadText(
      "sparse:\n  algorithm: retroinfer\n  retroinfer: {retrieve_permille: 50, estimate_permille: "
      "0, min_budget_tokens: 0}\n");
  REQUIRE(clusters.ok());
  CHECK(clusters->config.sparse.retroinfer_retrieve_permille == 50);
  CHECK(clusters->config.sparse.retroinfer_estimate_permille == 0);
  CHECK(clusters->config.sparse.retroinfer_min_budget_tokens == 0);
  CheckContains(Refusal("sparse:\n  budget_tokens: most\n"), {"sparse.budget_tokens", "'most'"});
  CheckContains(Refusal("sparse:\n  shadowkv: {local_pages: -1}\n"),
                {"sparse.shadowkv.local_pages", "'-1'"});
  CheckContains(Refusal("sparse:\n  seer: {threshold: 1.5}\n"),
                {"sparse.seer.threshold", "'1.5'", "0..1"});
  CheckContains(Refusal("sparse:\n  retroinfer: {retrieve_permille: 0}\n"),
                {"sparse.retroinfer.retrieve_permille", "'0'", "1..1000"});
  CheckContains(Refusal("sparse:\n  retroinfer: {estimate_permille: 1001}\n"),
                {"sparse.retroinfer.estimate_permille", "'1001'", "0..1000"});
  CheckContains(Refusal("sparse:\n  retroinfer: {min_budget_tokens: -1}\n"),
                {"sparse.retroinfer.min_budget_tokens", "'-1'", "tokens"});
}

TEST_CASE("mistakes in the file are told with file, line, key and what is allowed") {
  CheckContains(Refusal("server:\n  host: x\n  http_port: high\n"),
                {"config_test.yaml:3", "server.http_port", "'high'", "0..65535"});
  CheckContains(Refusal("\nsparse:\n  algoritm: quest\n"),
                {"config_test.yaml:3", "unknown key 'sparse.algoritm'", "'sparse.algorithm'"});
  CheckContains(Refusal("memry:\n  host_pool: 1GiB\n"), {"config_test.yaml:1", "'memry'"});
  CheckContains(Refusal("log:\n  level: info\n  level: debug\n"),
                {"config_test.yaml:3", "log.level", "twice", "config_test.yaml:2"});
  CheckContains(Refusal("log:\n  level: info\nlog:\n  level: info\n"),
                {"config_test.yaml:4", "twice"});
  CheckContains(Refusal("server: 8000\n"), {"config_test.yaml:1", "'server' is a section"});
  CheckContains(Refusal("server:\n  http_port:\n"), {"config_test.yaml:2", "no value"});
  CheckContains(Refusal("server:\n  http_port: {a: 1}\n"),
                {"config_test.yaml:2", "no single value"});
  CheckContains(Refusal("model:\n  served_name: [[a]]\n"), {"config_test.yaml:2", "no list"});
  CheckContains(Refusal("- a\n- b\n"), {"no map of sections"});
  CheckContains(Refusal("server:\n  [a]: 1\n"), {"config_test.yaml:2", "no plain word"});
  CheckContains(Refusal("server: {http_port: 1\nlog: [\n"),
                {"config_test.yaml:", "not valid YAML"});
  CheckContains(Refusal("server:\n\thttp_port: 1\n"), {"config_test.yaml:2", "not valid YAML"});
}

TEST_CASE("the least buffer is no more than the most, whoever says so") {
  CheckContains(Refusal("memory:\n  min_buffer_ratio: 6\n"),
                {"config_test.yaml:2", "memory.min_buffer_ratio", "'6'", "memory.max_buffer_ratio",
                 "'5'", "default"});
  CheckContains(Refusal("memory:\n  min_buffer_ratio: 2\n  max_buffer_ratio: 1.5\n"),
                {"config_test.yaml:2", "'2'", "'1.5'", "config_test.yaml:3"});
  CHECK(LoadText("memory:\n  min_buffer_ratio: 6\n  max_buffer_ratio: 6\n").ok());
}

TEST_CASE("an error about a key tells where the key was given") {
  const auto loaded = LoadText("memory:\n  hbm_budget: 1KiB\n");
  REQUIRE(loaded.ok());
  const auto message_of = [&](const char* message) {
    return MessageOf(WithSource(*loaded, InvalidArgument("%s", message)));
  };
  CHECK(message_of("memory.hbm_budget: too little") ==
        loaded->values.at("memory.hbm_budget").source + ": memory.hbm_budget: too little");
  CHECK(message_of("memory.host_pool: too little") == "memory.host_pool: too little");  // default
  CHECK(message_of("no model: give one") == "no model: give one");
  CHECK(absl::IsNotFound(WithSource(*loaded, NotFound("memory.hbm_budget: lost"))));
}

TEST_CASE("a missing file and bad variables or assignments are named") {
  ConfigSources sources;
  sources.file = "/no/such/file.yaml";
  CheckContains(MessageOf(LoadConfig(sources).status()), {"/no/such/file.yaml"});
  CheckContains(MessageOf(LoadText("").status()), {"config_test.yaml", "empty"});
  sources.file.reset();
  sources.environment = [](const std::string& name) {
    return name == "SPIN_LOG_LEVEL" ? "loud" : nullptr;
  };
  CheckContains(MessageOf(LoadConfig(sources).status()), {"SPIN_LOG_LEVEL", "log.level", "'loud'"});
  sources.environment = nullptr;
  sources.assignments = {{"memory.placment", "auto"}};
  CheckContains(MessageOf(LoadConfig(sources).status()), {"--set", "'memory.placement'"});
  sources.assignments = {{"memory.placement", "cloud"}};
  CheckContains(MessageOf(LoadConfig(sources).status()),
                {"--set", "'cloud'", "auto, resident, tiered"});
}

TEST_CASE("what PrintConfig prints is read again as the same values") {
  ConfigSources sources;
  sources.assignments = {{"model.path", "/models/with: colon # and hash"},
                         {"model.served_name", "a,b"},
                         {"memory.hbm_budget", "1.5GiB"},
                         {"sparse.quest.dense_layers", "2"}};
  const auto loaded = LoadConfig(sources);
  REQUIRE(loaded.ok());
  const std::string text = PrintConfig(*loaded);
  CheckContains(text, {"\nsparse:\n", "\n  quest:\n    dense_layers: 2", "# --set", "# default"});
  const auto again = LoadText(text);
  REQUIRE(again.ok());
  for (const auto& [name, value] : loaded->values) {
    INFO(name);
    CHECK(again->values.at(name).text == value.text);
  }
}

TEST_CASE("the sample configurations load, and spind.yaml has every key with its default") {
  for (const char* name :
       {"configs/spind.yaml", "configs/cpu-laptop.yaml", "configs/quest.yaml",
        "configs/shadowkv.yaml", "configs/seer.yaml", "configs/retroinfer.yaml"}) {
    ConfigSources sources;
    sources.file = name;
    const auto loaded = LoadConfig(sources);
    INFO(name << ": " << MessageOf(loaded.status()));
    REQUIRE(loaded.ok());
    if (std::string(name) != "configs/spind.yaml") continue;
    for (const ConfigKey& key : ConfigKeys()) {
      const ConfigValue& value = loaded->values.at(std::string(key.name));
      INFO(key.name << " from " << value.source);
      CHECK(value.source.starts_with("configs/spind.yaml:"));
      CHECK(value.text == key.default_value);
    }
    std::ifstream file(name);
    for (std::string line; std::getline(file, line);) {
      const bool is_value = line.starts_with("  ") && !line.ends_with(":");
      INFO(line);
      CHECK((!is_value || line.find(" # ") != std::string::npos));
    }
  }
}

}  // namespace
}  // namespace spin
