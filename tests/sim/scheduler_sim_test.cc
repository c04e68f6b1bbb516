// Seeded simulation of the whole engine on a fake clock and device, over the real KvCacheManager:
// random arrivals, lengths, n, stops, cancellations, priorities and clients that go away, over
// several memory sizes; copies of demotions pass after a random number of passes. After each step
// all invariants hold; at the end every request has finished with the output that it must have,
// whatever happened around it, or was cancelled; and none waited beyond a bound.
#include <catch2/catch.hpp>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/random.h"
#include "tests/testing/engine_harness.h"

namespace spin {
namespace {

struct World {
  std::string name;
  SchedulePolicy policy = SchedulePolicy::kFcfs;
  PlacementPolicy placement = PlacementPolicy::kAuto;
  bool sparse = false;
  int32_t slot_extents = 0;
  int32_t host_extents = 0;
  int32_t max_num_seqs = 12;
  bool lends = false;  // slots are often free, and then needed
};

HarnessOptions OptionsOf(const World& world) {
  HarnessOptions options = DefaultHarness();
  options.engine.policy = world.policy;
  options.engine.max_num_seqs = world.max_num_seqs;
  options.engine.max_queue = 24;
  options.engine.max_batched_tokens = 600;
  options.engine.max_decode_stall_ms = 4;
  options.max_model_len = 1536;
  options.engine.max_model_len = 1536;
  options.max_prefill_tokens = 1536;
  options.vocab_size = 400;
  options.reserve_step_tokens = 64;
  options.sparse = world.sparse;
  options.placement = world.placement;
  options.slot_extents = world.slot_extents;
  options.host_extents = world.host_extents;
  return options;
}

struct Client {
  Request request;
  std::shared_ptr<RecordingSink> sink;
  int64_t submitted_step = 0;
  int64_t cancel_step = -1;
  bool cancelled = false;
};

class Simulation {
 public:
  Simulation(const World& world, uint64_t seed)
      : world_(world), random_(seed), harness_(OptionsOf(world)) {}

  void Run(int64_t steps) {
    for (step_ = 0; step_ < steps; ++step_) {
      if (random_.Below(100) < 6) Arrive();
      if (clients_.empty()) harness_.fake_clock.AdvanceNs(1'000'000);
      CancelSome();
      harness_.engine.Step();
      harness_.engine.CheckInvariants();
      RetireFinished();
    }
    harness_.RunUntilIdle(1'000'000);
    step_ += 1;
    RetireFinished();
    CHECK(clients_.empty());
    CHECK(harness_.memory.usage().slot_extents == 0);
    CHECK(harness_.memory.usage().host_extents == 0);
  }

  int64_t finished = 0, cancelled = 0, refused = 0, exhausted = 0;
  int64_t longest = 0;  // steps that a request took
  int64_t demotions() const { return harness_.memory.usage().demotions; }
  int64_t handed_out() const { return harness_.memory.usage().handed_out_extents; }
  int64_t reclaimed() const { return harness_.memory.usage().reclaimed_extents; }
  int64_t spills() const { return harness_.executor.num_spills(); }
  int64_t decoded_beside_spills() const { return harness_.executor.decoded_beside_spills(); }
  int64_t preemptions() const {
    const std::string text = harness_.metrics.PrometheusText();
    const std::string name = "\nspin:num_preemptions_total ";
    return std::atoll(text.c_str() + text.find(name) + name.size());
  }

 private:
  int32_t Pick(int32_t lo, int32_t hi) { return static_cast<int32_t>(random_.Between(lo, hi)); }

