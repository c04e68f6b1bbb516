#include "tools/bench/workload.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "common/random.h"

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

// Lowest random token id: the special tokens of the served families lie below it or far above.
constexpr int kMinTokenId = 1000;

// Independent Philox keys for the parts of the workload.
constexpr uint64_t kPrefixKey = 0x9E3779B97F4A7C15;
constexpr uint64_t kArrivalKey = 0xD1B54A32D192ED03;

int DrawLength(Random& random, int length, double ratio) {
  const auto low = static_cast<int64_t>(std::ceil(length * (1 - ratio)));
  const auto high = static_cast<int64_t>(std::floor(length * (1 + ratio)));
  return static_cast<int>(std::max<int64_t>(1, random.Between(low, std::max(low, high))));
}

void AppendTokens(Random& random, int count, const ServeOptions& options, Prompt& prompt) {
  for (int i = 0; i < count; ++i) {
    if (options.token_ids) {
      prompt.ids.push_back(
          static_cast<int32_t>(random.Between(kMinTokenId, options.max_token_id - 1)));
    } else {
      if (!prompt.text.empty()) prompt.text += ' ';
      prompt.text += kWords[random.Below(static_cast<uint32_t>(std::size(kWords)))];
    }
  }
}

}  // namespace

std::vector<Prompt> MakePrompts(const ServeOptions& options, int count, uint64_t stream) {
  std::vector<Prompt> prompts(static_cast<size_t>(count));
  for (size_t i = 0; i < prompts.size(); ++i) {
    // A key of its own: prompt i is the same whatever --num-prompts is.
    Random random(options.seed ^ (stream << 56) ^ ((i + 1) * 0xBF58476D1CE4E5B9));
    Random prefix_random(options.seed ^ kPrefixKey);
    const int input_len = DrawLength(random, options.input_len, options.range_ratio);
    const int prefix_len = std::min(options.prefix_len, input_len);
    prompts[i].output_len = DrawLength(random, options.output_len, options.range_ratio);
    AppendTokens(prefix_random, prefix_len, options, prompts[i]);
    AppendTokens(random, input_len - prefix_len, options, prompts[i]);
  }
  return prompts;
}

std::vector<double> PoissonArrivals(int count, double rate, uint64_t seed) {
  Random random(seed ^ kArrivalKey);
  std::vector<double> arrivals;
  double now = 0;
  for (int i = 0; i < count; ++i) {
    arrivals.push_back(now);
    now -= std::log(static_cast<double>(random.Uniform())) / rate;
  }
  return arrivals;
}

}  // namespace spin
