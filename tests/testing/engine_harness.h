// An engine on a fake device and a fake clock, over the real KvCacheManager; and what a request's
// output must be.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/clock.h"
#include "common/metrics.h"
#include "engine/engine.h"
#include "engine/engine_options.h"
#include "engine/request.h"
#include "memory/kv_cache_manager.h"
#include "models/tokenizer/tokenizer.h"
#include "tests/testing/fake_executor.h"

namespace spin {

// Token t reads " t"; token 0 is special (the end of sequence of the tests).
class FakeTokenizer final : public Tokenizer {
 public:
  explicit FakeTokenizer(int vocab_size);
  std::vector<TokenId> Encode(std::string_view text, bool add_special_tokens) const override;
  std::string Decode(std::span<const TokenId> ids, bool skip_special_tokens) const override;
  std::string_view TokenBytes(TokenId id) const override;
  bool IsSpecial(TokenId id) const override { return id == 0; }
  std::optional<TokenId> FindToken(std::string_view content) const override;
  int vocab_size() const override { return static_cast<int>(words_.size()); }

 private:
  std::vector<std::string> words_;
};

// What one sequence produced, put together from its deltas.
struct SequenceRecord {
  std::vector<int32_t> tokens;
  std::string text;
  FinishReason finish = FinishReason::kNone;
  std::string stop_string;
  std::optional<int32_t> stop_token;
};

// Keeps what it hears, and aborts when the protocol of outputs is broken. Engine thread; read when
// the engine is idle.
class RecordingSink final : public OutputSink {
 public:
  // Refuses the output number `refuse_at` (from 0) and expects nothing after it; -1: never refuses.
  explicit RecordingSink(int32_t n, int64_t refuse_at = -1);
  bool OnOutput(RequestOutput output) override;

  std::vector<SequenceRecord> sequences;  // [n]
  std::vector<SampledToken> prompt_logprobs;
  int64_t num_outputs = 0;
  std::optional<RequestSummary> summary;
  bool finished = false;
  bool refused = false;
  absl::Status error;

 private:
  const int64_t refuse_at_;
};

struct HarnessOptions {
  EngineOptions engine;
  int32_t max_rows = 16;
  int32_t max_model_len = 4096;
  int32_t vocab_size = 1000;
  int32_t max_prefill_tokens = 8192;
  int32_t slot_extents = 256;  // of 512 tokens, of all layers together
  int32_t host_extents = 0;
  int32_t max_spills = 2;       // extents copied at once in the background
  int32_t max_spill_polls = 5;  // passes that they take at most
  int32_t num_layers = 2;
  bool sparse = false;  // layers that need a few pages only, so that tiering saves room
  PlacementPolicy placement = PlacementPolicy::kAuto;
  int32_t reserve_step_tokens = 512;
  bool real_time = false;  // threads: the machine's clock, for FakeClock is for one thread
  int64_t collect_sleep_ns = 0;
  bool has_tokenizer = true;
};

// Options for tests: end of sequence 0, 16 sequences, a queue of 64.
HarnessOptions DefaultHarness();

class EngineHarness {
 public:
  explicit EngineHarness(const HarnessOptions& options);

  Request MakeRequest(int32_t prompt_tokens, std::optional<int32_t> max_tokens, uint64_t seed = 1);
  // Gives the request a recording sink and submits it. REQUIRES: accepted.
  std::shared_ptr<RecordingSink> Submit(Request request, int64_t refuse_at = -1);
  // Steps until there is nothing to do. Checks invariants at each step; at most `max_steps`.
  void RunUntilIdle(int64_t max_steps = 1'000'000);
  void Steps(int count);

  // What sequence `index` must produce: computed from the request alone.
  SequenceRecord Expected(const Request& request, int32_t index) const;
  // All sequences of `sink` are as expected.
  bool Matches(const Request& request, const RecordingSink& sink) const;

  const HarnessOptions options;
  FakeClock fake_clock;
  RealClock real_clock;
  FakeTokenizer tokenizer;
  MetricsRegistry metrics;
  KvCacheManager memory;
  FakeExecutor executor;
  Engine engine;
};

}  // namespace spin
