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

TEST_CASE("Goodput counts the requests that keep every objective") {
  // The two that completed: TTFT 100 and 300 ms, TPOT 100 ms and none, E2EL 500 and 300 ms.
  const auto goodput = [](std::vector<Objective> objectives) {
    ServeOptions options;
    options.goodput = std::move(objectives);
    const Report report = MakeReport(options, ThreeRequests());
    CHECK(report.request_goodput == Approx(report.within_objectives / 2.0));  // in two seconds
    CHECK(report.goodput_share == Approx(report.within_objectives / 3.0));    // one had failed
    return report.within_objectives;
  };
  CHECK(goodput({{"ttft", 300.001}}) == 2);
  CHECK(goodput({{"ttft", 299}}) == 1);
  CHECK(goodput({{"ttft", 99}}) == 0);
  CHECK(goodput({{"tpot", 99}}) == 1);  // a single token has no gap to be late
  CHECK(goodput({{"e2el", 400}}) == 1);
  CHECK(goodput({{"ttft", 200}, {"tpot", 101}}) == 1);
  CHECK(goodput({{"ttft", 200}, {"e2el", 400}}) == 0);
}

TEST_CASE("Goodput is shown when it was asked for") {
  ServeOptions options;
  const LoadResult result = ThreeRequests();
  const auto shown = [&] {
    const Report report = MakeReport(options, result);
    return std::pair(ReportTable(options, report),
                     nlohmann::json::parse(ReportJson(options, "m", report, result, "")));
  };
  CHECK_THAT(shown().first, !Catch::Contains("goodput"));
  CHECK_FALSE(shown().second.contains("request_goodput"));
  options.goodput = {{"ttft", 200}, {"tpot", 101}};
  const auto [table, json] = shown();
  CHECK_THAT(table, Catch::Contains("Request goodput (req/s):                 0.50"));
  CHECK_THAT(table, Catch::Contains("Requests within the objectives (%):      33.33"));
  CHECK(json["request_goodput"] == Approx(0.5));
  CHECK(json["goodput_share"] == Approx(1.0 / 3));
  CHECK(json["goodput_objectives_ms"] == nlohmann::json({{"ttft", 200.0}, {"tpot", 101.0}}));
}

TEST_CASE("The lengths reported are those of the requests that completed") {
  ServeOptions options;
  options.input_len = LengthSpec::Uniform(100, 300);
  options.scale = 0.1;
  options.metadata = {{"system", "mine"}};
  const LoadResult result = ThreeRequests();
  const Report report = MakeReport(options, result);
  const auto json = nlohmann::json::parse(ReportJson(options, "m", report, result, ""));
  CHECK(json["mean_input_tokens"] == 15);
  CHECK(json["min_input_tokens"] == 10);
  CHECK(json["max_input_tokens"] == 20);
  CHECK(json["mean_output_tokens"] == 3);
  CHECK(json["max_output_tokens"] == 5);
  CHECK(json["input_len"] == 20);
  CHECK(json["input_len_distribution"] == "10-30");
  CHECK(json["scale"] == 0.1);
  CHECK(json["system"] == "mine");
  CHECK_THAT(ReportTable(options, report),
             Catch::Contains("Mean input tokens:                       15.00"));
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
  CHECK(json["burstiness"] == 1);
  CHECK(json["backend"] == "openai");
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
