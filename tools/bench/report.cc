#include "tools/bench/report.h"

#include <absl/strings/str_format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

namespace spin {
namespace {

using Json = nlohmann::ordered_json;

struct Metric {
  const char* key;
  const char* title;
  LatencyStats Report::*stats;
};

constexpr Metric kMetrics[] = {
    {"ttft", "Time to First Token", &Report::ttft},
    {"tpot", "Time per Output Token (excl. 1st token)", &Report::tpot},
    {"itl", "Inter-token Latency", &Report::itl},
    {"e2el", "End-to-end Latency", &Report::e2el},
};
constexpr int kTableWidth = 50;

double Percentile(const std::vector<double>& sorted, double percentile) {
  const double rank = percentile / 100 * static_cast<double>(sorted.size() - 1);
  const auto low = static_cast<size_t>(rank);
  const size_t high = std::min(low + 1, sorted.size() - 1);
  return sorted[low] + (sorted[high] - sorted[low]) * (rank - static_cast<double>(low));
}

double PerSecond(double count, double seconds) {
  return seconds > 0 ? count / seconds : 0;
}

std::string Upper(std::string text) {
  for (char& c : text) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return text;
}

// "====== Title ======" over the whole width.
std::string Rule(const std::string& title, char fill) {
  const int around = kTableWidth - static_cast<int>(title.size());
  return std::string(static_cast<size_t>(std::max(0, around / 2)), fill) + title +
         std::string(static_cast<size_t>(std::max(0, around - around / 2)), fill) + "\n";
}

Json DetailedRecords(const LoadResult& result) {
  Json input_lens = Json::array(), output_lens = Json::array(), start_times = Json::array();
  Json ttfts = Json::array(), itls = Json::array(), e2els = Json::array(), errors = Json::array();
  for (const RequestRecord& record : result.records) {
    if (!record.finished) continue;
    input_lens.push_back(record.input_tokens);
    output_lens.push_back(record.output_tokens);
    start_times.push_back(record.start_s);
    ttfts.push_back(record.ttft_s);
    itls.push_back(record.itl_s);
    e2els.push_back(record.e2e_s);
    errors.push_back(record.error);
  }
  return {{"input_lens", input_lens},
          {"output_lens", output_lens},
          {"start_times", start_times},
          {"ttfts", ttfts},
          {"itls", itls},
          {"e2els", e2els},
          {"errors", errors}};
}

}  // namespace

LatencyStats Summarize(std::vector<double> samples_ms, std::span<const double> percentiles) {
  LatencyStats stats;
  for (const double percentile : percentiles) stats.percentiles.emplace_back(percentile, 0.0);
  if (samples_ms.empty()) return stats;
  std::sort(samples_ms.begin(), samples_ms.end());
  const auto count = static_cast<double>(samples_ms.size());
  for (const double sample : samples_ms) stats.mean += sample / count;
  double variance = 0;
  for (const double sample : samples_ms)
    variance += (sample - stats.mean) * (sample - stats.mean) / count;
  stats.stddev = std::sqrt(variance);
  stats.median = Percentile(samples_ms, 50);
  for (auto& [percentile, value] : stats.percentiles) value = Percentile(samples_ms, percentile);
  return stats;
}

Report MakeReport(const ServeOptions& options, const LoadResult& result) {
  Report report;
  report.duration_s = result.duration_s;
  report.max_in_flight = result.max_in_flight;
  std::vector<double> ttft, tpot, itl, e2el;
  for (const RequestRecord& record : result.records) {
    if (!record.completed()) {
      report.failed += record.finished ? 1 : 0;
      continue;
    }
    ++report.completed;
    report.total_input_tokens += record.input_tokens;
    report.total_output_tokens += record.output_tokens;
    ttft.push_back(record.ttft_s * 1000);
    e2el.push_back(record.e2e_s * 1000);
    if (record.output_tokens > 1) {
      tpot.push_back((record.e2e_s - record.ttft_s) * 1000 / (record.output_tokens - 1));
    }
    for (const double gap : record.itl_s) itl.push_back(gap * 1000);
  }
  report.request_throughput = PerSecond(report.completed, report.duration_s);
  report.output_throughput =
      PerSecond(static_cast<double>(report.total_output_tokens), report.duration_s);
  report.total_token_throughput =
      PerSecond(static_cast<double>(report.total_input_tokens + report.total_output_tokens),
                report.duration_s);
  report.ttft = Summarize(std::move(ttft), options.percentiles);
  report.tpot = Summarize(std::move(tpot), options.percentiles);
  report.itl = Summarize(std::move(itl), options.percentiles);
  report.e2el = Summarize(std::move(e2el), options.percentiles);
  return report;
}

std::string ReportTable(const ServeOptions& options, const Report& report) {
  std::string table = Rule(" Serving Benchmark Result ", '=');
  const auto count = [&](const char* name, int64_t value) {
    table += absl::StrFormat("%-40s %-10d\n", name, value);
  };
  const auto figure = [&](const std::string& name, double value) {
    table += absl::StrFormat("%-40s %-10.2f\n", name, value);
  };
  count("Successful requests:", report.completed);
  count("Failed requests:", report.failed);
  if (options.request_rate > 0) figure("Request rate configured (RPS):", options.request_rate);
  if (options.EffectiveConcurrency() > 0)
    count("Maximum request concurrency:", options.EffectiveConcurrency());
  figure("Benchmark duration (s):", report.duration_s);
  count("Total input tokens:", report.total_input_tokens);
  count("Total generated tokens:", report.total_output_tokens);
  figure("Request throughput (req/s):", report.request_throughput);
  figure("Output token throughput (tok/s):", report.output_throughput);
  figure("Total token throughput (tok/s):", report.total_token_throughput);
  count("Peak concurrent requests:", report.max_in_flight);
  for (const Metric& metric : kMetrics) {
    const LatencyStats& stats = report.*metric.stats;
    const std::string name = Upper(metric.key);
    table += Rule(metric.title, '-');
    figure(absl::StrFormat("Mean %s (ms):", name), stats.mean);
    figure(absl::StrFormat("Median %s (ms):", name), stats.median);
    for (const auto& [percentile, value] : stats.percentiles) {
      if (percentile != 50) figure(absl::StrFormat("P%g %s (ms):", percentile, name), value);
    }
  }
  return table + Rule("", '=');
}

std::string ReportJson(const ServeOptions& options, const std::string& model, const Report& report,
                       const LoadResult& result, std::string_view date) {
  Json json = {{"date", std::string(date)},
               {"backend", options.chat ? "openai-chat" : "openai"},
               {"model_id", model},
               {"num_prompts", options.num_prompts},
               {"input_len", options.input_len},
               {"output_len", options.output_len},
               {"seed", options.seed},
               {"burstiness", 1.0},
               {"duration", report.duration_s},
               {"completed", report.completed},
               {"failed", report.failed},
               {"total_input_tokens", report.total_input_tokens},
               {"total_output_tokens", report.total_output_tokens},
               {"request_throughput", report.request_throughput},
               {"output_throughput", report.output_throughput},
               {"total_token_throughput", report.total_token_throughput},
               {"max_concurrent_requests", report.max_in_flight}};
  json["request_rate"] = options.request_rate > 0 ? Json(options.request_rate) : Json("inf");
  const int concurrency = options.EffectiveConcurrency();
  json["max_concurrency"] = concurrency > 0 ? Json(concurrency) : Json(nullptr);
  for (const Metric& metric : kMetrics) {
    const LatencyStats& stats = report.*metric.stats;
    json[absl::StrFormat("mean_%s_ms", metric.key)] = stats.mean;
    json[absl::StrFormat("median_%s_ms", metric.key)] = stats.median;
    json[absl::StrFormat("std_%s_ms", metric.key)] = stats.stddev;
    for (const auto& [percentile, value] : stats.percentiles) {
      json[absl::StrFormat("p%g_%s_ms", percentile, metric.key)] = value;
    }
  }
  if (options.save_detailed) json.update(DetailedRecords(result));
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace spin
