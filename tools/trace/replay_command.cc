#include "tools/trace/replay_command.h"

#include <absl/strings/numbers.h>
#include <absl/strings/str_split.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <vector>

#include "tools/trace/cache_policy.h"
#include "tools/trace/selection_trace.h"

namespace spin::trace {
namespace {

struct Arguments {
  std::string trace;
  std::vector<double> ratios = {1, 1.25, 1.5, 2, 3, 4, 5};
  int32_t warmup = 64;
  std::string output_json;
};

absl::Status ParseRatios(const std::string& text, std::vector<double>& ratios) {
  ratios.clear();
  for (const auto piece : absl::StrSplit(text, ',', absl::SkipEmpty())) {
    double ratio = 0;
    if (!absl::SimpleAtod(piece, &ratio) || !(ratio >= 1 && ratio <= 1e6)) {
      return InvalidArgument("--buffer-ratio: '%s' is no number from 1 on", piece);
    }
    ratios.push_back(ratio);
  }
  if (ratios.empty()) return InvalidArgument("--buffer-ratio: no numbers");
  return absl::OkStatus();
}

absl::StatusOr<Arguments> Parse(std::span<const std::string> args) {
  Arguments parsed;
  for (const std::string& arg : args) {
    const auto is = [&](const char* name) { return arg.rfind(name, 0) == 0; };
    const std::string value = arg.substr(arg.find('=') + 1);
    if (is("--buffer-ratio=")) {
      SPIN_RETURN_IF_ERROR(ParseRatios(value, parsed.ratios));
    } else if (is("--warmup=")) {
      if (!absl::SimpleAtoi(value, &parsed.warmup) || parsed.warmup < 0) {
        return InvalidArgument("%s: no number of steps", arg);
      }
    } else if (is("--output-json=")) {
      parsed.output_json = value;
    } else if (is("--") || !parsed.trace.empty()) {
      return InvalidArgument("%s: unknown", arg);
    } else {
      parsed.trace = arg;
    }
  }
  if (parsed.trace.empty()) return InvalidArgument("replay needs a trace");
  return parsed;
}

// The policies at one size.
struct Point {
  double ratio = 0;
  int32_t num_slots = 0;
  std::array<std::vector<HitCounts>, kPolicies.size()> layers;

  HitCounts Total(size_t policy) const {
    HitCounts sum;
    for (const HitCounts& layer : layers[policy]) sum += layer;
    return sum;
  }
};

std::vector<Point> Replay(const SelectionTrace& trace, const Arguments& arguments) {
  std::vector<Point> points;
  for (const double ratio : arguments.ratios) {
    Point point = {.ratio = ratio, .num_slots = SlotsAt(trace.header(), ratio), .layers = {}};
    for (size_t i = 0; i < kPolicies.size(); ++i) {
      point.layers[i] = ReplayLayers(trace, kPolicies[i].policy, point.num_slots, arguments.warmup);
    }
    points.push_back(std::move(point));
  }
  return points;
}

void PrintTable(const TraceHeader& header, const std::vector<Point>& points, int32_t warmup) {
  std::printf("%s reading %s: %d of %d pages of %d tokens a step, %d layers of %d KV heads\n",
              header.model.c_str(), header.source.c_str(), header.budget_pages, header.num_pages(),
              header.page_tokens, header.num_layers, header.num_kv_heads);
  std::printf("hit ratio (%%) of steps %d to %d, by slots a stream\n\n%8s %6s", warmup,
              header.num_steps - 1, "ratio", "slots");
  for (const PolicyName& policy : kPolicies) {
    std::printf(" %10.*s", static_cast<int>(policy.name.size()), policy.name.data());
  }
  std::printf("\n");
  for (const Point& point : points) {
    std::printf("%8g %6d", point.ratio, point.num_slots);
    for (size_t i = 0; i < kPolicies.size(); ++i) {
      std::printf(" %10.2f", 100 * point.Total(i).ratio());
    }
    std::printf("\n");
  }
}

nlohmann::json ToJson(const TraceHeader& header, const std::vector<Point>& points, int32_t warmup) {
  nlohmann::json json = {{"model", header.model},
                         {"source", header.source},
                         {"num_layers", header.num_layers},
                         {"num_kv_heads", header.num_kv_heads},
                         {"page_tokens", header.page_tokens},
                         {"budget_pages", header.budget_pages},
                         {"prompt_tokens", header.prompt_tokens},
                         {"counted_steps", header.num_steps - warmup},
                         {"points", nlohmann::json::array()}};
  for (const Point& point : points) {
    for (size_t i = 0; i < kPolicies.size(); ++i) {
      const HitCounts total = point.Total(i);
      nlohmann::json by_layer = nlohmann::json::array();
      for (const HitCounts& layer : point.layers[i]) by_layer.push_back(layer.ratio());
      json["points"].push_back({{"policy", kPolicies[i].name},
                                {"buffer_ratio", point.ratio},
                                {"num_slots", point.num_slots},
                                {"hits", total.hits},
                                {"misses", total.misses},
                                {"hit_ratio", total.ratio()},
                                {"hit_ratio_by_layer", std::move(by_layer)}});
    }
  }
  return json;
}

}  // namespace

absl::Status RunReplay(std::span<const std::string> args) {
  SPIN_ASSIGN_OR_RETURN(const Arguments arguments, Parse(args));
  SPIN_ASSIGN_OR_RETURN(const SelectionTrace trace, SelectionTrace::ReadFile(arguments.trace));
  const TraceHeader& header = trace.header();
  if (arguments.warmup >= header.num_steps) {
    return InvalidArgument("--warmup: %d leaves none of %d steps", arguments.warmup,
                           header.num_steps);
  }
  const std::vector<Point> points = Replay(trace, arguments);
  PrintTable(header, points, arguments.warmup);
  if (arguments.output_json.empty()) return absl::OkStatus();
  std::ofstream file(arguments.output_json);
  file << ToJson(header, points, arguments.warmup).dump(1) << '\n';
  file.flush();
  if (!file) return Unavailable("%s: cannot write it", arguments.output_json);
  return absl::OkStatus();
}

}  // namespace spin::trace
