// Requests to the engine: models without tokenizer, and refusals.
#include "server/openai/generation_handler.h"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "tests/server/exchange.h"

namespace spin {
namespace {

using nlohmann::json;
using testing::DeltaOf;
using testing::Exchange;
using testing::kChat;

TEST_CASE("a model without tokenizer takes token ids and answers with token ids") {
  Exchange x;
  x.serving.context.tokenizer = nullptr;
  x.Post("/v1/completions", {{"prompt", "text"}});
  const auto refused = x.task->PollHead();
  CHECK(refused->status == 400);
  CHECK(json::parse(refused->body)["error"]["message"].get<std::string>().find("no tokenizer") !=
        std::string::npos);

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

TEST_CASE("an engine that refuses is a status; the other prompts of the request are cancelled") {
  struct Row {
    absl::Status status;
    int http;
    std::string type;
    json code;
    json param;
  };
  const std::vector<Row> rows = {
      {ResourceExhausted("the queue is full"), 429, "rate_limit_error", "rate_limit_exceeded",
       nullptr},
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

}  // namespace
}  // namespace spin
