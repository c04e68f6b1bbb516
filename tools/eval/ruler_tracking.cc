#include "tools/eval/ruler_tracking.h"

#include <absl/strings/str_format.h>
#include <absl/strings/str_join.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tools/eval/shuffle.h"

namespace spin::eval {
namespace {

constexpr int32_t kHops = 4;
constexpr int32_t kMaxNew = 30;
constexpr int32_t kNameLetters = 5;
constexpr int32_t kExampleNameLetters = 3;  // so that no name of the example is one of the task
constexpr int32_t kExampleNoise = 5;
constexpr const char* kNoise =
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.";

struct Chain {
  std::vector<std::string> names;
  std::string value;

  std::string Statement(size_t i) const {
    return i == 0 ? "VAR " + names[0] + " = " + value
                  : "VAR " + names[i] + " = VAR " + names[i - 1];
  }
};

Chain MakeChain(int32_t letters, Random& random) {
  Chain chain;
  chain.value = std::to_string(random.Between(10000, 99999));
  while (chain.names.size() < kHops + 1) {
    std::string name;
    for (int32_t i = 0; i < letters; ++i) name += static_cast<char>('A' + random.Below(26));
    if (std::find(chain.names.begin(), chain.names.end(), name) == chain.names.end()) {
      chain.names.push_back(std::move(name));
    }
  }
  return chain;
}

// The statements in order, each in front of another line of noise.
std::string Scatter(const Chain& chain, int32_t noise, Random& random) {
  std::vector<int32_t> places = DrawDistinct(noise, kHops + 1, random);
  std::sort(places.begin(), places.end());
  std::vector<std::string> lines;
  size_t next = 0;
  for (int32_t i = 0; i < noise; ++i) {
    if (next < places.size() && places[next] == i) lines.push_back(chain.Statement(next++));
    lines.emplace_back(kNoise);
  }
  return absl::StrJoin(lines, "\n");
}

std::string Question(const Chain& chain, const std::string& context) {
  return absl::StrFormat(
      "Memorize and track the chain(s) of variable assignment hidden in the following "
      "text.\n\n%s\nQuestion: Find all "
      "variables that are assigned the value %s in the text above.",
      context, chain.value);
}

std::string AnswerPrefix(const Chain& chain) {
  return absl::StrFormat(
      "Answer: According to the chain(s) of variable assignment in the text above, %d variables "
      "are assigned the value "
      "%s, they are:",
      kHops + 1, chain.value);
}

class TrackingTask final : public TextTask {
 public:
  std::string name() const override { return "vt"; }
  int32_t max_new() const override { return kMaxNew; }
  int32_t least_filler() const override { return kHops + 1; }

  TextSample Make(int32_t filler, int32_t, Random random) const override {
    const Chain example = MakeChain(kExampleNameLetters, random);
    const Chain chain = MakeChain(kNameLetters, random);
    const std::string solved = Question(example, Scatter(example, kExampleNoise, random)) + " " +
                               AnswerPrefix(example) + " " + absl::StrJoin(example.names, " ");
    return {.prompt = solved + "\n\n" + Question(chain, Scatter(chain, filler, random)),
            .answer_prefix = AnswerPrefix(chain),
            .references = chain.names};
  }
};

}  // namespace

std::unique_ptr<TextTask> MakeVariableTracking() {
  return std::make_unique<TrackingTask>();
}

}  // namespace spin::eval
