// RULER's prompts: the same for the same seed, with every answer in the text, as long as asked; and their score.
#include <catch2/catch.hpp>
#include <map>
#include <memory>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "tools/eval/prose.h"
#include "tools/eval/ruler_counting.h"
#include "tools/eval/ruler_niah.h"
#include "tools/eval/ruler_tracking.h"
#include "tools/eval/text_task.h"

namespace spin::eval {
namespace {

std::vector<std::unique_ptr<TextTask>> AllTasks() {
  const auto text = std::make_shared<const std::vector<std::string>>(MakeProse(3, 400));
  std::vector<std::unique_ptr<TextTask>> tasks;
  for (const NiahConfig& config : NiahConfigs()) tasks.push_back(MakeNiah(config, text));
  tasks.push_back(MakeVariableTracking());
  tasks.push_back(MakeCommonWords());
  tasks.push_back(MakeFrequentWords());
  return tasks;
}

int Count(const std::string& text, const std::string& what) {
  int count = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++count;
  return count;
}

std::map<std::string, int> WordCounts(const std::string& text) {
  std::map<std::string, int> counts;
  std::istringstream words(text);
  for (std::string word; words >> word;) ++counts[word];
  return counts;
}

TEST_CASE("every task: the seed decides, filler makes longer, the answers stand in the prompt") {
  for (const auto& task : AllTasks()) {
    INFO(task->name());
    const int32_t least = task->least_filler();
    const TextSample sample = task->Make(least + 60, 2048, Random(1));
    const TextSample again = task->Make(least + 60, 2048, Random(1));
    CHECK(sample.prompt == again.prompt);
    CHECK(sample.references == again.references);
    CHECK(sample.prompt != task->Make(least + 60, 2048, Random(2)).prompt);
    const TextSample longer = task->Make(least + 90, 2048, Random(1));
    CHECK(longer.prompt.size() > sample.prompt.size());
    CHECK(task->Make(least, 2048, Random(1)).prompt.size() < sample.prompt.size());
    REQUIRE_FALSE(sample.references.empty());
    for (const std::string& reference : sample.references) {
      CHECK(sample.prompt.find(reference) != std::string::npos);
      CHECK(sample.answer_prefix.find(reference) == std::string::npos);
    }
    CHECK_FALSE(sample.answer_prefix.empty());
  }
}

TEST_CASE("needles: as many as configured, and the question names keys, never values") {
  for (const NiahConfig& config : NiahConfigs()) {
    INFO(config.name);
    const auto text = std::make_shared<const std::vector<std::string>>(MakeProse(3, 400));
    const auto task = MakeNiah(config, text);
    const TextSample sample = task->Make(80, 2048, Random(9));
    const int own = config.num_keys * config.num_values;
    const int filler = config.haystack == Haystack::kNeedles ? 80 : 0;
    CHECK(Count(sample.prompt, "One of the special magic ") == own + filler);
    CHECK(static_cast<int>(sample.references.size()) == config.num_queries * config.num_values);
    CHECK(std::set(sample.references.begin(), sample.references.end()).size() ==
          sample.references.size());
    const std::string question = sample.prompt.substr(sample.prompt.rfind('\n'));
    for (const std::string& reference : sample.references) {
      CHECK(question.find(reference) == std::string::npos);
      CHECK(reference.size() == (config.value == Token::kUuid ? 36u : 7u));
    }
    // Each reference belongs to a key that is asked for.
    for (const std::string& reference : sample.references) {
      const size_t end = sample.prompt.find(" is: " + reference + ".");
      REQUIRE(end != std::string::npos);
      const size_t begin = sample.prompt.rfind(" for ", end) + 5;
      CHECK(question.find(sample.prompt.substr(begin, end - begin)) != std::string::npos);
    }
  }
}

TEST_CASE("needles in prose lie at many depths") {
  const auto text = std::make_shared<const std::vector<std::string>>(MakeProse(3, 400));
  const auto task = MakeNiah({.name = "deep", .haystack = Haystack::kText}, text);
  bool early = false;
  bool late = false;
  for (uint64_t seed = 0; seed < 40; ++seed) {
    const TextSample sample = task->Make(100, 2048, Random(seed));
    const double depth = static_cast<double>(sample.prompt.find("One of the special")) /
                         static_cast<double>(sample.prompt.size());
    early = early || depth < 0.25;
    late = late || depth > 0.75;
  }
  CHECK(early);
  CHECK(late);
}

TEST_CASE("variable tracking: one chain of five, told in order") {
  const TextSample sample = MakeVariableTracking()->Make(30, 2048, Random(4));
  REQUIRE(sample.references.size() == 5);
  const std::string body = sample.prompt.substr(sample.prompt.rfind("Memorize and track"));
  size_t at = 0;
  for (size_t i = 0; i < 5; ++i) {
    const std::string statement = "VAR " + sample.references[i] + " = ";
    const size_t found = body.find(statement, at);
    REQUIRE(found != std::string::npos);
    if (i > 0) {
      CHECK(body.compare(found, statement.size() + 9,
                         statement + "VAR " + sample.references[i - 1]) == 0);
    }
    at = found;
  }
  CHECK(Count(body, "VAR ") == 9);  // five statements, four of which name two
}

TEST_CASE("common words are the ten most repeated of the list") {
  for (const int32_t context : {2048, 8192}) {
    const TextSample sample = MakeCommonWords()->Make(100, context, Random(6));
    REQUIRE(sample.references.size() == 10);
    const std::string list = sample.prompt.substr(sample.prompt.rfind("Below is"));
    auto counts = WordCounts(list.substr(0, list.rfind("\nQuestion")));
    for (const std::string& word : sample.references) {
      CHECK(counts[word] == (context >= 4096 ? 30 : 6));
      counts.erase(word);
    }
    CHECK(counts["1."] == 1);
    // The instruction's own words are few.
    for (const auto& [word, count] : counts) CHECK(count <= (context >= 4096 ? 3 : 4));
  }
}

TEST_CASE("frequent words are the three most frequent, but for the dots") {
  const TextSample sample = MakeFrequentWords()->Make(1000, 2048, Random(6));
  REQUIRE(sample.references.size() == 3);
  auto counts = WordCounts(sample.prompt);
  const int dots = counts["..."];
  const int first = counts[sample.references[0]];
  const int second = counts[sample.references[1]];
  const int third = counts[sample.references[2]];
  CHECK(dots == Approx(1000 / 1.645).margin(1));
  CHECK(first == Approx(dots / 4.0).margin(1));
  CHECK(dots > first);
  CHECK(first > second);
  CHECK(second > third);
  for (const std::string& word : sample.references) counts.erase(word);
  counts.erase("...");
  for (const auto& [word, count] : counts) CHECK(count < third);
}

TEST_CASE("the score is the share of references that occur, letter case ignored") {
  const std::vector<std::string> references = {"Amber", "7654321"};
  CHECK(MatchAll("it is AMBER-anchor and 7654321.", references) == 1);
  CHECK(MatchAll("7654321", references) == 0.5);
  CHECK(MatchAll("", references) == 0);
}

TEST_CASE("prose: the seed decides, a longer text begins as a shorter one, sentences differ") {
  const std::vector<std::string> sentences = MakeProse(1, 500);
  CHECK(sentences == MakeProse(1, 500));
  CHECK(sentences != MakeProse(2, 500));
  const std::vector<std::string> begin = MakeProse(1, 50);
  CHECK(std::equal(begin.begin(), begin.end(), sentences.begin()));
  CHECK(std::set(sentences.begin(), sentences.end()).size() > 480);
  for (const std::string& sentence : sentences) CHECK(sentence.find('%') == std::string::npos);
}

TEST_CASE("sentences of a text: split behind full stops and at empty lines") {
  CHECK(
      SplitSentences("One two.  Three\nfour! Version 1.5 is\tout?\n\nA title\n\nEnd") ==
      std::vector<std::string>{"One two.", "Three four!", "Version 1.5 is out?", "A title", "End"});
  CHECK(SplitSentences(" \n\n ").empty());
}

}  // namespace
}  // namespace spin::eval
