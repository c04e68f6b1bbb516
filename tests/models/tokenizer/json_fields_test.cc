// Goal: a field of the wrong type is an error that names it, whatever JSON value it is looked for in.
#include "models/tokenizer/json_fields.h"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <string>

#include "common/status.h"

namespace spin {
namespace {

using Json = nlohmann::json;

TEST_CASE("Absent and null fields are the same, wrong types are errors with the name") {
  const Json json = {{"yes", true},
                     {"none", nullptr},
                     {"text", "x"},
                     {"list", Json::array()},
                     {"map", Json::object()}};
  CHECK(*BoolField(json, "yes", false));
  CHECK(*BoolField(json, "none", true));
  CHECK_FALSE(*BoolField(json, "absent", false));
  CHECK(MessageOf(BoolField(json, "text", false).status()).find("\"text\"") != std::string::npos);
  CHECK(*StringField(json, "text") == "x");
  CHECK(MessageOf(StringField(json, "none").status()) == "\"none\" is missing");
  CHECK_FALSE(StringField(json, "yes").ok());
  CHECK(ArrayField(json, "list").ok());
  CHECK_FALSE(ArrayField(json, "map").ok());
  CHECK(ObjectField(json, "map").ok());
  CHECK_FALSE(ObjectField(json, "absent").ok());
  CHECK(FieldOrNull(Json(5), "text") == nullptr);
}

TEST_CASE("Indices are whole, not negative, and below their limit") {
  CHECK(*IndexValue(Json(0u), "it", 5) == 0);
  CHECK(*IndexValue(Json(4u), "it", 5) == 4);
  for (const Json& bad :
       {Json(5u), Json(-1), Json(1.5), Json("1"), Json(nullptr), Json(UINT64_MAX)}) {
    CHECK_FALSE(IndexValue(bad, "it", 5).ok());
  }
}

}  // namespace
}  // namespace spin
