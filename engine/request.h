// A request as the engine sees it: immutable input, and the sink that its output goes to.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/ids.h"
#include "engine/request_summary.h"
#include "engine/sampling_params.h"
#include "kernels/params.h"

namespace spin {

enum class FinishReason {
  kNone,    // still running
  kStop,    // end-of-sequence token, stop token or stop string
  kLength,  // max_tokens or the context
  kAbort,   // cancelled or shut down; in no delta: RequestOutput::error says it
  kError,   // likewise
};

// What one sequence produced since the last output.
struct SequenceDelta {
  int32_t index = 0;                 // 0..n-1
  std::string text;                  // may be empty while characters or stop strings are held back
  std::vector<SampledToken> tokens;  // with log-probabilities where they were asked
  FinishReason finish = FinishReason::kNone;
  // Why it stopped: the stop string, or the stop token (not for the model's own end-of-sequence token).
  std::string stop_string;
  std::optional<int32_t> stop_token;
};

struct RequestOutput {
  std::vector<SequenceDelta> deltas;
  // Once, with the first output, when asked: entry i belongs to prompt token i + 1.
  std::vector<SampledToken> prompt_logprobs;
  bool finished = false;  // every sequence has finished; nothing follows
  absl::Status error;     // not OK: the request failed, finished is true
  int32_t cached_prompt_tokens = 0;
  std::optional<RequestSummary> summary;  // with the last output, when asked and nothing failed
};

// Receives the output of one request.
class OutputSink {
 public:
  virtual ~OutputSink() = default;
  // Engine thread. Must not block and must not call the engine. False: nobody listens any more (the client is gone
  // or too slow); the engine then cancels the request.
  virtual bool OnOutput(RequestOutput output) = 0;
};

// How much of its context a request's decode steps attend to, where it says so itself. At most one of the two.
struct SparseRequest {
  std::optional<int32_t> budget_tokens;  // by a KV head in a step, as sparse.budget_tokens
  bool exact = false;                    // to everything

  bool given() const { return exact || budget_tokens.has_value(); }
};

struct Request {
  RequestId id;
  std::vector<int32_t> prompt;
  SamplingParams sampling;
  SparseRequest sparse;
  int32_t priority = 0;        // lower runs first
  bool wants_summary = false;  // RequestOutput::summary
  std::shared_ptr<OutputSink> sink;
};

// What a request's own wishes come to on this server.
struct ResolvedRequest {
  int32_t max_tokens = 0;    // the client's, or what the context leaves
  int32_t budget_pages = 0;  // as KvCacheManager::BudgetPages
};

}  // namespace spin
