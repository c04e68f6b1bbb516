// Recorded selections through the whole executor: what a model is made to select, recorded again, is the trace.
#include "tools/trace/replay_algorithm.h"

#include <catch2/catch.hpp>

#include <utility>

#include "tests/models/ladder.h"
#include "tests/tools/trace/random_trace.h"
#include "tools/trace/cache_policy.h"
#include "tools/trace/record_trace.h"

namespace spin::trace {
namespace {

constexpr int32_t kPrompt = 700, kSteps = 70, kModelPages = 12;

ServerConfig Config(const std::string& algorithm = "quest") {
  ServerConfig config;
  config.model_path = testing::kLlama;  // 3 layers, 2 heads
  config.dtype = DType::kF32;
  config.max_model_len = 2048;
  config.hbm_budget_bytes = 64 << 20;
  config.host_pool_bytes = 48 << 20;
  config.min_buffer_ratio = 1;
  config.placement = PlacementPolicy::kTiered;
  config.sparse = testing::Sparse(algorithm, kModelPages * 16);
  config.backend = {.device = "cpu", .threads = 2};
  config.engine.max_num_seqs = 2;
  return config;
}

absl::Status Wrap(ModelPlan& plan, const SelectionTrace& trace, ReplayOptions options) {
  options.num_layers = plan.folder.config.num_layers;
  options.max_rows = plan.cache.plan.geometry.max_rows;
  SPIN_ASSIGN_OR_RETURN(
      plan.algorithm,
      ReplayAlgorithm::Create(std::move(plan.algorithm), *plan.backend.device, trace, options));
  return absl::OkStatus();
}

Recording RecordReplay(const std::string& algorithm, const SelectionTrace& trace,
                       const ReplayOptions& options) {
  const ServerConfig config = Config(algorithm);
  auto plan = PlanModel(config);
  REQUIRE(plan.ok());
  REQUIRE(Wrap(*plan, trace, options).ok());
  const std::vector<int32_t> tokens(kPrompt + kSteps, 5);
  auto recording = RecordTrace(config, *std::move(plan), tokens, {kPrompt, kSteps, ""});
  REQUIRE(recording.ok());
  return *std::move(recording);
}

// What a step of the trace stands for where the sequence's last page is `tail`.
std::vector<int32_t> Scaled(std::span<const int32_t> ids, int32_t scale, int32_t tail) {
  std::vector<int32_t> pages;
  for (const int32_t id : ids.first(ids.size() - 1)) {
    for (int32_t j = 0; j < scale; ++j) pages.push_back(id * scale + j);
  }
  for (int32_t j = scale; j-- > 0;) pages.push_back(tail - j);
  return pages;
}

bool BeginsAt(int32_t begin, const SelectionTrace& got, const SelectionTrace& trace,
              int32_t scale) {
  const TraceHeader& header = trace.header();
  for (int32_t layer = 0; layer < got.header().num_layers; ++layer) {
    for (int32_t head = 0; head < got.header().num_kv_heads; ++head) {
      const StreamTrace& from = trace.stream(layer % header.num_layers, head % header.num_kv_heads);
      for (int32_t step = 0; step < kSteps; ++step) {
        const auto pages =
            Scaled(from.At((begin + step) % header.num_steps), scale, got.header().Tail(step));
        if (!std::ranges::equal(pages, got.stream(layer, head).At(step))) return false;
      }
    }
  }
  return true;
}

// SeerAttention-R has weights of its own, which must have come to the device.
TEST_CASE("a model selects what the trace says, from some step on") {
  const std::string algorithm = GENERATE("quest", "seer");
  const auto [scale, num_steps] =
      GENERATE(table<int32_t, int32_t>({{1, 100}, {2, 100}, {2, 30}, {4, 90}}));
  TraceHeader header = {.num_layers = 2,
                        .num_kv_heads = 3,
                        .page_tokens = 16,
                        .budget_pages = kModelPages / scale,
                        .fixed_pages = 2,
                        .num_steps = num_steps};
  header.prompt_tokens = kPrompt / 16 / scale * 16 - num_steps;
  REQUIRE(header.num_pages() == kPrompt / 16 / scale);
  const SelectionTrace trace = RandomTrace(header, 41);
  const Recording got =
      RecordReplay(algorithm, trace, {.context_tokens = kPrompt, .run_steps = kSteps, .seed = 3});
  // Where the run fits the trace, it does not wrap.
  const int32_t begins = num_steps > kSteps ? num_steps - kSteps : num_steps;
  int32_t found = 0;
  for (int32_t begin = 0; begin < begins; ++begin) {
    found += BeginsAt(begin, got.trace, trace, scale);
  }
  CHECK(found == 1);
  HitCounts replayed;
  for (const HitCounts& layer : ReplayLayers(got.trace, Policy::kBucketed, got.num_slots, 0)) {
    replayed += layer;
  }
  CHECK(replayed.hits == static_cast<int64_t>(got.counters.hits));
  CHECK(replayed.misses == static_cast<int64_t>(got.counters.misses));
}

TEST_CASE("a trace of another amount or of a longer context is refused") {
  TraceHeader header = {.num_layers = 1,
                        .num_kv_heads = 1,
                        .page_tokens = 16,
                        .budget_pages = 6,
                        .fixed_pages = 2,
                        .prompt_tokens = 300,
                        .num_steps = 20};
  const SelectionTrace trace = RandomTrace(header, 42);
  const auto message = [&](int32_t context) {
    auto plan = PlanModel(Config());
    REQUIRE(plan.ok());
    return MessageOf(Wrap(*plan, trace, {.context_tokens = context}));
  };
  CHECK(message(640) == "");
  CHECK(message(319) == "a context of 319 tokens has fewer pages than the 20 of the trace");
  CHECK(message(320) ==
        "the trace selects 6 of 20 pages, hence 6 of a context of 320 tokens; sparse.budget_tokens "
        "selects 12: set it to 96");
}

TEST_CASE("random selections have their size, their fixed pages and no memory") {
  const TraceHeader header = {.num_layers = 2,
                              .num_kv_heads = 2,
                              .page_tokens = 16,
                              .budget_pages = 100,
                              .fixed_pages = 2,
                              .prompt_tokens = 15000,
                              .num_steps = 64};
  const SelectionTrace trace = RandomSelections(header, 1);
  REQUIRE(trace.complete());
  int64_t shared = 0;
  for (int32_t step = 0; step < header.num_steps; ++step) {
    const auto ids = trace.stream(1, 1).At(step);
    REQUIRE(ids.size() == 100);
    REQUIRE(ids.front() == 0);
    if (step == 0) continue;
    for (const int32_t id : ids) {
      shared += std::ranges::binary_search(trace.stream(1, 1).At(step - 1), id);
    }
  }
  // Page 0, the tail, and 98 * 98 / 937 of the others.
  const double mean = static_cast<double>(shared) / 63;
  CHECK(mean > 11);
  CHECK(mean < 13.5);
  CHECK(RandomSelections(header, 1).Encode() == trace.Encode());
  CHECK(RandomSelections(header, 2).Encode() != trace.Encode());
}

}  // namespace
}  // namespace spin::trace
