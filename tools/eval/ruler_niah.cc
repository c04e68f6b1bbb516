#include "tools/eval/ruler_niah.h"

#include <absl/strings/str_format.h>
#include <absl/strings/str_replace.h>

#include <algorithm>
#include <set>
#include <utility>

#include "tools/eval/shuffle.h"
#include "tools/eval/words.h"

namespace spin::eval {
namespace {

constexpr int32_t kMaxNew = 128;
constexpr int32_t kDepths = 40;  // places of a needle in prose: even shares of the text
constexpr const char* kNoise =
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.";

std::string MakeUuid(Random& random) {
  const uint64_t high = (random.NextU64() & ~uint64_t{0xf000}) | 0x4000;  // version 4
  const uint64_t low = (random.NextU64() & ~(uint64_t{3} << 62)) | (uint64_t{2} << 62);
  return absl::StrFormat("%08x-%04x-%04x-%04x-%012x", high >> 32, (high >> 16) & 0xffff,
                         high & 0xffff, low >> 48, low & 0xffffffffffff);
}

std::string MakeToken(Token kind, Random& random) {
  if (kind == Token::kUuid) return MakeUuid(random);
  if (kind == Token::kNumber) return std::to_string(random.Between(1'000'000, 9'999'999));
  return std::string(Pick(Adjectives(), random)) + "-" + std::string(Pick(Nouns(), random));
}

class NiahTask final : public TextTask {
 public:
  NiahTask(NiahConfig config, std::shared_ptr<const std::vector<std::string>> text)
      : config_(std::move(config)), text_(std::move(text)) {}

  std::string name() const override { return config_.name; }
  int32_t max_new() const override { return kMaxNew; }
  // Of noise and needles RULER draws distinct places among the filler's lines.
  int32_t least_filler() const override { return config_.num_keys * config_.num_values; }
  TextSample Make(int32_t filler, int32_t context, Random random) const override;

 private:
  const char* kind() const { return config_.value == Token::kUuid ? "uuids" : "numbers"; }
  std::string Needle(const std::string& key, const std::string& value) const {
    return absl::StrFormat("One of the special magic %s for %s is: %s.", kind(), key, value);
  }
  std::string NewKey(std::set<std::string>& used, Random& random) const;
  std::string Hide(const std::vector<std::string>& needles, int32_t filler,
                   std::set<std::string>& used, Random& random) const;
  std::string HideInText(const std::vector<std::string>& needles, int32_t filler,
                         Random& random) const;
  std::string Question(const std::string& context, const std::string& query) const;
  std::string AnswerPrefix(const std::string& query) const;

