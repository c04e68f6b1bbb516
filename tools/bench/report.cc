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

double TpotMs(const RequestRecord& record) {
  return record.output_tokens > 1
             ? (record.e2e_s - record.ttft_s) * 1000 / (record.output_tokens - 1)
             : 0;
}

LengthStats SummarizeLengths(const std::vector<int>& lengths) {
  if (lengths.empty()) return {};
  const auto [min, max] = std::minmax_element(lengths.begin(), lengths.end());
  double sum = 0;
  for (const int length : lengths) sum += length;
  return {.mean = sum / static_cast<double>(lengths.size()), .min = *min, .max = *max};
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

bool MeetsObjectives(const RequestRecord& record, std::span<const Objective> objectives) {
  return std::all_of(objectives.begin(), objectives.end(), [&](const Objective& objective) {
    const double value_ms = objective.metric == "ttft"   ? record.ttft_s * 1000
                            : objective.metric == "tpot" ? TpotMs(record)
                                                         : record.e2e_s * 1000;
    return value_ms <= objective.limit_ms;
  });
}

Report MakeReport(const ServeOptions& options, const LoadResult& result) {
  Report report;
  report.duration_s = result.duration_s;
  report.max_in_flight = result.max_in_flight;
  report.client_cpu_share = PerSecond(result.client_cpu_s, result.duration_s);
  std::vector<int> input_lens, output_lens;
  std::vector<double> ttft, tpot, itl, e2el;
  for (const RequestRecord& record : result.records) {
    if (!record.completed()) {
      report.failed += record.finished ? 1 : 0;
      continue;
    }
    ++report.completed;
    report.total_input_tokens += record.input_tokens;
    report.total_output_tokens += record.output_tokens;
    report.within_objectives += MeetsObjectives(record, options.goodput) ? 1 : 0;
    input_lens.push_back(record.input_tokens);
    output_lens.push_back(record.output_tokens);
    ttft.push_back(record.ttft_s * 1000);
    e2el.push_back(record.e2e_s * 1000);
    if (record.output_tokens > 1) tpot.push_back(TpotMs(record));
    for (const double gap : record.itl_s) itl.push_back(gap * 1000);
  }
  report.request_throughput = PerSecond(report.completed, report.duration_s);
  report.output_throughput =
      PerSecond(static_cast<double>(report.total_output_tokens), report.duration_s);
  report.total_token_throughput =
      PerSecond(static_cast<double>(report.total_input_tokens + report.total_output_tokens),
                report.duration_s);
  report.request_goodput = PerSecond(report.within_objectives, report.duration_s);
  const int ended = report.completed + report.failed;
  report.goodput_share = ended > 0 ? static_cast<double>(report.within_objectives) / ended : 0;
  report.input_lens = SummarizeLengths(input_lens);
  report.output_lens = SummarizeLengths(output_lens);
  report.ttft = Summarize(std::move(ttft), options.percentiles);
  report.tpot = Summarize(std::move(tpot), options.percentiles);
  report.itl = Summarize(std::move(itl), options.percentiles);
  report.e2el = Summarize(std::move(e2el), options.percentiles);
  return report;
}

std::string ReportTable(const ServeOptions& options, const Report& report) {
  std::string table = Rule(" Serving Benchmark Result ", '=');
  const auto count = [&](const std::string& name, int64_t value) {
    table += absl::StrFormat("%-40s %-10d\n", name, value);
  };
  const auto figure = [&](const std::string& name, double value) {
    table += absl::StrFormat("%-40s %-10.2f\n", name, value);
  };
  const auto lengths = [&](const std::string& name, const LengthStats& stats) {
    figure("Mean " + name + ":", stats.mean);
    count("Min " + name + ":", stats.min);
    count("Max " + name + ":", stats.max);
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
  if (!options.goodput.empty()) {
    figure("Request goodput (req/s):", report.request_goodput);
    figure("Requests within the objectives (%):", report.goodput_share * 100);
  }
  figure("Output token throughput (tok/s):", report.output_throughput);
  figure("Total token throughput (tok/s):", report.total_token_throughput);
  count("Peak concurrent requests:", report.max_in_flight);
  table += Rule("Tokens per Request", '-');
  lengths("input tokens", report.input_lens);
  lengths("output tokens", report.output_lens);
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

namespace {

const char* BackendName(const ServeOptions& options) {
  if (!options.grpc.empty()) return "grpc";
  return options.chat ? "openai-chat" : "openai";
}

// What was asked for.
void AddSettings(const ServeOptions& options, Json& json) {
  json.update({{"num_prompts", options.num_prompts},
               {"input_len", options.InputLengths().Mean()},
               {"output_len", options.OutputLengths().Mean()},
               {"input_len_distribution", ToString(options.InputLengths())},
               {"output_len_distribution", ToString(options.OutputLengths())},
               {"prefix_len", options.PrefixLength()},
               {"scale", options.scale},
               {"seed", options.seed},
               {"burstiness", options.burstiness}});
  const bool paced = options.request_rate > 0 && std::isfinite(options.request_rate);
  json["request_rate"] = paced ? Json(options.request_rate) : Json("inf");
  const int concurrency = options.EffectiveConcurrency();
  json["max_concurrency"] = concurrency > 0 ? Json(concurrency) : Json(nullptr);
}

void AddGoodput(const ServeOptions& options, const Report& report, Json& json) {
  if (options.goodput.empty()) return;
  Json objectives = Json::object();
  for (const Objective& objective : options.goodput)
    objectives[objective.metric] = objective.limit_ms;
  json["goodput_objectives_ms"] = objectives;
  json["request_goodput"] = report.request_goodput;
  json["goodput_share"] = report.goodput_share;
}

}  // namespace

std::string ReportJson(const ServeOptions& options, const std::string& model, const Report& report,
                       const LoadResult& result, std::string_view date) {
  Json json = Json::object();
  for (const auto& [key, value] : options.metadata) json[key] = value;
  json.update(
      {{"date", std::string(date)}, {"backend", BackendName(options)}, {"model_id", model}});
  AddSettings(options, json);
  json.update({{"duration", report.duration_s},
               {"completed", report.completed},
               {"failed", report.failed},
               {"total_input_tokens", report.total_input_tokens},
               {"total_output_tokens", report.total_output_tokens},
               {"request_throughput", report.request_throughput},
               {"output_throughput", report.output_throughput},
               {"total_token_throughput", report.total_token_throughput},
               {"max_concurrent_requests", report.max_in_flight},
               {"client_cpu_share", report.client_cpu_share},
               {"mean_input_tokens", report.input_lens.mean},
               {"min_input_tokens", report.input_lens.min},
               {"max_input_tokens", report.input_lens.max},
               {"mean_output_tokens", report.output_lens.mean},
               {"min_output_tokens", report.output_lens.min},
               {"max_output_tokens", report.output_lens.max}});
  AddGoodput(options, report, json);
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
