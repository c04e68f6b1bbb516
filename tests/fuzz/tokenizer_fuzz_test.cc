// Goal: no tokenizer.json, however broken, crashes or hangs; it loads or is refused with a message.
// Method: seeded mutations of a small valid file, of its bytes and of its structure.
#include "tests/fuzz/tokenizer_fuzz.h"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <string>

#include "tests/fuzz/mutants.h"
#include "tests/models/tokenizer/small_tokenizer.h"

namespace spin {
namespace {

using Json = nlohmann::json;

Json RandomValue(Random& random) {
  switch (random.Below(12)) {
    case 0:
      return nullptr;
    case 1:
      return true;
    case 2:
      return -1;
    case 3:
      return 1e300;
    case 4:
      return uint64_t{1} << random.Below(64);
    case 5:
      return "";
    case 6:
      return "(?:a|aa)*\\s+[^";
    case 7:
      return "Sequence";
    case 8:
      return Json::array();
    case 9:
      return Json::object();
    case 10:
      return static_cast<int>(random.Below(300));
    default:
      return std::string(1 + random.Below(3), static_cast<char>('a' + random.Below(3)));
  }
}

// Walks down to a random value, biased away from the vocabulary's hundreds of entries, and changes
// it.
void MutateStructure(Json* json, Random& random) {
  Json* node = json;
  while (node->is_structured() && !node->empty() && (node == json || random.Below(5) != 0)) {
    auto child = node->begin();
    std::advance(child, random.Below(node->size()));
    if (random.Below(12) == 0) {
      node->erase(child);
      return;
    }
    if (node->is_array() && random.Below(12) == 0) {
      const Json copy = *child;
      node->push_back(copy);
      return;
    }
    node = &*child;
  }
  *node = node->is_boolean() ? Json(!node->get<bool>()) : RandomValue(random);
}

TEST_CASE("Thousands of broken tokenizer files are served or refused, never a crash") {
  const Json good = SmallTokenizerJson();
  const std::string text = good.dump();
  REQUIRE(FuzzTokenizerJson(text));
  testing::RunMutants(
      [&](Random& random) {
        if (random.Below(2) == 0) return testing::MutateBytes(text, random);
        Json json = good;
        for (uint32_t n = 1 + random.Below(2); n > 0; --n) MutateStructure(&json, random);
        return json.dump();
      },
      &FuzzTokenizerJson, 190);
}

}  // namespace
}  // namespace spin
