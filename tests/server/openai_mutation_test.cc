// Seeded mutations of good bodies: whatever comes, the handler answers with JSON, an error with its four keys, and
// never crashes.
#include <catch2/catch.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/random.h"
#include "server/openai/openai_handler.h"
#include "tests/server/serving_fakes.h"

namespace spin {
namespace {

using nlohmann::json;

const std::vector<std::pair<std::string, std::string>>& Seeds() {
  static const std::vector<std::pair<std::string, std::string>> seeds = {
      {"/v1/completions",
       R"({"model":"tiny","prompt":["Hi",""],"max_tokens":5,"temperature":0.5,"top_p":0.9,"n":2,"logprobs":2,)"
       R"("echo":true,"stop":["a","b"],"logit_bias":{"5":1.5},"seed":7,"stream":false,"truncate_prompt_tokens":4})"},
      {"/v1/completions",
       R"({"prompt":[[1,2,3],[4]],"stream":true,"stream_options":{"include_usage":true}})"},
      {"/v1/chat/completions",
       R"({"messages":[{"role":"system","content":"s"},{"role":"user","content":[{"type":"text","text":"\u00e9"}]},)"
       R"({"role":"assistant","tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{}"}}]},)"
       R"({"role":"tool","content":"x"}],"tools":[{"type":"function","function":{"name":"f","parameters":{"a":[1]}}}],)"
       R"("tool_choice":"auto","logprobs":true,"top_logprobs":3,"chat_template_kwargs":{"k":null},"stream":true})"},
      {"/v1/chat/completions",
       R"({"messages":[{"role":"assistant","content":"ab "}],"continue_final_message":true,"max_tokens":9})"},
      {"/tokenize", R"({"prompt":"Hi","add_special_tokens":true,"return_token_strs":true})"},
      {"/detokenize", R"({"tokens":[1,2,257]})"},
  };
  return seeds;
}

constexpr const char* kPieces[] = {
    "null", "true",  "-1",   "1e308",   "0.5",         "\"\"",    "[]",        "{}", "[[",
    "\\u",  "\xFF",  "\"",   ",",       "99999999999", "{\"a\":", "[1,2",      "\n", ":",
    "1.0",  "\"x\"", "[-5]", "\\ud800", "1e-400",      "[null]",  "2147483648"};

std::string Mutate(std::string text, Random& random) {
  const int changes = static_cast<int>(random.Below(4)) + 1;
  for (int i = 0; i < changes && !text.empty(); ++i) {
    const std::size_t place = random.Below(static_cast<uint32_t>(text.size()));
    const std::size_t length = std::min<std::size_t>(random.Below(12), text.size() - place);
    switch (random.Below(5)) {
      case 0:
        text[place] = static_cast<char>(random.Below(256));
        break;
      case 1:
        text.erase(place, length);
        break;
      case 2:
        text.insert(place, kPieces[random.Below(std::size(kPieces))]);
        break;
      case 3:
        text.insert(place, text.substr(place, length));
        break;
      default: {  // a whole value for another
        const std::size_t begin = text.find(':', place);
        const std::size_t end = text.find_first_of(",}]", begin == std::string::npos ? 0 : begin);
        if (begin == std::string::npos || end == std::string::npos || end < begin) break;
        text.replace(begin + 1, end - begin - 1, kPieces[random.Below(std::size(kPieces))]);
      }
    }
  }
  return text;
}

void CheckAnswer(HttpTask& task, const std::string& path) {
  const auto head = task.PollHead();
  REQUIRE(head.has_value());
  if (head->streamed) {
    std::string text;
    for (bool last = false; !last;) {
      const HttpTask::Body body = task.PollBody();
      text += body.data;
      last = body.last;
    }
    CHECK(text.ends_with("data: [DONE]\n\n"));
    return;
  }
  const json body = json::parse(head->body, nullptr, false);
  REQUIRE_FALSE(body.is_discarded());
  if (head->status == 200) {
    CHECK((path == "/tokenize" || path == "/detokenize" || body.contains("choices")));
    return;
  }
  CHECK((head->status == 400 || head->status == 404));
  REQUIRE(body["error"].size() == 4);
  CHECK(body["error"]["message"].is_string());
  CHECK(body["error"]["type"].is_string());
}

TEST_CASE("mutated bodies never crash and always get a well-formed answer") {
  constexpr uint64_t kSeed = 20260101;
  Random random(kSeed);
  testing::TestServing serving;
  const auto handler = MakeOpenAiHandler(serving.context);
  int accepted = 0;
  for (int i = 0; i < 30'000; ++i) {
    const auto& [path, seed] = Seeds()[random.Below(static_cast<uint32_t>(Seeds().size()))];
    HttpRequest request;
    request.method = "POST";
    request.path = path;
    request.body = Mutate(seed, random);
    INFO("seed " << kSeed << ", case " << i << ": " << request.body);
    const std::size_t before = serving.backend.num_requests();
    const auto task = handler->Handle(request, nullptr);
    for (std::size_t k = before; k < serving.backend.num_requests(); ++k)
      serving.backend.Finish(k, "ok");
    CheckAnswer(*task, path);
    accepted += serving.backend.num_requests() > before ? 1 : 0;
  }
  CHECK(accepted > 500);  // the mutations are not all hopeless
}

}  // namespace
}  // namespace spin