  const NiahConfig config_;
  const std::shared_ptr<const std::vector<std::string>> text_;
};

// No two needles of a prompt may answer one question: after some tries a word key gets a number.
std::string NiahTask::NewKey(std::set<std::string>& used, Random& random) const {
  for (int attempt = 0;; ++attempt) {
    std::string key = MakeToken(config_.key, random);
    if (attempt >= 16) key += std::to_string(used.size());
    if (used.insert(key).second) return key;
  }
}

std::string NiahTask::HideInText(const std::vector<std::string>& needles, int32_t filler,
                                 Random& random) const {
  std::vector<int32_t> places = DrawDistinct(kDepths, static_cast<int32_t>(needles.size()), random);
  std::sort(places.begin(), places.end());
  std::string context;
  const auto add = [&](const std::string& sentence) {
    if (!context.empty() && !sentence.starts_with('\n')) context += ' ';
    context += sentence;
  };
  size_t next = 0;
  for (int32_t i = 0; i <= filler; ++i) {
    while (next < needles.size() && places[next] * filler / (kDepths - 1) <= i) {
      add(needles[next++]);
    }
    if (i < filler) add((*text_)[static_cast<size_t>(i) % text_->size()]);
  }
  return context;
}

std::string NiahTask::Hide(const std::vector<std::string>& needles, int32_t filler,
                           std::set<std::string>& used, Random& random) const {
  if (config_.haystack == Haystack::kText) return HideInText(needles, filler, random);
  std::vector<int32_t> places = DrawDistinct(filler, static_cast<int32_t>(needles.size()), random);
  std::sort(places.begin(), places.end());
  std::string context;
  size_t next = 0;
  for (int32_t i = 0; i < filler; ++i) {
    if (next < needles.size() && places[next] == i) context += needles[next++] + "\n";
    context += config_.haystack == Haystack::kNoise
                   ? kNoise
                   : Needle(NewKey(used, random), MakeToken(config_.value, random));
    if (i + 1 < filler) context += '\n';
  }
  return context;
}

// RULER's words: in the singular where one value is asked for.
std::string NiahTask::Question(const std::string& context, const std::string& query) const {
  if (config_.num_queries * config_.num_values > 1) {
    return absl::StrFormat(
        "Some special magic %s are hidden within the following text. Make sure to memorize it. I "
        "will quiz you about "
        "the %s afterwards.\n%s\nWhat are all the special magic %s for %s mentioned in the "
        "provided text?",
        kind(), kind(), context, kind(), query);
  }
  const std::string one(kind(), std::string_view(kind()).size() - 1);
  return absl::StrFormat(
      "A special magic %s is hidden within the following text. Make sure to memorize it. I will "
      "quiz you about the %s "
      "afterwards.\n%s\nWhat is the special magic %s for %s mentioned in the provided text?",
      one, one, context, one, query);
}

std::string NiahTask::AnswerPrefix(const std::string& query) const {
  const bool many = config_.num_queries * config_.num_values > 1;
  const std::string noun(kind(), std::string_view(kind()).size() - (many ? 0 : 1));
  return absl::StrFormat("The special magic %s for %s mentioned in the provided text %s", noun,
                         query, many ? "are" : "is");
}

TextSample NiahTask::Make(int32_t filler, int32_t, Random random) const {
  std::set<std::string> used;
  std::vector<std::string> keys, needles;
  std::vector<std::vector<std::string>> values;
  for (int32_t i = 0; i < config_.num_keys; ++i) {
    keys.push_back(NewKey(used, random));
    values.emplace_back();
    for (int32_t j = 0; j < config_.num_values; ++j) {
      values.back().push_back(MakeToken(config_.value, random));
      needles.push_back(Needle(keys.back(), values.back().back()));
    }
  }
  Shuffle(needles, random);
  TextSample sample;
  std::string query;
  const std::vector<int32_t> asked = DrawDistinct(config_.num_keys, config_.num_queries, random);
  for (size_t i = 0; i < asked.size(); ++i) {
    const auto key = static_cast<size_t>(asked[i]);
    if (i > 0) query += i + 1 < asked.size() ? ", " : ", and ";
    query += keys[key];
    sample.references.insert(sample.references.end(), values[key].begin(), values[key].end());
  }
  sample.prompt = Question(Hide(needles, filler, used, random), query);
  sample.answer_prefix = AnswerPrefix(query);
  return sample;
}

}  // namespace

std::vector<NiahConfig> NiahConfigs() {
  using H = Haystack;
  using T = Token;
  return {{.name = "niah_single_1", .haystack = H::kNoise},
          {.name = "niah_single_2", .haystack = H::kText},
          {.name = "niah_single_3", .haystack = H::kText, .value = T::kUuid},
          {.name = "niah_multikey_1", .haystack = H::kText, .num_keys = 4},
          {.name = "niah_multikey_2", .haystack = H::kNeedles},
          {.name = "niah_multikey_3", .haystack = H::kNeedles, .key = T::kUuid, .value = T::kUuid},
          {.name = "niah_multivalue", .haystack = H::kText, .num_values = 4},
          {.name = "niah_multiquery", .haystack = H::kText, .num_keys = 4, .num_queries = 4}};
}

std::unique_ptr<TextTask> MakeNiah(const NiahConfig& config,
                                   std::shared_ptr<const std::vector<std::string>> text) {
  return std::make_unique<NiahTask>(config, std::move(text));
}

}  // namespace spin::eval
