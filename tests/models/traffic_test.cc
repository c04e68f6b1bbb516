// What each algorithm declares that its steps read and write: by hand, at lengths that are served; and against what its
// Select lists and its Index leaves behind.
#include "memory/traffic.h"

#include <catch2/catch.hpp>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "models/model_executor.h"
#include "models/pipeline/step_observer.h"
#include "models/sparse/sparse_registry.h"
#include "tests/models/ladder.h"

namespace spin::testing {
namespace {

// Eight streams. In bfloat16 a key has 256 bytes, so has a value.
constexpr int64_t kLayers = 4, kHeads = 2, kStreams = kLayers * kHeads, kKey = 256;
constexpr SparseModelShape kShape = {
    .num_layers = kLayers, .num_q_heads = 8, .num_kv_heads = kHeads, .head_dim = 128};

Traffic TrafficOf(const SparseOptions& options) {
  const auto algorithm = MakeSparseAlgorithm(options, kShape).value();
  ModelConfig config;
  config.num_layers = kShape.num_layers;
  config.num_q_heads = kShape.num_q_heads;
  config.num_kv_heads = kShape.num_kv_heads;
  config.head_dim = kShape.head_dim;
  const KvGeometry geometry = MakeGeometry(config, *algorithm, DType::kBf16, 1, 65536);
  std::vector<LayerDemand> layers;
  for (int32_t layer = 0; layer < kLayers; ++layer) layers.push_back(algorithm->Demand(layer));
  return Traffic(geometry, layers);
}

SparseOptions Named(const std::string& algorithm) {
  SparseOptions options;
  options.algorithm = algorithm;
  return options;
}

CacheWrites StepTo(const Traffic& traffic, int64_t length, int64_t prefill_tokens = 8192) {
  return traffic.Writes(
      {.from = length - 1, .to = length, .prefill_tokens = prefill_tokens, .tiered = true});
}

CacheWrites Prefill(const Traffic& traffic, int64_t tokens) {
  return traffic.Writes({.from = 0, .to = tokens, .prefill_tokens = tokens});
}

TEST_CASE("dense attends to everything and has no summaries") {
  const Traffic traffic = TrafficOf({});
  const StepReads reads = traffic.Reads(8193);
  CHECK(reads.attended_tokens == kLayers * 8193);
  CHECK(reads.attention_bytes == kStreams * 8193 * 2 * kKey);
  CHECK(reads.summary_bytes == 0);
  CHECK(Prefill(traffic, 8192).index_bytes == 0);
  CHECK(StepTo(traffic, 8193).offload_bytes == kStreams * 2 * kKey);
}

TEST_CASE("Quest scores all pages by both bounds, and each token is in its page's") {
  SparseOptions options = Named("quest");
  const Traffic traffic = TrafficOf(options);
  // 513 pages of 16, one token in the last; 128 are selected.
  const StepReads reads = traffic.Reads(8193);
  CHECK(reads.attended_tokens == kLayers * (127 * 16 + 1));
  CHECK(reads.summary_bytes == kStreams * 513 * 2 * kKey);
  CHECK(reads.estimate_bytes == 0);
  CHECK(traffic.Reads(8193, 20).attended_tokens == kLayers * (19 * 16 + 1));
  CHECK(Prefill(traffic, 8191).index_bytes == kStreams * 512 * 2 * kKey);
  CHECK(StepTo(traffic, 8195).index_bytes == kStreams * 2 * kKey);

  options.quest_dense_layers = 1;
  const Traffic mixed = TrafficOf(options);
  CHECK(mixed.Reads(8193).attended_tokens == 8193 + 3 * (127 * 16 + 1));
  CHECK(mixed.Reads(8193).summary_bytes == 3 * kHeads * 513 * 2 * kKey);
  CHECK(Prefill(mixed, 8191).index_bytes == kStreams * 512 * 2 * kKey);

  options.exact = true;
  const Traffic exact = TrafficOf(options);
  CHECK(exact.Reads(8193).attended_tokens == kLayers * 8193);
  CHECK(exact.Reads(8193).summary_bytes == 0);
  CHECK(StepTo(exact, 8195).index_bytes == kStreams * 2 * kKey);
}

TEST_CASE("ShadowKV scores the landmarks before its local window, and no factor behind them") {
  SparseOptions options = Named("shadowkv");
  options.shadowkv_rank = GENERATE(0, 160);
  const Traffic traffic = TrafficOf(options);
  // 1,025 pages of 8, one token in the last; 48 outliers, 4 local pages, the tail and 256 by score. At 131,073 tokens
  // a 64th of the context is 257 pages.
  const StepReads reads = traffic.Reads(8193);
  CHECK(reads.attended_tokens == kLayers * (308 * 8 + 1));
  CHECK(reads.summary_bytes == kStreams * (1025 - 5) * kKey);
  CHECK(traffic.Reads(131073).attended_tokens == kLayers * (309 * 8 + 1));
  // A factor of 8 tokens, in two pieces.
  const int64_t factor = options.shadowkv_rank == 0 ? 0 : 8 * 160 / 2 * 2;
  const int64_t basis = options.shadowkv_rank == 0 ? 0 : kLayers * 256 * 160 * 2;
  CHECK(Prefill(traffic, 8199).index_bytes == kStreams * 1024 * (kKey + factor) + basis);
  CHECK(StepTo(traffic, 8200).index_bytes == kStreams * (kKey + factor));
  CHECK(StepTo(traffic, 8201).index_bytes == 0);
  // Of a prompt that is shorter than its keys are wide (256).
  CHECK(Prefill(traffic, 255).index_bytes == kStreams * 31 * kKey);
  CHECK(StepTo(traffic, 8200, 255).index_bytes == kStreams * kKey);
}

TEST_CASE("SeerAttention-R scores the blocks before the query's own") {
  const std::string file = ScratchFolder("traffic_test") + "/gates.safetensors";
  WriteFile(file, MakeSeerGates(kShape, 32).Bytes());
  SparseOptions options = Named("seer");
  options.seer_gates = file;
  options.seer_threshold = GENERATE(0.0, 0.004);
  const Traffic traffic = TrafficOf(options);
  // 257 blocks of 32, one token in the last; 64 are selected.
  const StepReads reads = traffic.Reads(8193);
  CHECK(reads.attended_tokens == kLayers * (63 * 32 + 1));
  CHECK(reads.summary_bytes == kStreams * 256 * kKey);
  CHECK(Prefill(traffic, 8223).index_bytes == kStreams * 256 * kKey);
  CHECK(StepTo(traffic, 8224).index_bytes == kStreams * kKey);
  CHECK(StepTo(traffic, 8225).index_bytes == 0);
}

TEST_CASE(
    "RetroInfer attends to sink, retrieved clusters and what is not clustered; it scores "
    "centroids") {
  const SparseOptions options = Named("retroinfer");
  constexpr int64_t kRecord = 2 * kKey + 8;  // mean key, mean value, begin and size
  const Traffic traffic = TrafficOf(options);
  // 7,680 of 8,193 tokens are settled: 480 clusters of 7,672 tokens and the sink. 92 are retrieved, 111 estimated.
  const StepReads reads = traffic.Reads(8193);
  CHECK(reads.attended_tokens == kLayers * (8 + 513 + 1470));  // 92 * 7672 / 480
  CHECK(reads.attention_bytes == kHeads * reads.attended_tokens * 2 * kKey);
  CHECK(reads.summary_bytes == kStreams * 480 * kKey);
  CHECK(reads.estimate_bytes == kStreams * 111 * kRecord);
  // 32,256 of 32,769: 2,016 clusters of 32,248 tokens; still 92 retrieved; 468 estimated.
  const StepReads longer = traffic.Reads(32769);
  CHECK(longer.attended_tokens == kLayers * (8 + 513 + 1471));  // 92 * 32248 / 2016
  CHECK(longer.summary_bytes == kStreams * 2016 * kKey);
  CHECK(longer.estimate_bytes == kStreams * 468 * kRecord);
  // The first clusters are 32, and all of them are retrieved.
  for (const int64_t tokens : {1, 8, 575, 576, 1087}) {
    CHECK(traffic.Reads(tokens).attended_tokens == kLayers * tokens);
    CHECK(traffic.Reads(tokens).estimate_bytes == 0);
  }
  CHECK(traffic.Reads(575).summary_bytes == 0);
  CHECK(traffic.Reads(576).summary_bytes == kStreams * 32 * kKey);
  CHECK(Prefill(traffic, 8192).index_bytes == kStreams * 480 * kRecord);
  CHECK(StepTo(traffic, 8255).index_bytes == 0);
  CHECK(StepTo(traffic, 8256).index_bytes == kStreams * 32 * kRecord);
  CHECK(StepTo(traffic, 8255).offload_bytes == kStreams * 2 * kKey);
  CHECK(StepTo(traffic, 8256).offload_bytes == kStreams * 513 * 2 * kKey);
  // An exact request.
  CHECK(traffic.Reads(8193, 1025).attended_tokens == kLayers * 8193);
  CHECK(traffic.Reads(8193, 1025).summary_bytes == traffic.Reads(8193).summary_bytes);
  CHECK(traffic.Reads(8193, 1025).estimate_bytes == 0);
}

// Adds up what the selections of steps of one row list. Reads them where they are: on the CPU, in streams that run
// inline.
class SelectionCounter final : public StepObserver {
 public:
  void OnAttention(const DecodeStage& stage, const Selection& selection) override {
    const KvGeometry& g = stage.tables.geometry;
    const int64_t length = int64_t{stage.decode.position[*stage.decode.rows]} + 1;
    for (int32_t head = 0; head < g.num_kv_heads; ++head) {
      attended += selection.ids == nullptr ? length : Listed(selection, head, length, g);
      if (selection.estimate != nullptr) estimated += stage.scratch.estimate_count[head];
    }
  }
  void OnLogits(const DecodeRows&, const float*, int32_t, Stream&) override {}

