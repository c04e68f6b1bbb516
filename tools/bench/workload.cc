#include "tools/bench/workload.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <numbers>

#include "common/random.h"
#include "tools/bench/lengths.h"

namespace spin {
namespace {

// One token each (with the space before it) in the byte-level vocabularies of the served families.
constexpr const char* kWords[] = {
    "time",   "people",   "year",   "way",     "day",     "man",    "thing",  "world",  "life",
    "hand",   "part",     "child",  "place",   "work",    "week",   "case",   "point",  "number",
    "group",  "problem",  "fact",   "house",   "water",   "room",   "mother", "area",   "money",
    "story",  "month",    "right",  "study",   "book",    "eye",    "job",    "word",   "issue",
    "side",   "kind",     "head",   "service", "friend",  "father", "power",  "hour",   "game",
    "line",   "end",      "member", "law",     "car",     "city",   "name",   "team",   "minute",
    "idea",   "body",     "back",   "parent",  "face",    "others", "level",  "office", "door",
    "health", "person",   "art",    "war",     "history", "party",  "result", "change", "morning",
    "reason", "research", "moment", "air",     "teacher", "force",  "order",  "table",  "course",
    "paper",  "space",    "road",   "field",   "light",   "voice",  "price",
};

// Independent Philox keys for the parts of the workload.
constexpr uint64_t kPrefixKey = 0x9E3779B97F4A7C15;
constexpr uint64_t kArrivalKey = 0xD1B54A32D192ED03;

void AppendTokens(Random& random, int count, const ServeOptions& options, Prompt& prompt) {
  for (int i = 0; i < count; ++i) {
    if (options.token_ids) {
      prompt.ids.push_back(
          static_cast<int32_t>(random.Between(options.min_token_id, options.max_token_id - 1)));
    } else {
      if (!prompt.text.empty()) prompt.text += ' ';
      prompt.text += kWords[random.Below(static_cast<uint32_t>(std::size(kWords)))];
    }
  }
}

// Uniform in (0, 1], with 53 bits.
double Uniform(Random& random) {
  return (static_cast<double>(random.NextU64() >> 11) + 1) * 0x1p-53;
}

double Normal(Random& random) {
  const double radius = std::sqrt(-2 * std::log(Uniform(random)));
  return radius * std::cos(2 * std::numbers::pi * Uniform(random));
}

// A Gamma variate of mean 1 (Marsaglia and Tsang, "A simple method for generating gamma variables",
// ACM TOMS 26(3)).
double GammaOfMeanOne(Random& random, double shape) {
  if (shape == 1) return -std::log(Uniform(random));
  if (shape < 1) {
    // Gamma(shape + 1) * U^(1 / shape) is Gamma(shape); here each over its own mean.
    const double boosted = GammaOfMeanOne(random, shape + 1) * (shape + 1) / shape;
    return boosted * std::pow(Uniform(random), 1 / shape);
  }
  const double d = shape - 1.0 / 3;
  const double c = 1 / std::sqrt(9 * d);
  for (;;) {
    const double x = Normal(random);
    const double v = std::pow(1 + c * x, 3);
    if (v > 0 && std::log(Uniform(random)) < x * x / 2 + d - d * v + d * std::log(v))
      return d * v / shape;
  }
}

// Makes room for at least one token of each kind within options.max_model_len.
void Fit(const ServeOptions& options, int& input_len, int& output_len) {
  if (options.max_model_len == 0) return;
  input_len = std::min(input_len, options.max_model_len - 1);
  output_len = std::min(output_len, options.max_model_len - input_len);
}

}  // namespace

std::vector<Prompt> MakePrompts(const ServeOptions& options, int count, uint64_t stream) {
  const LengthSampler inputs(options.InputLengths());
  const LengthSampler outputs(options.OutputLengths());
  std::vector<Prompt> prompts(static_cast<size_t>(count));
  for (size_t i = 0; i < prompts.size(); ++i) {
    // A key of its own: prompt i is the same whatever --num-prompts is.
    Random random(options.seed ^ (stream << 56) ^ ((i + 1) * 0xBF58476D1CE4E5B9));
    Random prefix_random(options.seed ^ kPrefixKey);
    int input_len = inputs.Draw(random);
    prompts[i].output_len = outputs.Draw(random);
    Fit(options, input_len, prompts[i].output_len);
    const int prefix_len = std::min(options.PrefixLength(), input_len);
    AppendTokens(prefix_random, prefix_len, options, prompts[i]);
    AppendTokens(random, input_len - prefix_len, options, prompts[i]);
  }
  return prompts;
}

std::vector<double> Arrivals(int count, double rate, double burstiness, uint64_t seed) {
  Random random(seed ^ kArrivalKey);
  std::vector<double> arrivals;
  double now = 0;
  for (int i = 0; i < count; ++i) {
    arrivals.push_back(now);
    now += GammaOfMeanOne(random, burstiness) / rate;
  }
  return arrivals;
}

}  // namespace spin
