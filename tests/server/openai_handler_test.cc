// Models and health: the endpoints that need no engine.
#include "server/openai/openai_handler.h"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "tests/server/exchange.h"

namespace spin {
namespace {

using nlohmann::json;
using testing::Exchange;

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

TEST_CASE("while the model loads only the live probe is well") {
  Exchange x;
  x.serving.context.state = ServerState::kLoading;
  x.Post("/v1/completions", {{"prompt", "H"}});
  const auto response = x.task->PollHead();
  CHECK(response->status == 503);
  CHECK(response->headers.at(0) == std::pair<std::string, std::string>("Retry-After", "5"));
  HttpRequest request;
  request.method = "GET";
  for (const auto& [path, status] : std::vector<std::pair<std::string, int>>{{"/health/live", 200},
                                                                             {"/health", 503},
                                                                             {"/health/ready", 503},
                                                                             {"/v1/models", 503},
                                                                             {"/metrics", 200}}) {
    request.path = path;
    INFO(path);
    CHECK(x.handler->Handle(request, nullptr)->PollHead()->status == status);
  }
}

}  // namespace
}  // namespace spin