  int64_t attended = 0;   // tokens, over KV heads and layers
  int64_t estimated = 0;  // clusters

 private:
  static int64_t Listed(const Selection& selection, int32_t head, int64_t length,
                        const KvGeometry& g) {
    int64_t tokens = 0;
    for (int32_t i = 0; i < selection.count[head]; ++i) {
      const int64_t at = int64_t{head} * selection.max_selected + i;
      tokens += selection.page_mask != nullptr
                    ? std::popcount(selection.page_mask[at])
                    : std::min<int64_t>(g.page_tokens,
                                        length - int64_t{selection.ids[at]} * g.page_tokens);
    }
    return tokens;
  }
};

// Bytes of `bytes` that do not hold the poison any more, by elements in float32.
int64_t Written(const void* memory, int64_t bytes) {
  const std::span<const uint32_t> words(static_cast<const uint32_t*>(memory),
                                        static_cast<size_t>(bytes / 4));
  return 4 * std::ranges::count_if(words, [](uint32_t word) { return word != 0xffffffff; });
}

ModelRunnerOptions Observed(const SparseOptions& sparse) {
  ModelRunnerOptions options = SmallRunner(kLlama);
  options.device = "cpu";
  options.inline_streams = true;
  options.sparse = sparse;
  options.placement = PlacementPolicy::kTiered;
  options.poison_free_pages = true;
  return options;
}

TEST_CASE("steps list what is declared to be attended to") {
  const std::string name = GENERATE(as<std::string>{}, "dense", "quest", "large quest", "shadowkv",
                                    "low-rank keys", "seer", "retroinfer");
  const int32_t prompt = GENERATE(90, 2100);
  INFO(name << ", a prompt of " << prompt);
  ModelRunner runner(Observed(Sparse(name, 256)));
  SelectionCounter counter;
  const RowId row = runner.Start(RandomPrompt(prompt, 1), prompt + 40)[0];
  runner.executor().Observe(&counter);
  StepReads declared;
  for (int32_t i = 0; i < 40; ++i) {
    runner.Step({row});
    declared += runner.memory().ReadsOf(runner.memory().length(row));
  }
  const KvGeometry& g = runner.geometry();
  const int64_t attended = declared.attended_tokens * g.num_kv_heads;
  const int64_t estimated = declared.estimate_bytes / (2 * g.head_dim * SizeOf(g.dtype) + 8);
  if (name != "retroinfer") {
    CHECK(counter.attended == attended);
  } else {  // retrieved clusters need not be of mean size
    CHECK(static_cast<double>(counter.attended) ==
          Approx(static_cast<double>(attended)).epsilon(0.05));
  }
  CHECK(counter.estimated == estimated);
}

TEST_CASE("memory holds as many bytes as prefill and steps are declared to write") {
  const std::string name = GENERATE(as<std::string>{}, "dense", "quest", "large quest", "shadowkv",
                                    "low-rank keys", "seer", "retroinfer");
  const int32_t prompt = GENERATE(90, 1070);
  INFO(name << ", a prompt of " << prompt);
  ModelRunner runner(Observed(Sparse(name, 256)));
  const RowId row = runner.Start(RandomPrompt(prompt, 1), prompt + 40)[0];
  const auto check = [&](const CacheWrites& declared, int64_t rewritten) {
    const KvTables tables = runner.Snapshot();
    const MemoryPlan& plan = runner.plan();
    CHECK(Written(tables.summaries, plan.summary_bytes) +
              Written(tables.key_basis, plan.key_basis_bytes) ==
          declared.index_bytes);
    CHECK(Written(tables.host_pages, plan.host_bytes) == declared.offload_bytes - rewritten);
  };
  CacheWrites declared = runner.memory().WritesOf(row, 0, prompt);
  check(declared, 0);
  if (name == "quest" || name == "large quest") return;  // steps write the same summary again
  for (int32_t i = 0; i < 40; ++i) {
    runner.Step({row});
    const int64_t length = runner.memory().length(row);
    declared += runner.memory().WritesOf(row, length - 1, length);
  }
  // RetroInfer's second extent is settled with token 1,088.
  const bool reorders = name == "retroinfer" && prompt == 1070;
  check(declared, reorders ? runner.geometry().num_layers * runner.geometry().extent_bytes() : 0);
}

}  // namespace
}  // namespace spin::testing
