// One request to the OpenAI handler without a network; the test plays the engine.
#pragma once

#include <catch2/catch.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "server/openai/openai_handler.h"
#include "tests/server/serving_fakes.h"

namespace spin::testing {

struct Exchange {
  TestServing serving;
  std::unique_ptr<HttpHandler> handler = MakeOpenAiHandler(serving.context);
  std::unique_ptr<HttpTask> task;
  int wakes = 0;

  void Post(const std::string& path, const nlohmann::json& body) {
    HttpRequest request;
    request.method = "POST";
    request.path = path;
    request.id = "req-1";
    request.body = body.dump();
    task = handler->Handle(request, [this] { ++wakes; });
  }
  nlohmann::json Whole() {
    const auto response = task->PollHead();
    REQUIRE(response.has_value());
    CHECK(response->status == 200);
    return nlohmann::json::parse(response->body);
  }
  // All events of the finished stream; the last is [DONE].
  std::vector<nlohmann::json> Events() {
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
    std::vector<nlohmann::json> events;
    std::size_t begin = 0;
    for (std::size_t end = 0; (end = text.find("\n\n", begin)) != std::string::npos;
         begin = end + 2) {
      const std::string line = text.substr(begin, end - begin);
      REQUIRE(line.starts_with("data: "));
      if (line != "data: [DONE]") events.push_back(nlohmann::json::parse(line.substr(6)));
    }
    return events;
  }
};

inline const nlohmann::json kChat = {{"model", "tiny"},
                                     {"messages", {{{"role", "user"}, {"content", "Hi"}}}}};

inline nlohmann::json With(nlohmann::json body, const nlohmann::json& more) {
  body.update(more);
  return body;
}

}  // namespace spin::testing
