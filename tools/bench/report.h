// The figures of a load test: statistics, table and JSON in the shape of `vllm bench serve`.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tools/bench/load_generator.h"
#include "tools/bench/serve_options.h"
#include "tools/bench/transport.h"

namespace spin {

// Milliseconds. All 0 without samples.
struct LatencyStats {
  double mean = 0;
  double median = 0;
  double stddev = 0;                                   // of the population
  std::vector<std::pair<double, double>> percentiles;  // (which, value)
};

// Tokens of the completed requests, one way. All 0 without any.
struct LengthStats {
  double mean = 0;
  int min = 0;
  int max = 0;
};

// Percentiles interpolate linearly between ranks, as numpy does.
LatencyStats Summarize(std::vector<double> samples_ms, std::span<const double> percentiles);

struct Report {
  int completed = 0;
  int failed = 0;
  int64_t total_input_tokens = 0;
  int64_t total_output_tokens = 0;
  double duration_s = 0;
  int max_in_flight = 0;
  double request_throughput = 0;  // per second
  double output_throughput = 0;
  double total_token_throughput = 0;
  int within_objectives = 0;    // requests; options.goodput
  double request_goodput = 0;   // of them a second
  double goodput_share = 0;     // of them among all that completed or failed
  double client_cpu_share = 0;  // of one core
  LengthStats input_lens;
  LengthStats output_lens;
  LatencyStats ttft;
  LatencyStats tpot;  // of requests with at least two output tokens
  LatencyStats itl;
  LatencyStats e2el;
};

Report MakeReport(const ServeOptions& options, const LoadResult& result);

std::string ReportTable(const ServeOptions& options, const Report& report);

// Whether a completed request kept every objective. A request of one token has TPOT 0.
bool MeetsObjectives(const RequestRecord& record, std::span<const Objective> objectives);

// One object; `date` is written as it stands. The records go in when options.save_detailed is set.
std::string ReportJson(const ServeOptions& options, const std::string& model, const Report& report,
                       const LoadResult& result, std::string_view date);

}  // namespace spin
