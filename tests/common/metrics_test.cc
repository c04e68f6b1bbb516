// The Prometheus text that scrapers parse: every line is compared as text.
#include "common/metrics.h"

#include <catch2/catch.hpp>

#include <string>
#include <thread>
#include <vector>

namespace spin {
namespace {

std::size_t CountOf(const std::string& text, const std::string& part) {
  std::size_t count = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

TEST_CASE("a family has one HELP and one TYPE line and all its series") {
  MetricsRegistry registry;
  registry.SetCommonLabels({{"model_name", "m"}});
  registry.AddCounter("spin:done_total", "Requests done", {{"reason", "stop"}}).Add(3);
  registry.AddCounter("spin:done_total", "Requests done", {{"reason", "length"}}).Add();
  CHECK(registry.PrometheusText() ==
        "# HELP spin:done_total Requests done\n"
        "# TYPE spin:done_total counter\n"
        "spin:done_total{model_name=\"m\",reason=\"stop\"} 3\n"
        "spin:done_total{model_name=\"m\",reason=\"length\"} 1\n");
}

TEST_CASE("label values and help are escaped") {
  MetricsRegistry registry;
  registry.AddGauge("spin:g", "a\\b\nc \"d\"", {{"path", "C:\\x \"y\"\nz"}}).Set(0.25);
  CHECK(registry.PrometheusText() ==
        "# HELP spin:g a\\\\b\\nc \"d\"\n"
        "# TYPE spin:g gauge\n"
        "spin:g{path=\"C:\\\\x \\\"y\\\"\\nz\"} 0.25\n");
}

TEST_CASE("histogram buckets are cumulative and a bound belongs to its bucket") {
  MetricsRegistry registry;
  Histogram& h = registry.AddHistogram("spin:t_seconds", "t", {0.5, 1, 2.5});
  for (const double value : {0.1, 0.5, 0.75, 2.0, 7.0}) h.Observe(value);
  CHECK(h.count() == 5);
  CHECK(registry.PrometheusText() ==
        "# HELP spin:t_seconds t\n"
        "# TYPE spin:t_seconds histogram\n"
        "spin:t_seconds_bucket{le=\"0.5\"} 2\n"
        "spin:t_seconds_bucket{le=\"1\"} 3\n"
        "spin:t_seconds_bucket{le=\"2.5\"} 4\n"
        "spin:t_seconds_bucket{le=\"+Inf\"} 5\n"
        "spin:t_seconds_sum 10.35\n"
        "spin:t_seconds_count 5\n");
}

TEST_CASE("callbacks are read at each rendering") {
  MetricsRegistry registry;
  double value = 1;
  registry.AddCallback("spin:hits_total", "h", true, [&] { return value; });
  CHECK(registry.PrometheusText().find("spin:hits_total 1\n") != std::string::npos);
  value = 12345678;
  CHECK(registry.PrometheusText().find("spin:hits_total 12345678\n") != std::string::npos);
  CHECK(registry.PrometheusText().find("# TYPE spin:hits_total counter\n") != std::string::npos);
}

TEST_CASE("an alias repeats the family under its own HELP and TYPE") {
  MetricsRegistry registry;
  registry.AddGauge("spin:running", "r").Set(2);
  registry.AddAlias("vllm:running", "spin:running");
  const std::string text = registry.PrometheusText();
  CHECK(CountOf(text, "# TYPE vllm:running gauge\n") == 1);
  CHECK(CountOf(text, "vllm:running 2\n") == 1);
  CHECK(CountOf(text, "spin:running 2\n") == 1);
}

TEST_CASE("updates from several threads are all counted") {
  MetricsRegistry registry;
  Counter& counter = registry.AddCounter("spin:c_total", "c");
  Histogram& histogram = registry.AddHistogram("spin:h", "h", {1});
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 1000; ++i) {
        counter.Add();
        histogram.Observe(i % 2 == 0 ? 0.5 : 2);
      }
    });
  }
  for (int i = 0; i < 10; ++i) CHECK(!registry.PrometheusText().empty());
  for (auto& thread : threads) thread.join();
  CHECK(counter.value() == 4000);
  CHECK(histogram.bucket(0) == 2000);
  CHECK(histogram.bucket(1) == 2000);
}

}  // namespace
}  // namespace spin
