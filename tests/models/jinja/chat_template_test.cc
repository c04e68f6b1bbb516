// Goal: chat templates render as transformers' apply_chat_template does, and no template can crash
// or hang the server. Method: replays what Jinja itself rendered (chat_template_cases.json, made by
// tests/models/testdata/make_chat_template_cases.py), then mutates the recorded templates under a
// fixed seed.
#include "models/tokenizer/chat_template.h"

#include <catch2/catch.hpp>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "common/random.h"
#include "common/status.h"
#include "models/jinja/value.h"

namespace spin {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kNow = 1721952000;  // 2024-07-26 00:00:00 UTC

jinja::Value ToValue(const Json& json) {
  switch (json.type()) {
    case Json::value_t::null:
      return jinja::Value::None();
    case Json::value_t::boolean:
      return jinja::Value::Bool(json.get<bool>());
    case Json::value_t::number_float:
      return jinja::Value::Double(json.get<double>());
    case Json::value_t::number_integer:
    case Json::value_t::number_unsigned:
      return jinja::Value::Int(json.get<int64_t>());
    case Json::value_t::array: {
      jinja::ValueList items;
      for (const Json& item : json) items.push_back(ToValue(item));
      return jinja::Value::List(std::move(items));
    }
    case Json::value_t::object: {
      jinja::Dict dict;
      for (const auto& [key, value] : json.items()) dict.Set(key, ToValue(value));
      return jinja::Value::Map(std::move(dict));
    }
    default:
      return jinja::Value::String(json.get<std::string>());
  }
}

const Json& Recorded() {
  static const Json* const kRecorded = [] {
    setenv("TZ", "UTC", 1);
    tzset();
    std::ifstream file("tests/models/jinja/chat_template_cases.json");
    return new Json(Json::parse(file));
  }();
  return *kRecorded;
}

absl::StatusOr<std::unique_ptr<ChatTemplate>> Parse(const std::string& source) {
  return ChatTemplate::Parse(source, [] { return kNow; });
}

// Renders as the case says, and compares with what Jinja did.
void Replay(const ChatTemplate& chat_template, const Json& variables, const Json& expected) {
  const absl::StatusOr<std::string> text = chat_template.Render(ToValue(variables));
  if (expected.contains("expected")) {
    REQUIRE(text.status().ToString() == "OK");
    CHECK(*text == expected["expected"].get<std::string>());
  } else if (expected.contains("raised")) {
    CHECK(text.status().code() == absl::StatusCode::kInvalidArgument);
    CHECK(MessageOf(text.status()) == expected["raised"].get<std::string>());
  } else {
    CHECK_FALSE(text.ok());
  }
}

Json CaseVariables(const Json& recorded) {
  Json variables = Recorded()["base"];
  variables["messages"] = Recorded()["conversations"][recorded["conversation"].get<std::string>()];
  variables.update(Recorded()["settings"][recorded["setting"].get<std::string>()]);
  return variables;
}

TEST_CASE("Chat templates render what transformers renders") {
  REQUIRE(Recorded()["cases"].size() > 500);
  for (const auto& [name, source] : Recorded()["templates"].items()) {
    const auto parsed = Parse(source.get<std::string>());
    INFO(name);
    REQUIRE(parsed.status().ToString() == "OK");
    for (const Json& recorded : Recorded()["cases"]) {
      if (recorded["template"] != name) continue;
      INFO(recorded["conversation"] << " " << recorded["setting"]);
      Replay(**parsed, CaseVariables(recorded), recorded);
    }
  }
}

TEST_CASE("Expressions and statements give what Jinja gives") {
  REQUIRE(Recorded()["expressions"].size() > 300);
  for (const Json& recorded : Recorded()["expressions"]) {
    const std::string source = recorded["source"].get<std::string>();
    INFO(source);
    const auto parsed = Parse(source);
    // Jinja finds some errors when it renders that are found here at the start.
    if (!parsed.ok()) INFO(MessageOf(parsed.status()));
    if (!parsed.ok() && recorded.contains("error")) continue;
    CHECK(parsed.status().ToString() == "OK");
    if (parsed.ok()) Replay(**parsed, Recorded()["variables"], recorded);
  }
}

TEST_CASE(
    "What the interpreter does not know is an error at the start that names it and its line") {
  for (const Json& recorded : Recorded()["parse_errors"]) {
    INFO(recorded["source"]);
    const auto parsed = Parse(recorded["source"].get<std::string>());
    REQUIRE_FALSE(parsed.ok());
    const std::string message = MessageOf(parsed.status());
    CHECK_THAT(message, Catch::Contains(recorded["names"].get<std::string>()));
    CHECK_THAT(message,
               Catch::Contains("line " + std::to_string(recorded["line"].get<int>()) + ":"));
  }
}

TEST_CASE("Errors of rendering name their line") {
  const auto parsed = Parse("a\n\n{{ 1 + nothing }}");
  REQUIRE(parsed.ok());
  const auto text = (*parsed)->Render(jinja::Value::Map({}));
  CHECK(MessageOf(text.status()) == "line 3: 'nothing' is undefined");
}

TEST_CASE("Rendering ends with an error when a template asks for too much") {
  const std::vector<std::string> sources = {
      "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
      "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% "
      "endfor %}",
      "{{ 'abc' * 99999999999 }}",
      "{{ [1] * 99999999999 }}",
      "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
      "{% set ns = namespace(x=[]) %}{% for i in range(9999) %}{% set ns.x = [ns.x] %}{% endfor %}",
      "{% set ns = namespace(x=[]) %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] %}{% "
      "endfor %}{{ ns.x }}",
      "{% set ns = namespace() %}{% set ns.me = ns %}{{ ns }}",
      "{{ 'a'.center(99999999999) }}",
      "{{ ('a' * 999999).replace('', 'b' * 999999) }}",
      "{% for i in range(99999) %}{% for j in range(999) %}{{ 'x' * 99 }}{% endfor %}{% endfor %}",
      "{{ 9223372036854775807 + 1 }}",
  };
  for (const std::string& source : sources) {
    INFO(source);
    const auto parsed = Parse(source);
    REQUIRE(parsed.ok());
    CHECK_FALSE((*parsed)->Render(jinja::Value::Map({})).ok());
  }
  for (const std::string_view piece :
       {"(", "[", "{1:", "-", "not ", "a if b else ", "a.", "a|trim|", "a+"}) {
    std::string source = "{{ ";
    for (int i = 0; i < 100000; ++i) source += piece;
    INFO(piece);
    CHECK_FALSE(Parse(source + "a }}").ok());
  }
  std::string blocks;
  for (int i = 0; i < 10000; ++i) blocks += "{% if a %}";
  CHECK_FALSE(Parse(blocks).ok());
}

TEST_CASE("No mutation of a template crashes or hangs it") {
  std::vector<std::string> sources;
  for (const auto& [name, source] : Recorded()["templates"].items()) sources.push_back(source);
  for (const Json& recorded : Recorded()["expressions"]) sources.push_back(recorded["source"]);
  const std::vector<std::string> pieces = {
      "{%",  "%}", "{{", "}}", "-%}",  "{%-", "|", "(", ")",   "[",     "]",
      "'",   "\"", "\\", "if", "for",  "in",  ".", ":", "~",   " is ",  "{#",
      "not", "*",  "//", "1",  "\xff", "\n",  ",", "=", "set", "endif", "else"};
  Json variables = Recorded()["variables"];
  variables.update(Recorded()["base"]);
  variables["messages"] = Recorded()["conversations"]["tool"];
  const jinja::Value values = ToValue(variables);
  const uint64_t seed = 20240726;
  Random random(seed);
  int parsed_count = 0;
  for (int round = 0; round < 6000; ++round) {
    std::string source = sources[random.Below(static_cast<uint32_t>(sources.size()))];
    const uint32_t edits = 1 + random.Below(4);
    for (uint32_t i = 0; i < edits; ++i) {
      const size_t at = random.Below(static_cast<uint32_t>(source.size()) + 1);
      switch (random.Below(3)) {
        case 0:
          source.insert(at, pieces[random.Below(static_cast<uint32_t>(pieces.size()))]);
          break;
        case 1:
          source.erase(at, 1 + random.Below(5));
          break;
        default:
          source.insert(at,
                        source.substr(random.Below(static_cast<uint32_t>(source.size()) + 1), 20));
      }
    }
    INFO("seed " << seed << " round " << round << ": " << source);
    const auto parsed = Parse(source);
    if (!parsed.ok()) {
      CHECK_THAT(MessageOf(parsed.status()), Catch::StartsWith("chat template: "));
      continue;
    }
    ++parsed_count;
    const auto text = (*parsed)->Render(values);
    if (!text.ok()) CHECK(text.status().code() == absl::StatusCode::kInvalidArgument);
  }
  CHECK(parsed_count > 500);
}

}  // namespace
}  // namespace spin
