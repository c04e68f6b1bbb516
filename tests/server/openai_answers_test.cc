// Answers of the OpenAI handler without a network: shapes whole and streamed, against a scripted engine.
#include <catch2/catch.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "server/openai/openai_handler.h"
#include "tests/server/serving_fakes.h"

namespace spin {
namespace {

using nlohmann::json;
using testing::DeltaOf;
using testing::TestServing;

struct Exchange {
  TestServing serving;
  std::unique_ptr<HttpHandler> handler = MakeOpenAiHandler(serving.context);
  std::unique_ptr<HttpTask> task;
  int wakes = 0;

  void Post(const std::string& path, const json& body) {
    HttpRequest request;
    request.method = "POST";
    request.path = path;
    request.id = "req-1";
    request.body = body.dump();
    task = handler->Handle(request, [this] { ++wakes; });
  }
  json Whole() {
    const auto response = task->PollHead();
    REQUIRE(response.has_value());
    CHECK(response->status == 200);
    return json::parse(response->body);
  }
  // All events of the finished stream; the last is [DONE].
  std::vector<json> Events() {
    const auto head = task->PollHead();
    REQUIRE(head.has_value());
    REQUIRE(head->streamed);
    std::string text;
    for (bool last = false; !last;) {
      const HttpTask::Body body = task->PollBody();
      text += body.data;
      last = body.last;
      if (!last) REQUIRE_FALSE(body.data.empty());
    }
    REQUIRE(text.ends_with("data: [DONE]\n\n"));
    std::vector<json> events;
    std::size_t begin = 0;
    for (std::size_t end = 0; (end = text.find("\n\n", begin)) != std::string::npos; begin = end + 2) {
      const std::string line = text.substr(begin, end - begin);
      REQUIRE(line.starts_with("data: "));
      if (line != "data: [DONE]") events.push_back(json::parse(line.substr(6)));
    }
    return events;
  }
};

const json kChat = {{"model", "tiny"}, {"messages", {{{"role", "user"}, {"content", "Hi"}}}}};

json With(json body, const json& more) {
  body.update(more);
  return body;
}

TEST_CASE("a completion has every key of the schema") {
  Exchange x;
  x.Post("/v1/completions", {{"model", "tiny"}, {"prompt", "Hi"}});
  CHECK_FALSE(x.task->PollHead().has_value());
  const Request request = x.serving.backend.request(0);
  CHECK(request.prompt == std::vector<int32_t>{256, 'H', 'i'});
  CHECK(request.sampling.max_tokens == 16);
  x.serving.backend.Send(0, "wor");
  CHECK(x.wakes == 1);
  x.serving.backend.Finish(0, "ld");
  const json answer = x.Whole();
  CHECK(answer["id"].get<std::string>().starts_with("cmpl-"));
  CHECK(answer["id"].get<std::string>().size() >= 29);
  CHECK(answer["object"] == "text_completion");
  CHECK(answer["created"].get<int64_t>() > 1'600'000'000);
  CHECK(answer["model"] == "tiny");
  CHECK(answer["system_fingerprint"] == "spin-test");
  const json& choice = answer["choices"][0];
  CHECK(choice["text"] == "world");
  CHECK(choice["index"] == 0);
  CHECK(choice["logprobs"].is_null());
  CHECK(choice["finish_reason"] == "stop");
  CHECK(choice["stop_reason"].is_null());
  CHECK_FALSE(choice.contains("token_ids"));
  CHECK(answer["usage"] == json::parse(R"({"prompt_tokens":3,"completion_tokens":5,"total_tokens":8,
      "prompt_tokens_details":{"cached_tokens":0}})"));
}

TEST_CASE("a chat answer has every key of the schema") {
  Exchange x;
  x.Post("/v1/chat/completions", kChat);
  const Request request = x.serving.backend.request(0);
  CHECK(x.serving.tokenizer.Decode(request.prompt, false) == "[user]Hi\n[assistant]");
  CHECK_FALSE(request.sampling.max_tokens.has_value());
  RequestOutput output;
  output.deltas.push_back(DeltaOf("Hello", FinishReason::kLength));
  output.finished = true;
  output.cached_prompt_tokens = 8;
  x.serving.backend.SendOutput(0, std::move(output));
  const json answer = x.Whole();
  CHECK(answer["id"].get<std::string>().starts_with("chatcmpl-"));
  CHECK(answer["object"] == "chat.completion");
  CHECK(answer["service_tier"].is_null());
  const json& choice = answer["choices"][0];
  CHECK(choice["message"] == json::parse(R"({"role":"assistant","content":"Hello","refusal":null})"));
  CHECK(choice["logprobs"].is_null());
  CHECK(choice["finish_reason"] == "length");
  CHECK(answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 8);
}

TEST_CASE("chat chunks: the role comes with the first token, then text, then the reason; the text is the same") {
  Exchange x;
  x.Post("/v1/chat/completions", With(kChat, {{"stream", true}}));
  CHECK_FALSE(x.task->PollHead().has_value());  // no token, no head
  x.serving.backend.Send(0, "Hel");
  x.serving.backend.Send(0, "");  // held back: no chunk
  x.serving.backend.Send(0, "lo");
  x.serving.backend.Finish(0);
  const std::vector<json> events = x.Events();
  REQUIRE(events.size() == 4);
  for (const json& event : events) {
    CHECK(event["object"] == "chat.completion.chunk");
    CHECK(event["id"] == events[0]["id"]);
    CHECK(event["created"] == events[0]["created"]);
    CHECK(event["choices"][0].contains("logprobs"));
    CHECK_FALSE(event.contains("usage"));
  }
  CHECK(events[0]["choices"][0]["delta"] == json::parse(R"({"role":"assistant","content":""})"));
  CHECK(events[1]["choices"][0]["delta"] == json::parse(R"({"content":"Hel"})"));
  CHECK(events[1]["choices"][0]["finish_reason"].is_null());
  CHECK(events[2]["choices"][0]["delta"] == json::parse(R"({"content":"lo"})"));
  CHECK(events[3]["choices"][0]["delta"] == json::object());
  CHECK(events[3]["choices"][0]["finish_reason"] == "stop");
}

TEST_CASE("usage while streaming: null and at the end, or running on every chunk") {
  Exchange x;
  const bool continuous = GENERATE(false, true);
  x.Post("/v1/completions", {{"prompt", "Hi"},
                             {"stream", true},
                             {"stream_options", {{"include_usage", true}, {"continuous_usage_stats", continuous}}}});
  x.serving.backend.Send(0, "ab");
  x.serving.backend.Finish(0, "c");
  const std::vector<json> events = x.Events();
  REQUIRE(events.size() == 3);
  CHECK(events[2]["choices"] == json::array());
  CHECK(events[2]["usage"]["completion_tokens"] == 3);
  if (continuous) {
    CHECK(events[0]["usage"]["completion_tokens"] == 2);
    CHECK(events[1]["usage"]["total_tokens"] == 6);
  } else {
    CHECK(events[0]["usage"].is_null());
    CHECK(events[0].contains("usage"));
  }
}

TEST_CASE("several prompts and choices are numbered prompt by prompt, and each ends by itself") {
  Exchange x;
  x.Post("/v1/completions", {{"prompt", {"a", "b"}}, {"n", 2}, {"stream", true}});
  REQUIRE(x.serving.backend.num_requests() == 2);
  CHECK(x.serving.backend.request(0).sampling.n == 2);
  for (std::size_t prompt = 0; prompt < 2; ++prompt) {
    x.serving.backend.Send(prompt, "x", FinishReason::kLength, false, 1);
    x.serving.backend.Send(prompt, "y", FinishReason::kStop, true, 0);
  }
  std::vector<std::string> texts(4);
  std::vector<int> ends(4);
  for (const json& event : x.Events()) {
    const json& choice = event["choices"][0];
    texts[choice["index"]] += choice["text"];
    ends[choice["index"]] += choice["finish_reason"].is_null() ? 0 : 1;
  }
  CHECK(texts == std::vector<std::string>{"y", "x", "y", "x"});
  CHECK(ends == std::vector<int>{1, 1, 1, 1});
}

TEST_CASE("greedy choices are computed once") {
  Exchange x;
  x.Post("/v1/completions", {{"prompt", "a"}, {"n", 3}, {"temperature", 0}});
  CHECK(x.serving.backend.request(0).sampling.n == 1);
  x.serving.backend.Finish(0, "same");
  const json answer = x.Whole();
  REQUIRE(answer["choices"].size() == 3);
  for (int i = 0; i < 3; ++i) {
    CHECK(answer["choices"][i]["index"] == i);
    CHECK(answer["choices"][i]["text"] == "same");
  }
  CHECK(answer["usage"]["completion_tokens"] == 12);
  CHECK(answer["usage"]["prompt_tokens"] == 2);
}

TEST_CASE("completion log-probabilities, and echo with those of the prompt") {
  Exchange x;
  x.Post("/v1/completions", {{"prompt", "\xC3\xA9!"}, {"logprobs", 1}, {"echo", true}, {"max_tokens", 3}});
  CHECK(x.serving.backend.request(0).sampling.logprobs == 1);
  CHECK(x.serving.backend.request(0).sampling.prompt_logprobs == 1);
  RequestOutput output;
  for (const int32_t token : {0xC3, 0xA9, int32_t{'!'}}) output.prompt_logprobs.push_back(testing::SampledOf(token));
  output.deltas.push_back(DeltaOf("ab", FinishReason::kStop));
  output.deltas[0].tokens[1].logprob = -std::numeric_limits<float>::infinity();
  output.deltas[0].stop_string = "zz";
  output.finished = true;
  x.serving.backend.SendOutput(0, std::move(output));
  const json choice = x.Whole()["choices"][0];
  CHECK(choice["text"] == "\xC3\xA9!ab");
  CHECK(choice["stop_reason"] == "zz");
  const json& logprobs = choice["logprobs"];
  CHECK(logprobs["tokens"] == json::array({"<s>", "bytes:\\xc3", "bytes:\\xa9", "!", "a", "b"}));
  CHECK(logprobs["text_offset"] == json::array({0, 0, 1, 1, 2, 3}));
  CHECK(logprobs["token_logprobs"] == json::array({nullptr, -1.0, -1.0, -1.0, -1.0, -9999.0}));
  CHECK(logprobs["top_logprobs"][0].is_null());
  CHECK(logprobs["top_logprobs"][4] == json::parse(R"({"b":-0.5,"a":-1.0})"));
  CHECK(logprobs["top_logprobs"][5] == json::parse(R"({"c":-0.5,"b":-9999.0})"));
}

TEST_CASE("max_tokens 0 with echo runs the prompt alone") {
  Exchange x;
  x.Post("/v1/completions", {{"prompt", {72, 105}}, {"echo", true}, {"max_tokens", 0}, {"stream", true}});
  CHECK(x.serving.backend.request(0).sampling.max_tokens == 0);
  CHECK(x.serving.backend.request(0).sampling.prompt_logprobs == 0);
  x.serving.backend.Send(0, "", FinishReason::kLength, true);
  const std::vector<json> events = x.Events();
  REQUIRE(events.size() == 1);
  CHECK(events[0]["choices"][0]["text"] == "Hi");
  CHECK(events[0]["choices"][0]["finish_reason"] == "length");
}

TEST_CASE("chat log-probabilities carry bytes and alternatives") {
  Exchange x;
  x.Post("/v1/chat/completions", With(kChat, {{"logprobs", true}, {"top_logprobs", 2}}));
  x.serving.backend.Finish(0, "a");
  const json logprobs = x.Whole()["choices"][0]["logprobs"];
  CHECK(logprobs["refusal"].is_null());
  const json& entry = logprobs["content"][0];
  CHECK(entry["token"] == "a");
  CHECK(entry["logprob"] == -1.0);
  CHECK(entry["bytes"] == json::array({97}));
  REQUIRE(entry["top_logprobs"].size() == 2);
  CHECK(entry["top_logprobs"][0]["token"] == "b");
  CHECK(entry["top_logprobs"][0]["bytes"] == json::array({98}));
}

TEST_CASE("token ids are returned on request, whole and streamed") {
  Exchange whole;
  whole.Post("/v1/completions", {{"prompt", "H"}, {"return_token_ids", true}, {"prompt_logprobs", 1}});
  RequestOutput output;
  output.prompt_logprobs.push_back(testing::SampledOf('H'));
  output.deltas.push_back(DeltaOf("ok", FinishReason::kStop));
  output.deltas[0].stop_token = 7;
  output.finished = true;
  whole.serving.backend.SendOutput(0, std::move(output));
  const json choice = whole.Whole()["choices"][0];
  CHECK(choice["token_ids"] == json::array({'o', 'k'}));
  CHECK(choice["prompt_token_ids"] == json::array({256, 'H'}));
  CHECK(choice["stop_reason"] == 7);
  CHECK(choice["prompt_logprobs"][0].is_null());
  CHECK(choice["prompt_logprobs"][1]["73"]["rank"] == 1);
  CHECK(choice["prompt_logprobs"][1]["72"]["logprob"] == -1.0);

  Exchange stream;
  stream.Post("/v1/chat/completions", With(kChat, {{"stream", true}, {"return_token_ids", true}}));
  stream.serving.backend.Send(0, "a");
  stream.serving.backend.Finish(0);
  const std::vector<json> events = stream.Events();
  REQUIRE(events.size() == 3);
  CHECK(events[0]["prompt_token_ids"].size() == 20);
  CHECK(events[1]["choices"][0]["token_ids"] == json::array({'a'}));
}

TEST_CASE("a model without tokenizer takes token ids and answers with token ids") {
  Exchange x;
  x.serving.context.tokenizer = nullptr;
  x.Post("/v1/completions", {{"prompt", "text"}});
  const auto refused = x.task->PollHead();
  CHECK(refused->status == 400);
  CHECK(json::parse(refused->body)["error"]["message"].get<std::string>().find("no tokenizer") != std::string::npos);

  const bool stream = GENERATE(false, true);
  x.Post("/v1/completions", {{"prompt", {1, 2, 3}}, {"stream", stream}, {"logprobs", 0}});
  RequestOutput output;
  output.deltas.push_back(DeltaOf("ab", FinishReason::kLength));
  output.deltas[0].text.clear();
  output.finished = true;
  x.serving.backend.SendOutput(0, std::move(output));
  const json choice = (stream ? x.Events().at(0) : x.Whole())["choices"][0];
  CHECK(choice["text"] == "");
  CHECK(choice["token_ids"] == json::array({97, 98}));
  CHECK(choice["logprobs"]["tokens"] == json::array({"token_id:97", "token_id:98"}));

  x.Post("/v1/chat/completions", kChat);
  CHECK(x.task->PollHead()->status == 400);
  x.Post("/v1/completions", {{"prompt", {1}}, {"stop", "x"}});
  CHECK(json::parse(x.task->PollHead()->body)["error"]["param"] == "stop");
}

TEST_CASE("invalid UTF-8 from the engine becomes a replacement character") {
  Exchange x;
  x.Post("/v1/completions", {{"prompt", "H"}});
  x.serving.backend.Finish(0, "a\xFFz");
  CHECK(x.Whole()["choices"][0]["text"] == "a\xEF\xBF\xBDz");
}

TEST_CASE("an engine that refuses is a status; the other prompts of the request are cancelled") {
  struct Row {
    absl::Status status;
    int http;
    std::string type;
    json code;
    json param;
  };
  const std::vector<Row> rows = {
      {ResourceExhausted("the queue is full"), 429, "rate_limit_error", "rate_limit_exceeded", nullptr},
      {Unavailable("draining"), 503, "service_unavailable", nullptr, nullptr},
      {OutOfRange("too long"), 400, "invalid_request_error", "context_length_exceeded", nullptr},
      {FailedPrecondition("never fits"), 400, "invalid_request_error", nullptr, nullptr},
      {InvalidArgument("n: at most 4 sequences"), 400, "invalid_request_error", nullptr, "n"},
      {Internal("bug"), 500, "server_error", nullptr, nullptr},
  };
  for (const Row& row : rows) {
    Exchange x;
    x.serving.backend.RefuseNext(row.status);
    x.Post("/v1/completions", {{"prompt", "H"}});
    const auto response = x.task->PollHead();
    INFO(response->body);
    CHECK(response->status == row.http);
    const json error = json::parse(response->body)["error"];
    CHECK(error.size() == 4);
    CHECK(error["type"] == row.type);
    CHECK(error["code"] == row.code);
    CHECK(error["param"] == row.param);
    const bool retry = !response->headers.empty() && response->headers[0].first == "Retry-After";
    CHECK(retry == (row.http == 429 || row.http == 503));
  }
}

TEST_CASE("an aborted sequence never shows as a finish reason") {
  Exchange x;
  x.Post("/v1/completions", {{"prompt", "H"}});
  x.serving.backend.Send(0, "x", FinishReason::kAbort, true);
  const auto response = x.task->PollHead();
  CHECK(response->status == 503);
  CHECK(response->body.find("abort") == std::string::npos);
}

TEST_CASE("a reader that is too slow gets an error at the end of what was kept") {
  Exchange x;
  x.Post("/v1/completions", {{"prompt", "H"}, {"stream", true}});
  int taken = 0;
  while (taken < 100'000 && x.serving.backend.Send(0, "x")) ++taken;
  CHECK(taken < 100'000);
  const std::vector<json> events = x.Events();
  CHECK(events.size() == static_cast<std::size_t>(taken) + 1);
  CHECK(events.back()["error"]["code"] == "rate_limit_exceeded");
}

TEST_CASE("destroying a task cancels what runs and silences the waker") {
  Exchange x;
  x.Post("/v1/completions", {{"prompt", {"a", "b"}}});
  x.serving.backend.Finish(0, "done");
  CHECK_FALSE(x.task->PollHead().has_value());
  const int wakes = x.wakes;
  x.task.reset();
  CHECK(x.serving.backend.num_cancelled() == 1);
  CHECK_FALSE(x.serving.backend.Send(1, "late"));
  CHECK(x.wakes == wakes);
}

TEST_CASE("models are listed and found by any of their names") {
  Exchange x;
  HttpRequest request;
  request.method = "GET";
  request.path = "/v1/models";
  json list = json::parse(x.handler->Handle(request, nullptr)->PollHead()->body);
  REQUIRE(list["data"].size() == 2);
  CHECK(list["object"] == "list");
  CHECK(list["data"][0]["id"] == "tiny");
  CHECK(list["data"][0]["object"] == "model");
  CHECK(list["data"][0]["created"] == 1790000000);
  CHECK(list["data"][0]["owned_by"] == "spin");
  CHECK(list["data"][0]["max_model_len"] == 128);
  request.path = "/v1/models/tiny-alias";
  CHECK(json::parse(x.handler->Handle(request, nullptr)->PollHead()->body)["id"] == "tiny-alias");
  request.path = "/v1/models/org/other";
  const auto missing = x.handler->Handle(request, nullptr)->PollHead();
  CHECK(missing->status == 404);
  CHECK(json::parse(missing->body)["error"]["code"] == "model_not_found");
}

TEST_CASE("tokenize and detokenize") {
  Exchange x;
  x.Post("/tokenize", {{"prompt", "Hi"}, {"return_token_strs", true}});
  CHECK(x.Whole() == json::parse(
                         R"({"count":3,"max_model_len":128,"tokens":[256,72,105],"token_strs":["<s>","H","i"]})"));
  x.Post("/tokenize", {{"prompt", "Hi"}, {"add_special_tokens", false}});
  CHECK(x.Whole() == json::parse(R"({"count":2,"max_model_len":128,"tokens":[72,105],"token_strs":null})"));
  x.Post("/tokenize", With(kChat, {{"add_generation_prompt", false}}));
  CHECK(x.Whole()["count"] == 9);
  x.Post("/detokenize", {{"tokens", {256, 72, 105}}});
  CHECK(x.Whole() == json::parse(R"({"prompt":"<s>Hi"})"));
  x.Post("/detokenize", {{"tokens", {258}}});
  CHECK(x.task->PollHead()->status == 400);
}

TEST_CASE("while the model loads only the live probe is well") {
  Exchange x;
  x.serving.context.state = ServerState::kLoading;
  x.Post("/v1/completions", {{"prompt", "H"}});
  const auto response = x.task->PollHead();
  CHECK(response->status == 503);
  CHECK(response->headers.at(0) == std::pair<std::string, std::string>("Retry-After", "5"));
  HttpRequest request;
  request.method = "GET";
  for (const auto& [path, status] : std::vector<std::pair<std::string, int>>{
           {"/health/live", 200}, {"/health", 503}, {"/health/ready", 503}, {"/v1/models", 503}, {"/metrics", 200}}) {
    request.path = path;
    INFO(path);
    CHECK(x.handler->Handle(request, nullptr)->PollHead()->status == status);
  }
}

}  // namespace
}  // namespace spin
