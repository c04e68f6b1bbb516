// Typed reading of JSON members.
#include "server/openai/parse_helpers.h"

#include <catch2/catch.hpp>
#include <vector>

#include "server/error_mapping.h"

namespace spin {
namespace {

TEST_CASE("null and absent members leave the value as it is") {
  const Json body = {{"a", nullptr}};
  bool flag = true;
  std::optional<int64_t> number = 7;
  std::string text = "kept";
  CHECK(ReadBool(body, "a", flag).ok());
  CHECK(ReadInt(body, "b", 0, 1, number).ok());
  CHECK(ReadString(body, "a", text).ok());
  CHECK(flag);
  CHECK(number == 7);
  CHECK(text == "kept");
}

TEST_CASE("integers are numbers without a fraction that 64 bits hold") {
  CHECK(IntegerOf(Json(3)) == 3);
  CHECK(IntegerOf(Json(-3.0)) == -3);
  CHECK(IntegerOf(Json(uint64_t{1} << 63)) == std::nullopt);
  CHECK(IntegerOf(Json(1e300)) == std::nullopt);
  CHECK(IntegerOf(Json(0.5)) == std::nullopt);
  CHECK(IntegerOf(Json(true)) == std::nullopt);
  CHECK(IntegerOf(Json("1")) == std::nullopt);
}

TEST_CASE("ranges include their ends unless they say otherwise") {
  const auto read = [](double value, NumberRange range) {
    std::optional<double> out;
    return ReadNumber(Json{{"x", value}}, "x", range, out);
  };
  CHECK(read(0, {.min = 0, .max = 1}).ok());
  CHECK(read(1, {.min = 0, .max = 1}).ok());
  const absl::Status excluded = read(0, {.min = 0, .max = 1, .min_excluded = true});
  CHECK(ToApiError(excluded).param == "x");
  CHECK(MessageOf(excluded).find("above 0 to 1") != std::string::npos);
}

TEST_CASE("token ids stay inside the vocabulary") {
  std::vector<int32_t> ids;
  CHECK(ReadTokenIds(Json::array({0, 9}), "p", 10, ids).ok());
  CHECK(ids == std::vector<int32_t>{0, 9});
  CHECK(ToApiError(ReadTokenIds(Json::array({10}), "p", 10, ids)).param == "p");
  CHECK_FALSE(ReadTokenIds(Json("text"), "p", 10, ids).ok());
}

TEST_CASE("refused members are named") {
  CHECK(RefuseMembers(Json{{"a", nullptr}}, {"a"}).ok());
  CHECK(ToApiError(RefuseMembers(Json{{"b", 1}}, {"a", "b"})).code == kCodeUnsupported);
}

}  // namespace
}  // namespace spin
