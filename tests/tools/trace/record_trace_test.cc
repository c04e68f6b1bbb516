// Recording through the whole executor: placement does not change what is selected, and replaying a trace counts what
// the recorded run counted.
#include "tools/trace/record_trace.h"

#include <catch2/catch.hpp>

#include <cmath>

#include "common/random.h"
#include "tools/trace/cache_policy.h"

namespace spin::trace {
namespace {

constexpr int32_t kVocab = 320;  // of the recorded checkpoints

ServerConfig Config(PlacementPolicy placement, Eviction eviction) {
  ServerConfig config;
  config.model_path = "tests/models/testdata/golden/llama_gqa3_llama3rope";
  config.dtype = DType::kF32;
  config.max_model_len = 2048;
  config.hbm_budget_bytes = 64 << 20;
  config.host_pool_bytes = 48 << 20;
  config.min_buffer_ratio = 1;
  config.placement = placement;
  config.eviction = eviction;
  config.sparse.algorithm = "quest";
  config.sparse.budget_tokens = 160;
  config.backend = {.device = "cpu", .threads = 2};
  config.engine.max_num_seqs = 2;
  return config;
}

std::vector<int32_t> Text(int32_t length) {
  Random random(9);
  std::vector<int32_t> tokens(static_cast<size_t>(length));
  for (int32_t& token : tokens) token = static_cast<int32_t>(random.Below(kVocab));
  return tokens;
}

absl::StatusOr<Recording> Record(const ServerConfig& config, const std::vector<int32_t>& tokens,
                                 const RecordOptions& options) {
  SPIN_ASSIGN_OR_RETURN(ModelPlan plan, PlanModel(config));
  return RecordTrace(config, std::move(plan), tokens, options);
}

constexpr int32_t kPrompt = 700, kSteps = 120;

TEST_CASE("what is replayed is what was recorded") {
  const RecordOptions options = {kPrompt, kSteps, "random tokens"};
  const std::vector<int32_t> tokens = Text(kPrompt + kSteps);
  const auto resident =
      Record(Config(PlacementPolicy::kResident, Eviction::kBucketed), tokens, options);
  REQUIRE(resident.ok());
  const TraceHeader& header = resident->trace.header();
  CHECK(header.num_layers == 3);
  CHECK(header.num_kv_heads == 2);
  CHECK(header.page_tokens == 16);
  CHECK(header.budget_pages == 10);
  CHECK(header.fixed_pages == 2);
  CHECK(header.model == "llama_gqa3_llama3rope");
  CHECK(resident->trace.complete());
  CHECK(resident->num_slots == 0);
  CHECK(resident->counters.hits + resident->counters.misses == 0);
  // The model was not asked for its own tokens: the text is random.
  CHECK(resident->nats_per_token > 0.9 * std::log(kVocab));

  const auto [policy, eviction] =
      GENERATE(table<Policy, Eviction>({{Policy::kBucketed, Eviction::kBucketed},
                                        {Policy::kLastStep, Eviction::kLastStep},
                                        {Policy::kNone, Eviction::kNone}}));
  const auto tiered = Record(Config(PlacementPolicy::kTiered, eviction), tokens, options);
  REQUIRE(tiered.ok());
  CHECK(tiered->trace.Encode() == resident->trace.Encode());
  CHECK(tiered->num_slots == SlotsAt(header, 2));
  HitCounts replayed;
  for (const HitCounts& layer : ReplayLayers(tiered->trace, policy, tiered->num_slots, 0)) {
    replayed += layer;
  }
  CHECK(replayed.hits == static_cast<int64_t>(tiered->counters.hits));
  CHECK(replayed.misses == static_cast<int64_t>(tiered->counters.misses));
  CHECK(replayed.misses > 100);
}

TEST_CASE("what cannot be recorded is refused") {
  const std::vector<int32_t> tokens = Text(100);
  ServerConfig config = Config(PlacementPolicy::kResident, Eviction::kBucketed);
  const auto message = [&](const RecordOptions& options) {
    return MessageOf(Record(config, tokens, options).status());
  };
  CHECK(message({90, 11, ""}) == "the text has 100 tokens; prompt and steps take 101");
  CHECK(Record(config, tokens, {90, 10, ""}).ok());
  config.max_model_len = 99;
  CHECK(message({90, 10, ""}) == "prompt and steps take 100 tokens, the model's context has 99");
  config.sparse.algorithm = "dense";
  CHECK(message({80, 10, ""}) == "layer 0 takes the whole context: nothing to record");
  config.sparse.algorithm = "quest";
  config.sparse.quest_dense_layers = 1;
  CHECK(message({80, 10, ""}) == "layer 0 takes the whole context: nothing to record");
}

}  // namespace
}  // namespace spin::trace
