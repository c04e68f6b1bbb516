#include "tools/bench/load_generator.h"

#include <catch2/catch.hpp>
#include <limits>

#include "tests/tools/bench/scripted_server.h"

namespace spin {
namespace {

const std::string kText = R"({"choices": [{"index": 0, "text": "a"}]})";
const std::string kUsage =
    R"({"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 5}})";

ServeOptions OptionsFor(const ScriptedServer& server) {
  ServeOptions options;
  options.url = server.url();
  options.timeout_s = 5;
  return options;
}

LoadResult Run(const ServeOptions& options, int count) {
  auto result = RunLoad(options, "m", MakePrompts(options, count, 0), {});
  REQUIRE(result.ok());
  return *std::move(result);
}

TEST_CASE("Streams are timed event by event") {
  constexpr int kDelayMs = 20;
  const ScriptedServer server([](const std::string&) {
    return StreamOf({kText, kText, kText, kUsage, "[DONE]"}, kDelayMs);
  });
  const LoadResult result = Run(OptionsFor(server), 1);
  const RequestRecord& record = result.records[0];
  REQUIRE(record.error == "");
  CHECK(record.input_tokens == 11);
  CHECK(record.output_tokens == 5);
  // The head and the first event each come after a delay; sleeps may be longer, never shorter.
  CHECK(record.ttft_s >= 0.040);
  REQUIRE(record.itl_s.size() == 2);
  for (const double gap : record.itl_s) CHECK(gap > 0.001);
  CHECK(record.e2e_s == Approx(record.ttft_s + record.itl_s[0] + record.itl_s[1]));
  CHECK(record.e2e_s >= 0.080);
  CHECK(result.duration_s >= record.e2e_s);
}

TEST_CASE("A closed loop keeps its clients busy and no more") {
  const ScriptedServer server([](const std::string&) { return StreamOf({kText, "[DONE]"}, 5); });
  ServeOptions options = OptionsFor(server);
  options.concurrency = 3;
  const LoadResult result = Run(options, 10);
  for (const RequestRecord& record : result.records) {
    CHECK(record.completed());
    CHECK(record.output_tokens == 1);  // no usage: events are counted
  }
  CHECK(result.max_in_flight == 3);
  CHECK(server.max_in_flight() <= 3);
  CHECK(server.requests().size() == 10);
}

TEST_CASE("An open loop sends at the drawn times, whatever the answers do") {
  const ScriptedServer server([](const std::string&) { return StreamOf({kText, "[DONE]"}, 60); });
  ServeOptions options = OptionsFor(server);
  options.request_rate = 100;
  const LoadResult result = Run(options, 8);
  const auto arrivals = Arrivals(8, 100, 1, options.seed);
  for (size_t i = 0; i < 8; ++i) CHECK(result.records[i].start_s >= arrivals[i]);
  CHECK(result.max_in_flight > 1);
  options.concurrency = 2;
  CHECK(Run(options, 8).max_in_flight == 2);
}

TEST_CASE("An infinite rate sends everything at once, or as much as the cap allows") {
  const ScriptedServer server([](const std::string&) { return StreamOf({kText, "[DONE]"}, 60); });
  ServeOptions options = OptionsFor(server);
  options.request_rate = std::numeric_limits<double>::infinity();
  CHECK(Run(options, 12).max_in_flight == 12);
  options.concurrency = 5;
  CHECK(Run(options, 12).max_in_flight == 5);
}

TEST_CASE("Token ids are sent as they are, and count where the server gives no usage") {
  const ScriptedServer server([](const std::string&) { return StreamOf({kText, "[DONE]"}, 0); });
  ServeOptions options = OptionsFor(server);
  options.token_ids = true;
  options.input_len = 3;
  const Prompt prompt = MakePrompts(options, 1, 0)[0];
  const LoadResult result = Run(options, 1);
  CHECK(result.records[0].input_tokens == 3);
  CHECK_THAT(server.requests()[0],
             Catch::Contains(absl::StrFormat(R"("prompt":[%d,%d,%d])", prompt.ids[0], prompt.ids[1],
                                             prompt.ids[2])));
}

TEST_CASE("A request that goes wrong is a record with the reason") {
  const auto error_of = [](const ScriptedAnswer& answer) {
    const ScriptedServer server([&](const std::string&) { return answer; });
    return Run(OptionsFor(server), 1).records[0].error;
  };
  using Catch::Contains;
  CHECK(error_of(AnswerOf("429 Too Many Requests", R"({"error": {"message": "full"}})")) ==
        "HTTP 429: full");
  CHECK(error_of(StreamOf({kText}, 0)) == "the stream ended before [DONE]");
  CHECK(error_of(StreamOf({"[DONE]"}, 0)) == "the stream held no text");
  CHECK(error_of(StreamOf({R"({"error": {"message": "gone"}})"}, 0)) == "gone");
  CHECK_THAT(error_of(StreamOf({"nonsense"}, 0)), Contains("not a JSON object"));
  CHECK_THAT(
      error_of({.delay_ms = 0, .pieces = {"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\ncut"}}),
      Contains("cannot read the answer"));
}

TEST_CASE("A server that falls silent fails the request after the timeout") {
  const ScriptedServer server([](const std::string&) {
    return ScriptedAnswer{.delay_ms = 1000, .pieces = {"HTTP/1.1 200 OK\r\n\r\n"}};
  });
  ServeOptions options = OptionsFor(server);
  options.timeout_s = 0.1;
  const LoadResult result = Run(options, 1);
  CHECK_FALSE(result.records[0].completed());
  CHECK(result.duration_s < 0.9);
}

TEST_CASE("The key and the endpoint go into the request") {
  const ScriptedServer server([](const std::string&) { return StreamOf({kText, "[DONE]"}, 0); });
  ServeOptions options = OptionsFor(server);
  options.url += "/v1/";
  options.api_key = "secret";
  options.chat = true;
  Run(options, 1);
  CHECK_THAT(server.requests()[0], Catch::StartsWith("POST /v1/chat/completions HTTP/1.1\r\n"));
  CHECK_THAT(server.requests()[0], Catch::Contains("Authorization: Bearer secret\r\n"));
}

TEST_CASE("The first model is asked for, and a missing server is explained") {
  ServeOptions options;
  {
    const ScriptedServer server(
        [](const std::string&) { return AnswerOf("200 OK", R"({"data": [{"id": "me"}]})"); });
    options = OptionsFor(server);
    CHECK(FetchFirstModel(options).value() == "me");
  }
  const auto model = FetchFirstModel(options);
  REQUIRE_FALSE(model.ok());
  CHECK_THAT(MessageOf(model.status()), Catch::Contains("no server at " + options.url));
  options.url = "https://example.com";
  CHECK_THAT(MessageOf(FetchFirstModel(options).status()), Catch::Contains("only http://"));
}

}  // namespace
}  // namespace spin
