// The testbed's language, token for token as its specification's examples have it.
#include "tools/eval/testbed_tasks.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

namespace spin::eval {
namespace {

TEST_CASE("every recorded example is made again, and only its answer is right") {
  std::ifstream file("tests/tools/testdata/testbed_examples.json");
  const nlohmann::json recorded = nlohmann::json::parse(file);
  const auto tasks = MakeTestbedTasks();
  int examples = 0;
  for (const auto& example : recorded.at("examples")) {
    const auto name = example.at("task").get<std::string>();
    const auto task = std::find_if(tasks.begin(), tasks.end(),
                                   [&](const auto& one) { return one->name() == name; });
    REQUIRE(task != tasks.end());
    INFO(name << " of " << example.at("length") << ", " << example.at("index"));
    const auto sample =
        (*task)->Sample(example.at("length").get<int32_t>(), example.at("seed").get<uint64_t>(),
                        example.at("index").get<int32_t>());
    REQUIRE(sample.ok());
    CHECK(sample->prompt == example.at("prompt").get<std::vector<int32_t>>());
    std::vector<int32_t> answer = example.at("answer").get<std::vector<int32_t>>();
    CHECK(sample->max_new == static_cast<int32_t>(answer.size()));
    CHECK(sample->score(answer) == 1);
    ++answer.back();
    CHECK(sample->score(answer) == 0);
    answer.pop_back();
    CHECK(sample->score(answer) == 0);
    ++examples;
  }
  CHECK(examples >= 20);
}

TEST_CASE("lengths, seeds and indices out of range are refused") {
  for (const auto& task : MakeTestbedTasks()) {
    CHECK(task->Sample(256, (1 << 24) - 1, (1 << 16) - 1).ok());
    CHECK_FALSE(task->Sample(255, 1, 0).ok());
    CHECK_FALSE(task->Sample(1 << 20, 1, 0).ok());
    CHECK_FALSE(task->Sample(256, 1 << 24, 0).ok());
    CHECK_FALSE(task->Sample(256, 1, 1 << 16).ok());
  }
}

TEST_CASE("a document asks about its own records, to its last token") {
  for (const int32_t length : {256, 1024, 8192}) {
    const auto document = MakeTestbedDocument(length, 3);
    REQUIRE(document.ok());
    REQUIRE(document->size() == static_cast<size_t>(length));
    CHECK(*document == *MakeTestbedDocument(length, 3));
    CHECK(*document != *MakeTestbedDocument(length, 4));
    const std::vector<int32_t>& t = *document;
    std::map<int32_t, std::pair<int32_t, int32_t>> bound;
    int asked = 0;
    for (size_t i = 0; i + 6 < t.size(); ++i) {
      if (t[i] == 3) bound[t[i + 1]] = {t[i + 2], t[i + 3]};  // SET key V V'
      if (t[i] != 5) continue;                                // ASK key ANS key V V' END
      CHECK(t[i + 2] == 7);
      CHECK(t[i + 3] == t[i + 1]);
      CHECK(bound.at(t[i + 1]) == std::pair{t[i + 4], t[i + 5]});
      CHECK(t[i + 6] == 4);
      ++asked;
    }
    CHECK(asked == length / 64);
    CHECK(t[t.size() - 7] == 5);
  }
  CHECK_FALSE(MakeTestbedDocument(255, 1).ok());
  CHECK_FALSE(MakeTestbedDocument(256, 1 << 24).ok());
}

}  // namespace
}  // namespace spin::eval
