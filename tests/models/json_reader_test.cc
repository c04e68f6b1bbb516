// Goal: JSON of model folders is read with errors that name the file, the place or the key.
#include "models/json_reader.h"

#include <catch2/catch.hpp>
#include <string>

namespace spin {
namespace {

TEST_CASE("Only a JSON object is taken, and errors say where the text goes wrong") {
  CHECK(ParseJsonObject("{\"a\": 1}", "x.json").ok());
  CHECK(MessageOf(ParseJsonObject("[1]", "x.json").status()).find("array") != std::string::npos);
  CHECK(MessageOf(ParseJsonObject("{\"a\": }", "x.json").status()).find("column 7") !=
        std::string::npos);
  CHECK_FALSE(ParseJsonObject("", "x.json").ok());
  CHECK_FALSE(ParseJsonObject("{\"a\": \"\xFF\"}", "x.json").ok());
}

TEST_CASE("nesting is bounded, brackets inside strings do not count") {
  const std::string deep(100'000, '[');
  CHECK(MessageOf(ParseJsonObject(deep, "x.json").status()).find("nested") != std::string::npos);
  const std::string quoted = "{\"a\": \"" + std::string(1000, '[') + "\\\"[\"}";
  CHECK(ParseJsonObject(quoted, "x.json").ok());
}

TEST_CASE("typed access names the key, takes null for absent and integral floats for integers") {
  const Json object = *ParseJsonObject(
      R"({"n": 3, "f": 4.0, "x": 0.5, "none": null, "ids": [1, 2], "s": "t"})", "x.json");
  const JsonReader reader(object, "x.json");
  CHECK(*reader.Int("n", 0, 10) == 3);
  CHECK(*reader.Int("f", 0, 10) == 4);
  CHECK_FALSE(reader.Int("none", 0, 10)->has_value());
  for (const auto& status :
       {reader.Int("x", 0, 10).status(), reader.Int("n", 4, 10).status(), reader.Bool("s").status(),
        reader.Number("s", 0, 1).status(), reader.RequiredInt("absent", 0, 1).status(),
        reader.IntList("s").status()}) {
    REQUIRE_FALSE(status.ok());
    CHECK(MessageOf(status).find("x.json: key '") == 0);
  }
  CHECK(reader.IntList("ids")->size() == 2);
  CHECK(reader.IntList("n")->size() == 1);
}

}  // namespace
}  // namespace spin