  Request RandomRequest() {
    const uint32_t shape = random_.Below(10);
    const int32_t prompt = shape < 7 ? Pick(1, 120) : shape < 9 ? Pick(100, 600) : Pick(600, 1400);
    Request request = harness_.MakeRequest(prompt, std::nullopt, random_.NextU64());
    SamplingParams& sampling = request.sampling;
    const int32_t room = 1536 - prompt;
    if (random_.Below(3) != 0) sampling.max_tokens = Pick(1, std::min(room, 150));
    sampling.ignore_eos = random_.Below(sampling.max_tokens.has_value() ? 2 : 3) == 0;
    if (random_.Below(8) == 0) sampling.n = Pick(2, 4);
    if (random_.Below(6) == 0) sampling.stop_token_ids = {Pick(0, 199), Pick(0, 199)};
    if (random_.Below(6) == 0) {
      sampling.stop = {std::to_string(Pick(1, 19)) + " 1", std::to_string(Pick(100, 199))};
    }
    if (random_.Below(6) == 0) sampling.min_tokens = Pick(0, sampling.max_tokens.value_or(40));
    if (random_.Below(4) == 0) sampling.temperature = 0;
    if (random_.Below(8) == 0) sampling.prompt_logprobs = 0;
    if (sampling.prompt_logprobs.has_value() && random_.Below(2) == 0) {
      sampling.max_tokens = 0;
      sampling.min_tokens = 0;
    }
    if (random_.Below(10) == 0) sampling.seed.reset();
    request.priority = Pick(0, 3);
    return request;
  }

  void Arrive() {
    // Bursts fill the queue and the batch.
    const int count = random_.Below(12) == 0 ? 8 : 1;
    for (int i = 0; i < count; ++i) {
      Client client;
      client.request = RandomRequest();
      const int64_t refuse_at = random_.Below(25) == 0 ? Pick(0, 10) : -1;
      client.sink = std::make_shared<RecordingSink>(client.request.sampling.n, refuse_at);
      Request request = client.request;
      request.sink = client.sink;
      const absl::Status status = harness_.engine.Submit(std::move(request));
      if (!status.ok()) {
        REQUIRE((status.code() == absl::StatusCode::kResourceExhausted ||
                 status.code() == absl::StatusCode::kFailedPrecondition));
        ++refused;
        continue;
      }
      client.submitted_step = step_;
      if (random_.Below(8) == 0) client.cancel_step = step_ + Pick(0, 120);
      clients_.emplace(client.request.id, std::move(client));
    }
  }

  void CancelSome() {
    for (auto& [id, client] : clients_) {
      if (client.cancel_step != step_) continue;
      harness_.engine.Cancel(id);
      client.cancelled = true;
    }
  }

  void RetireFinished() {
    for (auto it = clients_.begin(); it != clients_.end();) {
      const Client& client = it->second;
      if (!client.sink->finished && !client.cancelled && !client.sink->refused) {
        ++it;
        continue;
      }
      longest = std::max(longest, step_ - client.submitted_step);
      if (client.sink->finished) {
        ++finished;
        CheckOutput(client);
      } else {
        ++cancelled;
        CheckPrefix(client);
      }
      it = clients_.erase(it);
    }
  }

  // Exactly the expected output; or, where memory alone has less room than the context, its begin.
  void CheckOutput(const Client& client) {
    INFO(world_.name << ", request " << client.request.id << ", prompt of "
                     << client.request.prompt.size());
    REQUIRE(client.sink->error.ok());
    if (harness_.Matches(client.request, *client.sink)) return;
    REQUIRE_FALSE(client.request.sampling.max_tokens.has_value());
    CheckPrefix(client);
    for (const SequenceRecord& sequence : client.sink->sequences) {
      const auto tokens = client.request.prompt.size() + sequence.tokens.size();
      const bool full = tokens > static_cast<std::size_t>(MemoryTokens());
      REQUIRE((full || sequence.finish == FinishReason::kStop));
    }
    ++exhausted;
  }

  int32_t MemoryTokens() const {
    const int32_t extents =
        world_.sparse ? std::max(world_.slot_extents, world_.host_extents) : world_.slot_extents;
    return extents / 2 * 512;
  }

