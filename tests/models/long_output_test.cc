// Outputs of 32K tokens: what a step appends enters the index at every length, so a Tiered row, whose slots hold a few
// hundred tokens, generates what a Resident one does. One small model with dummy weights; float32, to the bit.
#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <future>
#include <string>
#include <vector>

#include "tests/models/ladder.h"

namespace spin::testing {
namespace {

constexpr int32_t kPrompt = 1024;
constexpr int32_t kSteps = 32768;

ModelConfig TinyModel() {
  ModelConfig config;
  config.architecture = "LlamaForCausalLM";
  config.hidden = config.intermediate = config.vocab_size = config.head_dim = 64;
  config.num_layers = 2;
  config.num_q_heads = 2;
  config.num_kv_heads = 1;
  config.max_position = kPrompt + kSteps;
  return config;
}

// Budgets that are a small part of the context before the first token is generated.
SparseOptions SmallBudget(const std::string& algorithm) {
  SparseOptions sparse = Sparse(algorithm == "seer" ? "dense" : algorithm, 256);
  if (algorithm == "low-rank keys") sparse.shadowkv_rank = TinyModel().kv_width();
  if (algorithm == "retroinfer") sparse.budget_tokens = 584 + 16 * 8;
  if (algorithm != "seer") return sparse;
  const ModelConfig config = TinyModel();
  const std::string file = ScratchFolder("long_output") + "/gates.safetensors";
  const SparseModelShape model = {.num_layers = config.num_layers,
                                  .num_q_heads = config.num_q_heads,
                                  .num_kv_heads = config.num_kv_heads,
                                  .head_dim = config.head_dim};
  WriteFile(file, MakeSeerGates(model, 64).Bytes());
  sparse.algorithm = "seer";
  sparse.budget_tokens = 256;
  sparse.seer_gates = file;
  return sparse;
}

ModelRunnerOptions LongRunner(const std::string& algorithm) {
  ModelRunnerOptions options;
  options.config = TinyModel();
  options.sparse = SmallBudget(algorithm);
  options.placement = PlacementPolicy::kResident;
  options.hbm_bytes = 96 << 20;
  options.host_bytes = 48 << 20;
  options.max_model_len = kPrompt + kSteps;
  options.max_batch = 1;
  options.threads = 1;
  options.inline_streams = true;
  options.poison_free_pages = true;
  return options;
}

std::vector<int32_t> Prompt() {
  std::vector<int32_t> prompt = RandomPrompt(kPrompt, 1);
  for (int32_t& token : prompt) token %= TinyModel().vocab_size;
  return prompt;
}

// Sampled, so that the output never runs in a circle; the best token is reported beside it. With `forced` a step reads
// its token from there, whatever was sampled.
std::vector<SampledToken> Generate(ModelRunner& runner,
                                   const std::vector<SampledToken>* forced = nullptr) {
  runner.sampling() = {.num_logprobs = 1, .seed = 7};
  const RowId row = runner.Start(Prompt(), kPrompt + kSteps)[0];
  std::vector<SampledToken> tokens = {runner.first_token(row)};
  for (size_t step = 1; step < kSteps; ++step) {
    if (forced != nullptr) runner.executor().ForceToken(row, (*forced)[step - 1].token);
    tokens.push_back(runner.Step({row})[0]);
  }
  return tokens;
}

// On a thread of its own, so that two runs take two cores.
std::future<std::vector<SampledToken>> Started(ModelRunner& runner) {
  return std::async(std::launch::async, [&] { return Generate(runner); });
}

// Slots of the one Tiered row, of all streams, with pages of generated tokens that lie far behind the last one: Select
// took them by what the index says.
int32_t SlotsOfOldOutput(ModelRunner& runner) {
  constexpr int32_t kFar = 1024;
  const RowId row{0};
  const KvTables t = runner.Snapshot();
  const KvGeometry& g = t.geometry;
  REQUIRE(runner.memory().placement(row) == Placement::kTiered);
  int32_t count = 0;
  for (int32_t layer = 0; layer < g.num_layers; ++layer) {
    for (int32_t j = 0; j < t.num_slots[row.value * g.num_layers + layer]; ++j) {
      const int32_t extent = t.slot_dir[g.DirIndex(row.value, layer, j / g.extent_pages())];
      const int32_t page = t.slot_owner[g.PageIndex(extent, 0, j % g.extent_pages())];
      count += page * g.page_tokens >= kPrompt && page * g.page_tokens < kSteps - kFar;
    }
  }
  return count;
}

TEST_CASE("32K tokens generated Tiered equal those generated Resident") {
  const std::string algorithm = GENERATE("large quest", "seer", "retroinfer", "shadowkv");
  INFO(algorithm);
  const ModelRunnerOptions options = LongRunner(algorithm);
  ModelRunner resident(options), tiered(Starved(options));
  auto running = Started(resident);
  const Generations out = {Generate(tiered)}, expected = {running.get()};
  CHECK(AllFinite(expected));
  CHECK(Difference(out, expected) == "");
  const RetrieveCounters counters = tiered.executor().retrieve_counters();
  CHECK(counters.misses > kSteps);
  CHECK(counters.evictions > kSteps);
  CHECK(SlotsOfOldOutput(tiered) > 0);
  if (algorithm != "shadowkv") return;

  // Rebuilt keys: the bits are another thing (rule 3 of models/README.md, section 6), and greedy or not, another token
  // would be chosen once in a while; so the same ones are read. A factor of full rank, from the basis of the prompt
  // alone, leaves nothing of a key out but rounding; a page at the edge of the budget may be another.
  ModelRunner rebuilding(Starved(LongRunner("low-rank keys")));
  const std::vector<SampledToken> rebuilt = Generate(rebuilding, &expected[0]);
  CHECK(AllFinite({rebuilt}));
  int32_t apart = 0;
  float farthest = 0;
  for (size_t step = 0; step < kSteps; ++step) {
    const float distance =
        std::abs(rebuilt[step].top_logprob[0] - expected[0][step].top_logprob[0]);
    farthest = std::max(farthest, distance);
    apart += distance > 1e-3f;
  }
  CHECK(farthest > 0);
  CHECK(farthest < 0.1f);
  CHECK(apart < kSteps / 1000);
  CHECK(rebuilding.executor().retrieve_counters().rebuilt > kSteps);
  CHECK(SlotsOfOldOutput(rebuilding) > 0);
}

}  // namespace
}  // namespace spin::testing
