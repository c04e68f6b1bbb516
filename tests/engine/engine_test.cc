// The engine pass by pass on a fake device: what clients see, and what is given back.
#include "engine/engine.h"

#include <catch2/catch.hpp>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/testing/engine_harness.h"

namespace spin {
namespace {

void CheckAllGivenBack(EngineHarness& h) {
  const KvUsage usage = h.memory.usage();
  CHECK(usage.slot_extents == 0);
  CHECK(usage.host_extents == 0);
  const EngineSnapshot snapshot = h.engine.snapshot();
  CHECK(snapshot.running == 0);
  CHECK(snapshot.waiting == 0);
  CHECK(snapshot.preempted == 0);
}

TEST_CASE("each token is streamed once, and the last output says that it is the last") {
  EngineHarness h(DefaultHarness());
  const Request request = h.MakeRequest(100, 8);
  const auto sink = h.Submit(request);
  h.RunUntilIdle();
  CHECK(h.Matches(request, *sink));
  CHECK(sink->sequences[0].tokens.size() == 8);
  CHECK(sink->num_outputs == 8);
  CheckAllGivenBack(h);
}

TEST_CASE("a predictable end costs no extra step") {
  EngineHarness h(DefaultHarness());
  h.Submit(h.MakeRequest(10, 5));
  h.RunUntilIdle();
  CHECK(h.executor.decoded_rows() == 4);  // the first token comes from the prefill
}

TEST_CASE("a sequence that stops has one more step in flight, and its token is dropped") {
  EngineHarness h(DefaultHarness());
  Request request = h.MakeRequest(10, 50);
  request.sampling.stop_token_ids = {h.Expected(request, 0).tokens[5]};
  const auto sink = h.Submit(request);
  h.RunUntilIdle();
  CHECK(h.Matches(request, *sink));
  CHECK(sink->sequences[0].finish == FinishReason::kStop);
  const auto steps = static_cast<int64_t>(sink->sequences[0].tokens.size()) - 1;
  CHECK(h.executor.decoded_rows() == steps + 1);
  CheckAllGivenBack(h);
}

TEST_CASE("requests that arrive together share prefill batches and decode together") {
  EngineHarness h(DefaultHarness());
  std::vector<Request> requests;
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (uint64_t i = 0; i < 10; ++i) {
    requests.push_back(h.MakeRequest(200, 20, i + 1));
    sinks.push_back(h.Submit(requests.back()));
  }
  h.RunUntilIdle();
  for (std::size_t i = 0; i < requests.size(); ++i) CHECK(h.Matches(requests[i], *sinks[i]));
  CHECK(h.executor.num_prefills() == 2);  // 1024 tokens a batch
  CheckAllGivenBack(h);
}

TEST_CASE("a prompt longer than a batch is prefilled alone") {
  EngineHarness h(DefaultHarness());
  const Request big = h.MakeRequest(3000, 4, 1);
  const Request small = h.MakeRequest(10, 4, 2);
  const auto big_sink = h.Submit(big);
  const auto small_sink = h.Submit(small);
  h.RunUntilIdle();
  CHECK(h.Matches(big, *big_sink));
  CHECK(h.Matches(small, *small_sink));
  CHECK(h.executor.num_prefills() == 2);
}

TEST_CASE("without max_tokens a sequence runs to the end of the context, growing as it goes") {
  EngineHarness h(DefaultHarness());
  const Request request = h.MakeRequest(2000, std::nullopt);
  const auto sink = h.Submit(request);
  h.RunUntilIdle();
  CHECK(h.Matches(request, *sink));
  CHECK(sink->sequences[0].tokens.size() == 4096 - 2000);
  CHECK(sink->sequences[0].finish == FinishReason::kLength);
}

TEST_CASE("a full queue refuses at once, and a cancelled request makes room") {
  HarnessOptions options = DefaultHarness();
  options.engine.max_queue = 2;
  EngineHarness h(options);
  const Request first = h.MakeRequest(10, 4);
  h.Submit(first);
  h.Submit(h.MakeRequest(10, 4));
  Request third = h.MakeRequest(10, 4);
  third.sink = std::make_shared<RecordingSink>(1);
  CHECK(h.engine.Submit(third).code() == absl::StatusCode::kResourceExhausted);
  h.engine.Cancel(first.id);
  h.engine.Step();
  third.id = h.engine.NextRequestId();
  CHECK(h.engine.Submit(third).ok());
  h.RunUntilIdle();
}

TEST_CASE("what exceeds the context is refused with the sentence that clients know") {
  EngineHarness h(DefaultHarness());
  const auto error_of = [&](int32_t prompt, std::optional<int32_t> max_tokens) {
    Request request = h.MakeRequest(prompt, max_tokens);
    request.sink = std::make_shared<RecordingSink>(1);
    return h.engine.Submit(request);
  };
  const absl::Status status = error_of(4000, 100);
  CHECK(status.code() == absl::StatusCode::kOutOfRange);
  CHECK(MessageOf(status) ==
        "This model's maximum context length is 4096 tokens. However, you requested 4100 tokens "
        "(4000 in the prompt, 100 in the completion). Please reduce the length of the prompt or "
        "completion.");
  CHECK(error_of(4000, 96).ok());
  CHECK(error_of(4095, std::nullopt).ok());
  CHECK(error_of(4096, std::nullopt).code() == absl::StatusCode::kOutOfRange);
  CHECK(error_of(5000, std::nullopt).code() == absl::StatusCode::kOutOfRange);
  h.RunUntilIdle();
}

TEST_CASE("what is wrong with a request is an InvalidArgument") {
  HarnessOptions options = DefaultHarness();
  options.has_tokenizer = false;
  EngineHarness h(options);
  const auto refused = [&](const std::function<void(Request&)>& change, const std::string& field) {
    Request request = h.MakeRequest(10, 4);
    change(request);
    request.sink = std::make_shared<RecordingSink>(1);
    const absl::Status status = h.engine.Submit(request);
    INFO(status.ToString());
    CHECK(status.code() == absl::StatusCode::kInvalidArgument);
    CHECK(MessageOf(status).rfind(field + ":", 0) == 0);
  };
  refused([](Request& r) { r.prompt.clear(); }, "prompt");
  refused([](Request& r) { r.prompt[3] = 1000; }, "prompt");
  refused([](Request& r) { r.prompt[3] = -1; }, "prompt");
  refused([](Request& r) { r.sampling.temperature = 9; }, "temperature");
  refused([](Request& r) { r.sampling.n = 17; }, "n");
  refused([](Request& r) { r.sampling.stop = {"x"}; }, "stop");
  refused([](Request& r) { r.sampling.stop_token_ids.assign(32, 1); }, "stop_token_ids");
  CHECK_FALSE(h.engine.Step());
}

TEST_CASE(
    "a budget of its own reaches the device with each of its rows, also when it starts again") {
  HarnessOptions options = DefaultHarness();
  options.sparse = true;  // pages of 16; 8 selected, 2 of them fixed
  EngineHarness h(options);
  Request request = h.MakeRequest(100, 20);
  request.sampling.n = 2;
  request.sparse.budget_tokens = 64;
  const auto sink = h.Submit(request);
  const auto other = h.Submit(h.MakeRequest(100, 20, 3));
  h.Steps(4);
  CHECK(h.executor.budget(RowId{0}) == 4);
  CHECK(h.executor.budget(RowId{1}) == 4);
  CHECK(h.executor.budget(RowId{2}) == 0);
  h.RunUntilIdle();
  CHECK(h.Matches(request, *sink));

  const auto refuse = [&](auto change) {
    Request bad = h.MakeRequest(100, 20);
    bad.sink = std::make_shared<RecordingSink>(1);
    change(bad.sparse);
    return h.engine.Submit(bad);
  };
  const absl::Status too_much = refuse([](SparseRequest& s) { s.budget_tokens = 144; });
  CHECK(absl::IsInvalidArgument(too_much));
  CHECK(MessageOf(too_much) ==
        "sparse: budget_tokens must be between 48 and 128 (sparse.max_budget_tokens), not 144");
  CHECK(refuse([](SparseRequest& s) { s.exact = true; }).ok());  // 120 tokens
  Request exact = h.MakeRequest(110, 20);
  exact.sink = std::make_shared<RecordingSink>(1);
  exact.sparse.exact = true;
  CHECK(absl::IsInvalidArgument(h.engine.Submit(exact)));
  h.RunUntilIdle();
}

TEST_CASE("what can never fit into memory is refused as such") {
  HarnessOptions options = DefaultHarness();
  options.slot_extents = 4;  // 1024 tokens of two layers
  EngineHarness h(options);
  Request request = h.MakeRequest(1000, 100);
  request.sink = std::make_shared<RecordingSink>(1);
  CHECK(h.engine.Submit(request).code() == absl::StatusCode::kFailedPrecondition);
  const Request fits = h.MakeRequest(1000, 24);
  const auto sink = h.Submit(fits);
  h.RunUntilIdle();
  CHECK(h.Matches(fits, *sink));
}

TEST_CASE("a cancelled request is heard no more and everything of it is given back") {
  EngineHarness h(DefaultHarness());
  const Request request = h.MakeRequest(100, 1000);
  const Request other = h.MakeRequest(100, 30, 2);
  const auto sink = h.Submit(request);
  const auto other_sink = h.Submit(other);
  SECTION("while it waits") {}
  SECTION("while it is prefilled") {
    h.Steps(2);
  }
  SECTION("while it runs") {
    h.Steps(20);
  }
  const auto heard = sink->num_outputs;
  h.engine.Cancel(request.id);
  h.Steps(1);
  h.engine.Cancel(request.id);  // again: nothing
  h.RunUntilIdle();
  CHECK(sink->num_outputs == heard);
  CHECK_FALSE(sink->finished);
  CHECK(h.Matches(other, *other_sink));
  CheckAllGivenBack(h);
}

TEST_CASE("a prefill whose requests are all cancelled is dropped within a pass") {
  EngineHarness h(DefaultHarness());
  const Request request = h.MakeRequest(3000, 10);
  h.Submit(request);
  h.Steps(2);
  CHECK(h.executor.prefill_active());
  h.engine.Cancel(request.id);
  h.Steps(1);
  CHECK(h.executor.num_cancelled_prefills() == 1);
  CHECK(h.memory.usage().slot_extents == 0);
  h.RunUntilIdle();
  CheckAllGivenBack(h);
}

TEST_CASE("a sink that refuses cancels its request") {
  EngineHarness h(DefaultHarness());
  const Request request = h.MakeRequest(10, 1000);
  const auto sink = h.Submit(request, /*refuse_at=*/3);
  h.RunUntilIdle();
  CHECK(sink->num_outputs == 4);
  CHECK(h.executor.decoded_rows() < 10);
  CheckAllGivenBack(h);
}

TEST_CASE("n sequences share one prefill, differ by seed, and the first is that of n = 1") {
  EngineHarness h(DefaultHarness());
  Request request = h.MakeRequest(700, 20);
  const SequenceRecord alone = h.Expected(request, 0);
  request.sampling.n = 4;
  const auto sink = h.Submit(request);
  h.RunUntilIdle();
  CHECK(h.Matches(request, *sink));
  CHECK(h.executor.num_prefills() == 1);
  CHECK(sink->sequences[0].tokens == alone.tokens);
  CHECK(sink->sequences[1].tokens != alone.tokens);
  CHECK(sink->sequences[1].tokens != sink->sequences[2].tokens);
  CheckAllGivenBack(h);
}

TEST_CASE("n greedy sequences are copies") {
  EngineHarness h(DefaultHarness());
  Request request = h.MakeRequest(30, 10);
  request.sampling.n = 3;
  request.sampling.temperature = 0;
  const auto sink = h.Submit(request);
  h.RunUntilIdle();
  CHECK(h.Matches(request, *sink));
  CHECK(sink->sequences[1].tokens == sink->sequences[0].tokens);
}

TEST_CASE("scoring a prompt samples nothing and delivers its log-probabilities") {
  EngineHarness h(DefaultHarness());
  Request request = h.MakeRequest(50, 0);
  request.sampling.prompt_logprobs = 1;
  const Request other = h.MakeRequest(50, 5, 2);
  const auto sink = h.Submit(request);
  const auto other_sink = h.Submit(other);
  h.RunUntilIdle();
  CHECK(sink->finished);
  CHECK(sink->sequences[0].finish == FinishReason::kLength);
  CHECK(sink->sequences[0].tokens.empty());
  REQUIRE(sink->prompt_logprobs.size() == 49);
  CHECK(sink->prompt_logprobs[0].token == request.prompt[1]);
  CHECK(other_sink->prompt_logprobs.empty());
  CHECK(h.Matches(other, *other_sink));
  CheckAllGivenBack(h);
}

TEST_CASE("a short prompt passes a long one in the queue") {
  HarnessOptions options = DefaultHarness();
  options.engine.max_num_seqs = 1;
  EngineHarness h(options);
  h.Submit(h.MakeRequest(10, 10));
  h.Steps(1);
  const auto long_sink = h.Submit(h.MakeRequest(3000, 2));
  const auto short_sink = h.Submit(h.MakeRequest(10, 2));
  while (!short_sink->finished) h.Steps(1);
  CHECK_FALSE(long_sink->finished);
  h.RunUntilIdle();
  CHECK(long_sink->finished);
}

TEST_CASE("a higher priority goes first and takes the seat of a lower one") {
  HarnessOptions options = DefaultHarness();
  options.engine.max_num_seqs = 1;
  options.engine.policy = SchedulePolicy::kPriority;
  EngineHarness h(options);
  Request low = h.MakeRequest(10, 200, 1);
  low.priority = 5;
  const auto low_sink = h.Submit(low);
  h.Steps(10);
  const Request high = h.MakeRequest(10, 20, 2);
  const auto high_sink = h.Submit(high);
  while (!high_sink->finished) h.Steps(1);
  CHECK_FALSE(low_sink->finished);
  CHECK(h.engine.snapshot().preempted <= 1);
  h.RunUntilIdle();
  CHECK(h.Matches(low, *low_sink));
  CHECK(h.Matches(high, *high_sink));
  CHECK(h.executor.num_prefills() == 3);
}

TEST_CASE("prefill work between decode steps stays within the stall bound") {
  HarnessOptions options = DefaultHarness();
  options.engine.max_decode_stall_ms = 5;  // five full tiles
  EngineHarness h(options);
  h.Submit(h.MakeRequest(10, 300, 1));
  h.Steps(5);
  // The tiles of the short prompt were short: what they took says little of the long one's.
  const auto sink = h.Submit(h.MakeRequest(3000, 2, 2));
  h.RunUntilIdle();
  CHECK(sink->finished);
  CHECK(h.executor.longest_prefill_beside_decode_ns() <= 5'000'000);
  CHECK(h.executor.longest_prefill_beside_decode_ns() >= 4'000'000);
}

TEST_CASE("metrics count what happened, under both names") {
  EngineHarness h(DefaultHarness());
  h.Submit(h.MakeRequest(100, 8));
  const Request cancelled = h.MakeRequest(50, 1000);
  h.Submit(cancelled);
  h.Steps(10);
  h.engine.Cancel(cancelled.id);
  h.RunUntilIdle();
  const std::string text = h.metrics.PrometheusText();
  const auto has = [&](const std::string& line) {
    INFO(line);
    CHECK(text.find("\n" + line + "\n") != std::string::npos);
  };
  has("spin:prompt_tokens_total 150");
  has("vllm:prompt_tokens_total 150");
  has("vllm:request_success_total{finished_reason=\"length\"} 1");
  has("vllm:request_success_total{finished_reason=\"abort\"} 1");
  has("vllm:time_to_first_token_seconds_count 2");
  has("vllm:e2e_request_latency_seconds_count 1");
  has("vllm:request_generation_tokens_sum 8");
  has("vllm:num_requests_running 0");
  has("vllm:gpu_cache_usage_perc 0");
  has("spin:sequence_tokens{placement=\"resident\"} 0");
  has("spin:tiered_slots{use=\"mandatory\"} 0");
  has("spin:select_bytes_total 0");  // dense
  CHECK(text.find("# TYPE vllm:time_per_output_token_seconds histogram\n") != std::string::npos);
}

TEST_CASE("what does not depend on the batch: alone, together, and again give the same tokens") {
  std::vector<SequenceRecord> alone;
  for (uint64_t i = 0; i < 6; ++i) {
    EngineHarness h(DefaultHarness());
    const Request request = h.MakeRequest(50 + static_cast<int32_t>(i), 30, i);
    const auto sink = h.Submit(request);
    h.RunUntilIdle();
    alone.push_back(sink->sequences[0]);
  }
  EngineHarness h(DefaultHarness());
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (uint64_t i = 0; i < 6; ++i) {
    sinks.push_back(h.Submit(h.MakeRequest(50 + static_cast<int32_t>(i), 30, i)));
    h.Steps(static_cast<int>(i));
  }
  h.RunUntilIdle();
  for (std::size_t i = 0; i < 6; ++i) CHECK(sinks[i]->sequences[0].tokens == alone[i].tokens);
}

}  // namespace
}  // namespace spin