  void CheckPrefix(const Client& client) {
    for (int32_t i = 0; i < client.request.sampling.n; ++i) {
      const auto& tokens = client.sink->sequences[static_cast<std::size_t>(i)].tokens;
      std::vector<int32_t> expected = harness_.Expected(client.request, i).tokens;
      REQUIRE(tokens.size() <= expected.size());
      expected.resize(tokens.size());
      REQUIRE(tokens == expected);
    }
  }

  const World world_;
  Random random_;
  EngineHarness harness_;
  std::map<RequestId, Client> clients_;
  int64_t step_ = 0;
};

const World kWorlds[] = {
    {.name = "ample", .slot_extents = 2 * 40},
    {.name = "tight resident", .slot_extents = 2 * 6},
    {.name = "less than a context", .slot_extents = 2 * 2},
    {.name = "priorities, tight", .policy = SchedulePolicy::kPriority, .slot_extents = 2 * 6},
    {.name = "two tiers", .sparse = true, .slot_extents = 2 * 6, .host_extents = 2 * 8},
    {.name = "two tiers, priorities",
     .policy = SchedulePolicy::kPriority,
     .sparse = true,
     .slot_extents = 2 * 10,
     .host_extents = 2 * 30},
    {.name = "tiered, slots short",
     .placement = PlacementPolicy::kTiered,
     .sparse = true,
     .slot_extents = 2 * 4,
     .host_extents = 2 * 30},
    {.name = "tiered, every page mandatory",
     .placement = PlacementPolicy::kTiered,
     .slot_extents = 2 * 6,
     .host_extents = 2 * 30},
    {.name = "tiered, slots to lend",
     .placement = PlacementPolicy::kTiered,
     .sparse = true,
     .slot_extents = 2 * 13,
     .host_extents = 2 * 40,
     .lends = true},
    {.name = "tiered, host short, priorities",
     .policy = SchedulePolicy::kPriority,
     .placement = PlacementPolicy::kTiered,
     .sparse = true,
     .slot_extents = 2 * 12,
     .host_extents = 2 * 7},
    {.name = "few seats, priorities",
     .policy = SchedulePolicy::kPriority,
     .slot_extents = 2 * 40,
     .max_num_seqs = 4},
};

TEST_CASE("1.2e5 seeded steps: every output is right, every wait is bounded, nothing leaks") {
  constexpr int64_t kSteps = 121'000;
  constexpr auto kNumWorlds = static_cast<int64_t>(std::size(kWorlds));
  int64_t preemptions = 0;
  uint64_t seed = 1;
  for (const World& world : kWorlds) {
    INFO(world.name << ", seed " << seed);
    Simulation simulation(world, seed++);
    simulation.Run(kSteps / kNumWorlds);
    INFO(world.name << ": " << simulation.finished << " finished, " << simulation.cancelled
                    << " cancelled, " << simulation.refused << " refused, " << simulation.exhausted
                    << " at the end of memory, " << simulation.preemptions()
                    << " preemptions, longest " << simulation.longest << " steps, "
                    << simulation.demotions() << " demotions with " << simulation.spills()
                    << " copies, beside which " << simulation.decoded_beside_spills()
                    << " tokens were decoded, " << simulation.handed_out() << " slot extents lent, "
                    << simulation.reclaimed() << " of them taken back");
    const bool demotes = world.sparse && world.placement == PlacementPolicy::kAuto;
    CHECK((simulation.demotions() > 20) == demotes);
    CHECK((simulation.spills() > 20) == demotes);
    CHECK((simulation.decoded_beside_spills() > 100) == demotes);
    CHECK(simulation.finished > 100);
    CHECK(simulation.cancelled > 10);
    // A queue of 24 requests of at most 1536 tokens, served a few at a time.
    if (world.policy == SchedulePolicy::kFcfs) CHECK(simulation.longest < 12'000);
    preemptions += simulation.preemptions();
    if (world.lends) CHECK(simulation.handed_out() > 50);
    if (world.lends) CHECK(simulation.reclaimed() > 15);
  }
  CHECK(preemptions > 100);
}

}  // namespace
}  // namespace spin
