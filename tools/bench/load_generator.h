// Sends the prompts of a load test and times the streams. One thread: every request is a coroutine
// on one loop.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "common/status.h"
#include "tools/bench/serve_options.h"
#include "tools/bench/workload.h"

namespace spin {

// One request. Times in seconds; start_s counts from the start of the run, the others from the
// request's own send (which includes connecting).
struct RequestRecord {
  bool finished =
      false;  // false: not sent, or cut off by an interrupt; then neither completed nor failed
  std::string error;  // empty: completed
  int input_tokens = 0;
  int output_tokens = 0;
  double start_s = 0;
  double ttft_s = 0;
  double e2e_s = 0;
  std::vector<double> itl_s;  // gaps between content events

  bool completed() const { return finished && error.empty(); }
};

struct LoadProgress {
  int finished = 0;
  int failed = 0;
  int in_flight = 0;
  int64_t events = 0;  // content events of all requests so far
  double elapsed_s = 0;
};

struct LoadResult {
  std::vector<RequestRecord> records;  // one a prompt, in order
  double duration_s = 0;
  int max_in_flight = 0;
  bool interrupted = false;
};

// GET of /v1/models; tries again until options.wait_s have passed. The error says how to start a
// server.
absl::StatusOr<std::string> FetchFirstModel(const ServeOptions& options);

// Runs to the end or to SIGINT. A request that fails is a record with an error, never a failure of
// the run. on_progress (may be empty) is called some times a second.
absl::StatusOr<LoadResult> RunLoad(const ServeOptions& options, const std::string& model,
                                   const std::vector<Prompt>& prompts,
                                   const std::function<void(const LoadProgress&)>& on_progress);

}  // namespace spin
