#include "server/config_schema.h"

#include <catch2/catch.hpp>
#include <set>
#include <string>

namespace spin {
namespace {

ServerConfig Defaults() {
  ServerConfig config;
  for (const ConfigKey& key : ConfigKeys()) {
    REQUIRE(key.set(config, std::string(key.default_value)).ok());
  }
  return config;
}

absl::Status Set(ServerConfig& config, std::string_view name, const std::string& text) {
  const ConfigKey* key = FindConfigKey(name);
  REQUIRE(key != nullptr);
  return key->set(config, text);
}

TEST_CASE("every key has a name of its own, a section, a help text and a valid default") {
  std::set<std::string_view> names;
  for (const ConfigKey& key : ConfigKeys()) {
    INFO(key.name);
    CHECK(names.insert(key.name).second);
    CHECK(key.name.find('.') != std::string_view::npos);
    CHECK_FALSE(key.help.empty());
    CHECK_FALSE(key.allowed.empty());
    CHECK(FindConfigKey(key.name) == &key);
    ServerConfig config;
    CHECK(key.set(config, std::string(key.default_value)).ok());
  }
  CHECK(FindConfigKey("server") == nullptr);
  CHECK(FindConfigKey("server.http_portx") == nullptr);
}

TEST_CASE("the defaults are the documented ones") {
  const ServerConfig config = Defaults();
  CHECK(config.host == "127.0.0.1");
  CHECK(config.http_port == 8000);
  CHECK(config.grpc_port == 8001);
  CHECK(config.max_body_bytes == int64_t{32} << 20);
  CHECK(config.drain_timeout_ms == 30'000);
  CHECK(config.dtype == DType::kBf16);
  CHECK_FALSE(config.max_model_len.has_value());
  CHECK_FALSE(config.hbm_budget_bytes.has_value());
  CHECK(config.sparse.algorithm == "dense");
  CHECK_FALSE(config.sparse.budget_tokens.has_value());  // the algorithm's own
  CHECK(config.sparse.shadowkv_context_fraction == 64);
  CHECK(config.sparse.shadowkv_min_budget_tokens == 2048);
  CHECK(config.sparse.shadowkv_outlier_pages == 48);
  CHECK(config.sparse.shadowkv_local_pages == 4);
  CHECK(config.sparse.seer_threshold == 0);
  CHECK(config.sparse.retroinfer_retrieve_permille == 18);
  CHECK(config.sparse.retroinfer_estimate_permille == 232);
  CHECK(config.sparse.retroinfer_min_budget_tokens == 2048);
  CHECK(config.sparse.shadowkv_rank == 0);
  CHECK_FALSE(config.sparse.exact);
  CHECK(config.min_buffer_ratio == 2);
  CHECK(config.max_buffer_ratio == 5);
  CHECK(config.demote_for_buffers);
  CHECK(config.placement == PlacementPolicy::kAuto);
  CHECK(config.eviction == Eviction::kBucketed);
}

TEST_CASE("texts become values") {
  ServerConfig config = Defaults();
  CHECK(Set(config, "memory.hbm_budget", "1.5GiB").ok());
  CHECK(config.hbm_budget_bytes == int64_t{3} << 29);
  CHECK(Set(config, "memory.hbm_budget", "auto").ok());
  CHECK_FALSE(config.hbm_budget_bytes.has_value());
  CHECK(Set(config, "memory.host_pool", "0").ok());
  CHECK(config.host_pool_bytes == 0);
  CHECK(Set(config, "server.max_body", "1GiB").ok());
  CHECK(config.max_body_bytes == int64_t{1} << 30);
  CHECK(Set(config, "server.drain_timeout", "500ms").ok());
  CHECK(config.drain_timeout_ms == 500);
  CHECK(Set(config, "server.drain_timeout", "2m").ok());
  CHECK(config.drain_timeout_ms == 120'000);
  CHECK(Set(config, "model.served_name", "a,b").ok());
  CHECK(config.served_names == std::vector<std::string>{"a", "b"});
  CHECK(Set(config, "model.served_name", "auto").ok());
  CHECK(config.served_names.empty());
  CHECK(Set(config, "sparse.exact", "true").ok());
  CHECK(config.sparse.exact);
  CHECK(Set(config, "memory.placement", "tiered").ok());
  CHECK(config.placement == PlacementPolicy::kTiered);
  CHECK(config.overlap == RetrieveOverlap::kAuto);
  CHECK(Set(config, "memory.overlap", "ready_first").ok());
  CHECK(config.overlap == RetrieveOverlap::kReadyFirst);
  CHECK(Set(config, "memory.overlap", "row_groups").ok());
  CHECK(config.overlap == RetrieveOverlap::kRowGroups);
  CHECK(Set(config, "memory.eviction", "last_step").ok());
  CHECK(config.eviction == Eviction::kLastStep);
  CHECK(Set(config, "memory.eviction", "none").ok());
  CHECK(config.eviction == Eviction::kNone);
  CHECK(Set(config, "memory.eviction", "bucketed").ok());
  CHECK(config.eviction == Eviction::kBucketed);
  CHECK(Set(config, "backend.gemm_sms", "124").ok());
  CHECK(config.backend.gemm_sms == 124);
  CHECK(Set(config, "backend.threads", "3").ok());
  CHECK(config.backend.threads == 3);
  CHECK(Set(config, "model.max_model_len", "4096").ok());
  CHECK(config.max_model_len == 4096);
}

TEST_CASE("what is not allowed is refused and leaves the value alone") {
  const auto refuses = [](std::string_view name, const std::string& text) {
    ServerConfig config = Defaults();
    const absl::Status status = Set(config, name, text);
    INFO(name << " = '" << text << "'");
    CHECK_FALSE(status.ok());
    CHECK(MessageOf(status).find("'" + text + "'") != std::string::npos);
    CHECK(config.http_port == 8000);
    CHECK(config.max_body_bytes == int64_t{32} << 20);
    CHECK(config.min_buffer_ratio == 2);
    CHECK(config.drain_timeout_ms == 30'000);
  };
  for (const char* text : {"", "-1", "65536", "80.0", "0x50", "eighty", "99999999999999999999"}) {
    refuses("server.http_port", text);
  }
  for (const char* text : {"nan", "-0.5", "65", "two", ""})
    refuses("memory.min_buffer_ratio", text);
  for (const char* text : {"nan", "-0.5", "65", "auto", ""})
    refuses("memory.max_buffer_ratio", text);
  for (const char* text : {"30", "s", "-1s", "30 s", "2h", "90000000s", "1.5s"}) {
    refuses("server.drain_timeout", text);
  }
  for (const char* text : {"12parsecs", "-1", "GiB"}) refuses("memory.host_pool", text);
  for (const char* text : {"yes", "True", "1"}) refuses("sparse.exact", text);
  refuses("memory.placement", "cloud");
  refuses("sparse.algorithm", "qest");
  refuses("sparse.quest.page_tokens", "17");
  refuses("memory.overlap", "sometimes");
  refuses("memory.eviction", "exact_lru");
  refuses("model.dtype", "float16");
  refuses("backend.device", "tpu");
  refuses("log.level", "loud");
  for (const char* text : {"1", "1025MiB", "4GiB"}) refuses("server.max_body", text);
}

TEST_CASE("environment names follow the keys, and the help shows all") {
  CHECK(EnvironmentName(*FindConfigKey("memory.hbm_budget")) == "SPIN_MEMORY_HBM_BUDGET");
  CHECK(EnvironmentName(*FindConfigKey("sparse.quest.dense_layers")) ==
        "SPIN_SPARSE_QUEST_DENSE_LAYERS");
  const std::string help = ConfigHelp();
  for (const ConfigKey& key : ConfigKeys()) {
    INFO(key.name);
    CHECK(help.find(std::string(key.help)) != std::string::npos);
    CHECK(help.find(EnvironmentName(key)) != std::string::npos);
  }
}

}  // namespace
}  // namespace spin
