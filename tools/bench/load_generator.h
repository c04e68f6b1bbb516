// Sends the prompts of a load test at their times. Every request is a coroutine on one loop, in the
// caller's thread.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "common/status.h"
#include "tools/bench/serve_options.h"
#include "tools/bench/transport.h"
#include "tools/bench/workload.h"

namespace spin {

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
  double client_cpu_s = 0;  // of this process: near duration_s, the client itself was the limit
  bool interrupted = false;
};

// Asks for the server's models; tries again until options.wait_s have passed. The error says how to start a
// server.
absl::StatusOr<std::string> FetchFirstModel(const ServeOptions& options);

// Runs to the end or to SIGINT. A request that fails is a record with an error, never a failure of
// the run. on_progress (may be empty) is called some times a second.
absl::StatusOr<LoadResult> RunLoad(const ServeOptions& options, const std::string& model,
                                   const std::vector<Prompt>& prompts,
                                   const std::function<void(const LoadProgress&)>& on_progress);

}  // namespace spin
