// What a request cost and was served from: told with its last output when asked, and true whatever the schedule did.
#include "engine/request_summary.h"

#include <catch2/catch.hpp>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "tests/testing/engine_harness.h"

namespace spin {
namespace {

constexpr int64_t kPageBytes = 2 * 16 * 64 * 2;

Request Asking(EngineHarness& h, int32_t prompt_tokens, int32_t max_tokens, uint64_t seed = 1) {
  Request request = h.MakeRequest(prompt_tokens, max_tokens, seed);
  request.wants_summary = true;
  return request;
}

// What the fake device counts while the sequence grows from `begin` to `end` tokens.
RetrieveCounters Counts(int64_t begin, int64_t end) {
  RetrieveCounters sum;
  for (int64_t length = begin + 1; length <= end; ++length) sum += FakeCounts(length);
  return sum;
}

// Of the counter spin:`name`.
int64_t Metric(const EngineHarness& h, const std::string& name) {
  const std::string text = h.metrics.PrometheusText();
  const std::string line = "\nspin:" + name + " ";
  const auto at = text.find(line);
  REQUIRE(at != std::string::npos);
  return std::stoll(text.substr(at + line.size()));
}

HarnessOptions Tiered() {
  HarnessOptions options = DefaultHarness();
  options.sparse = true;
  options.placement = PlacementPolicy::kTiered;
  options.host_extents = 2 * 64;
  return options;
}

TEST_CASE("a Resident request tells its times and its length; nothing was looked up") {
  EngineHarness h(DefaultHarness());
  const auto silent = h.Submit(h.MakeRequest(100, 8));
  const auto sink = h.Submit(Asking(h, 100, 8));
  h.fake_clock.AdvanceNs(7'000'000);
  h.RunUntilIdle();
  CHECK_FALSE(silent->summary.has_value());
  REQUIRE(sink->summary.has_value());
  const RequestSummary& s = *sink->summary;
  CHECK(s.queue_ns == 7'000'000);
  CHECK(s.prefill_ns > 0);
  CHECK(s.decode_ns >= 7 * 500'000);
  CHECK(s.placement == Placement::kResident);
  CHECK(s.demotions == 0);
  CHECK(s.context_tokens == 108);
  CHECK(s.steps == 7);
  CHECK(s.attended_tokens_a_step() == 104);  // 101 .. 107
  CHECK_FALSE(s.hit_ratio().has_value());
  CHECK(s.fetched_bytes == 0);
}

TEST_CASE("a Tiered request tells what its own steps found, on a row that others had before") {
  EngineHarness h(Tiered());
  h.Submit(h.MakeRequest(300, 20, 9));
  h.RunUntilIdle();
  const auto sink = h.Submit(Asking(h, 1000, 40));
  const auto other = h.Submit(h.MakeRequest(500, 40, 3));
  h.RunUntilIdle();
  REQUIRE(sink->summary.has_value());
  const RequestSummary& s = *sink->summary;
  CHECK(s.placement == Placement::kTiered);
  CHECK(s.demotions == 0);
  CHECK(s.steps == 39);
  const RetrieveCounters want = Counts(1000, 1039);
  CHECK(s.retrieved == want);
  CHECK(s.hit_ratio() ==
        static_cast<double>(want.hits) / static_cast<double>(want.hits + want.misses));
  CHECK(s.fetched_bytes == static_cast<int64_t>(want.misses) * kPageBytes);
  // 8 pages of 16 tokens, the last one as full as it is, but for what was spared: of 2 layers, a head each.
  double attended = 0;
  for (int32_t length = 1001; length <= 1039; ++length) attended += 7 * 16 + (length - 1) % 16 + 1;
  CHECK(s.attended_tokens == attended - 16 * static_cast<double>(want.spared) / 2);
}

TEST_CASE("bytes that steps attended to are those of their lengths, less what was spared") {
  EngineHarness h(Tiered());
  h.Submit(h.MakeRequest(1000, 40));
  h.Submit(h.MakeRequest(300, 40, 3));
  h.RunUntilIdle();
  int64_t bytes = 0;
  for (int32_t step = 1; step < 40; ++step) {
    for (const int32_t length : {1000 + step, 300 + step}) {
      bytes += 2 * (7 * 16 + (length - 1) % 16 + 1) * (kPageBytes / 16);
      bytes -= static_cast<int64_t>(FakeCounts(length).spared) * kPageBytes;
    }
  }
  CHECK(Metric(h, "attention_bytes_total") == bytes);
}

TEST_CASE("what goes to the host is counted for Tiered sequences, by prefill and by step") {
  constexpr int64_t kTokenBytes = 2 * kPageBytes / 16;  // of two layers
  EngineHarness resident(DefaultHarness());
  resident.Submit(resident.MakeRequest(1000, 40));
  resident.RunUntilIdle();
  CHECK(Metric(resident, "offload_bytes_total") == 0);
  EngineHarness h(Tiered());
  Request forked = h.MakeRequest(300, 20);
  forked.sampling.n = 3;  // its prompt is prefilled once
  h.Submit(h.MakeRequest(1000, 40));
  h.Submit(forked);
  h.RunUntilIdle();
  CHECK(h.executor.decoded_rows() == 39 + 3 * 19);
  CHECK(Metric(h, "offload_bytes_total") == (1000 + 300 + 39 + 3 * 19) * kTokenBytes);
  CHECK(Metric(h, "spill_bytes_total") == 0);
}

TEST_CASE("demotions copy whole extents, each once; what is stored later goes through") {
  constexpr int64_t kExtentBytes = 32 * kPageBytes;
  HarnessOptions options = Tiered();
  options.placement = PlacementPolicy::kAuto;
  options.slot_extents = 2 * 3;
  EngineHarness h(options);
  const auto sink = h.Submit(h.MakeRequest(1100, 300));
  while (sink->num_outputs < 5) h.Steps(1);
  h.Submit(h.MakeRequest(1000, 100, 2));
  h.RunUntilIdle();
  CHECK(Metric(h, "demotions_total") == 1);
  CHECK(Metric(h, "spill_bytes_total") == 2 * 3 * kExtentBytes);  // 1,100 tokens a layer
  // The second is Tiered from its start, the first since some of its steps.
  const int64_t tokens = Metric(h, "offload_bytes_total") / (2 * kPageBytes / 16);
  CHECK(tokens > 1000 + 99);
  CHECK(tokens < 1000 + 99 + 300 - 5);
}

TEST_CASE("the step in flight when a sequence stops counts for nothing") {
  EngineHarness h(Tiered());
  Request request = Asking(h, 1000, 50);
  request.sampling.stop_token_ids = {h.Expected(request, 0).tokens[5]};
  const auto sink = h.Submit(request);
  h.RunUntilIdle();
  const auto tokens = static_cast<int64_t>(sink->sequences[0].tokens.size());
  REQUIRE(tokens < 50);
  CHECK(h.executor.decoded_rows() == tokens);
  REQUIRE(sink->summary.has_value());
  CHECK(sink->summary->steps == tokens - 1);
  CHECK(sink->summary->retrieved == Counts(1000, 1000 + tokens - 1));
}

TEST_CASE("all sequences of a request are summed up") {
  EngineHarness h(Tiered());
  Request request = Asking(h, 600, 10);
  request.sampling.n = 3;
  const auto sink = h.Submit(request);
  h.RunUntilIdle();
  REQUIRE(sink->summary.has_value());
  CHECK(sink->summary->steps == 3 * 9);
  CHECK(sink->summary->context_tokens == 610);
  CHECK(sink->summary->retrieved.hits == 3 * Counts(600, 609).hits);
}

TEST_CASE("a demotion on the way is told, and what was looked up since") {
  HarnessOptions options = Tiered();
  options.placement = PlacementPolicy::kAuto;
  options.slot_extents = 2 * 3;  // what it takes itself
  EngineHarness h(options);
  const auto sink = h.Submit(Asking(h, 1100, 300));
  while (sink->num_outputs < 5) h.Steps(1);
  h.Submit(h.MakeRequest(1000, 100, 2));
  h.RunUntilIdle();
  REQUIRE(sink->summary.has_value());
  const RequestSummary& s = *sink->summary;
  CHECK(s.placement == Placement::kTiered);
  CHECK(s.demotions == 1);
  CHECK(s.steps == 299);
  CHECK(s.retrieved.hits > 0);
  CHECK(s.retrieved.hits < Counts(1100, 1399).hits);
}

TEST_CASE("preempted and prefilled again, a sequence counts each of its steps once") {
  HarnessOptions options = Tiered();
  options.max_model_len = options.engine.max_model_len = 2048;
  options.slot_extents = 2 * 3;
  options.host_extents = 2 * 9;
  EngineHarness h(options);
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (uint64_t i = 0; i < 4; ++i) {
    Request request = Asking(h, 600 + 30 * static_cast<int32_t>(i), 0, i);
    request.sampling.max_tokens.reset();
    sinks.push_back(h.Submit(request));
  }
  h.RunUntilIdle();
  RetrieveCounters total;
  int64_t steps = 0;
  for (const auto& sink : sinks) {
    REQUIRE(sink->summary.has_value());
    total += sink->summary->retrieved;
    steps += sink->summary->steps;
  }
  CHECK(h.executor.num_prefills() > 4);
  CHECK(steps == h.executor.decoded_rows());
  CHECK(total == h.executor.total_counts());
}

TEST_CASE("a scored prompt has no steps; a cancelled or failed request no summary") {
  EngineHarness h(DefaultHarness());
  Request scored = Asking(h, 50, 0);
  scored.sampling.prompt_logprobs = 1;
  const auto scores = h.Submit(scored);
  const Request cancelled = Asking(h, 50, 1000, 2);
  const auto sink = h.Submit(cancelled);
  h.Steps(5);
  h.engine.Cancel(cancelled.id);
  h.RunUntilIdle();
  CHECK_FALSE(sink->summary.has_value());
  REQUIRE(scores->summary.has_value());
  CHECK(scores->summary->steps == 0);
  CHECK(scores->summary->decode_ns == 0);
  CHECK(scores->summary->prefill_ns > 0);
  CHECK_FALSE(scores->summary->attended_tokens_a_step().has_value());
}

TEST_CASE("requests of one answer: counts add up, times and lengths are the longest") {
  RequestSummary a = {.queue_ns = 1,
                      .prefill_ns = 20,
                      .decode_ns = 3,
                      .placement = Placement::kTiered,
                      .demotions = 1,
                      .context_tokens = 10,
                      .steps = 2,
                      .attended_tokens = 30,
                      .retrieved = {.hits = 3, .misses = 1, .evictions = 1},
                      .fetched_bytes = 5};
  a.Merge({.queue_ns = 2,
           .prefill_ns = 10,
           .decode_ns = 4,
           .placement = Placement::kResident,
           .demotions = 2,
           .context_tokens = 20,
           .steps = 1,
           .attended_tokens = 60,
           .retrieved = {.hits = 3, .misses = 1, .evictions = 0},
           .fetched_bytes = 6});
  CHECK((a.queue_ns == 2 && a.prefill_ns == 20 && a.decode_ns == 4));
  CHECK(a.placement == Placement::kTiered);
  CHECK(a.demotions == 3);
  CHECK(a.context_tokens == 20);
  CHECK(a.attended_tokens_a_step() == 30);
  CHECK(a.hit_ratio() == 0.75);
  CHECK(a.fetched_bytes == 11);
}

}  // namespace
}  // namespace spin
