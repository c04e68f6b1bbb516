#include "tools/bench/report.h"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

namespace spin {
namespace {

// Two completed requests and a failed one in two seconds.
LoadResult ThreeRequests() {
  LoadResult result;
  result.duration_s = 2;
  result.max_in_flight = 3;
  result.records.push_back({.finished = true,
                            .error = "",
                            .input_tokens = 10,
                            .output_tokens = 5,
                            .start_s = 0,
                            .ttft_s = 0.1,
                            .e2e_s = 0.5,
                            .itl_s = {0.1, 0.1, 0.1, 0.1}});
  result.records.push_back({.finished = true,
                            .error = "",
                            .input_tokens = 20,
                            .output_tokens = 1,
                            .start_s = 0,
                            .ttft_s = 0.3,
                            .e2e_s = 0.3,
                            .itl_s = {}});
  result.records.push_back({.finished = true,
                            .error = "HTTP 429",
                            .input_tokens = 0,
                            .output_tokens = 0,
                            .start_s = 0,
                            .ttft_s = 0,
                            .e2e_s = 0,
                            .itl_s = {}});
  result.records.push_back({});  // never sent
  return result;
}

TEST_CASE("Statistics are those of numpy") {
  const std::vector<double> which = {0, 25, 90, 100};
  const LatencyStats stats = Summarize({4, 1, 3, 2}, which);
  CHECK(stats.mean == Approx(2.5));
  CHECK(stats.median == Approx(2.5));
  CHECK(stats.stddev == Approx(1.118034));
  CHECK(stats.percentiles[0].second == Approx(1));
  CHECK(stats.percentiles[1].second == Approx(1.75));
  CHECK(stats.percentiles[2].second == Approx(3.7));
  CHECK(stats.percentiles[3].second == Approx(4));
  CHECK(Summarize({}, which).percentiles[1].second == 0);
  CHECK(Summarize({7}, which).percentiles[2].second == Approx(7));
}

TEST_CASE("Only completed requests count for latency and tokens") {
  const Report report = MakeReport(ServeOptions(), ThreeRequests());
  CHECK(report.completed == 2);
  CHECK(report.failed == 1);
  CHECK(report.total_input_tokens == 30);
  CHECK(report.total_output_tokens == 6);
  CHECK(report.request_throughput == Approx(1));
  CHECK(report.output_throughput == Approx(3));
  CHECK(report.total_token_throughput == Approx(18));
  CHECK(report.ttft.mean == Approx(200));
  CHECK(report.tpot.mean == Approx(100));  // (0.5 - 0.1) / 4; the single token has none
  CHECK(report.itl.mean == Approx(100));
  CHECK(report.e2el.mean == Approx(400));
}

TEST_CASE("The JSON has the keys that readers of vllm bench serve look for") {
  ServeOptions options;
  options.save_detailed = true;
  const LoadResult result = ThreeRequests();
  const auto json = nlohmann::json::parse(
      ReportJson(options, "m", MakeReport(options, result), result, "20300101-000000"));
  for (const char* key :
       {"date", "model_id", "num_prompts", "request_rate", "max_concurrency", "duration",
        "completed", "failed", "total_input_tokens", "total_output_tokens", "request_throughput",
        "output_throughput", "total_token_throughput"}) {
    INFO(key);
    CHECK(json.contains(key));
  }
  for (const std::string metric : {"ttft", "tpot", "itl", "e2el"}) {
    for (const std::string kind : {"mean", "median", "std", "p50", "p90", "p99"}) {
      INFO(kind << " " << metric);
      CHECK(json.contains(kind + "_" + metric + "_ms"));
    }
  }
  CHECK(json["request_rate"] == "inf");
  CHECK(json["max_concurrency"] == 4);
  CHECK(json["mean_ttft_ms"] == Approx(200));
  CHECK(json["errors"] == nlohmann::json({"", "", "HTTP 429"}));
  CHECK(json["itls"][0].size() == 4);
}

TEST_CASE("The table shows every figure and keeps its width") {
  const std::string table =
      ReportTable(ServeOptions(), MakeReport(ServeOptions(), ThreeRequests()));
  CHECK_THAT(table, Catch::Contains("Successful requests:                     2"));
  CHECK_THAT(table, Catch::Contains("Mean TTFT (ms):                          200.00"));
  CHECK_THAT(table, Catch::Contains("P99 E2EL (ms):"));
  for (size_t begin = 0; begin < table.size();) {
    const size_t end = table.find('\n', begin);
    CHECK(end - begin <= 52);
    begin = end + 1;
  }
}

}  // namespace
}  // namespace spin
