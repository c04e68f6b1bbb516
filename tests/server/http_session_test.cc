// One HTTP connection over the loopback: what real clients and bad ones do.
#include <catch2/catch.hpp>
#include <chrono>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/server/http_client.h"
#include "tests/server/test_server.h"

namespace spin {
namespace {

using nlohmann::json;
using std::chrono::milliseconds;
using testing::HttpClient;
using testing::kStreamBody;
using testing::TestServer;

std::vector<std::string> EventsOf(const std::string& body) {
  std::vector<std::string> events;
  std::size_t begin = 0;
  for (std::size_t end = 0; (end = body.find("\n\n", begin)) != std::string::npos;
       begin = end + 2) {
    events.push_back(body.substr(begin, end - begin));
  }
  CHECK(begin == body.size());
  return events;
}

TEST_CASE("a completion streams event by event and the connection stays usable") {
  TestServer test;
  HttpClient client(test.port());
  REQUIRE(client.Send(HttpClient::PostText("/v1/completions", kStreamBody)));
  REQUIRE(test.serving.backend.WaitForRequests(1));
  REQUIRE(test.serving.backend.Send(0, "one"));
  const std::string head = client.ReadUntil("\r\n\r\n");
  CHECK(head.starts_with("HTTP/1.1 200 OK\r\n"));
  CHECK(head.find("Content-Type: text/event-stream; charset=utf-8\r\n") != std::string::npos);
  CHECK(head.find("Cache-Control: no-cache\r\n") != std::string::npos);
  CHECK(head.find("X-Accel-Buffering: no\r\n") != std::string::npos);
  CHECK(head.find("Connection: keep-alive\r\n") != std::string::npos);
  CHECK(client.ReadUntil("\n\n").find("\"one\"") !=
        std::string::npos);  // arrives before the next token exists
  REQUIRE(test.serving.backend.Send(0, " two"));
  CHECK(client.ReadUntil("\n\n").find("\" two\"") != std::string::npos);
  REQUIRE(test.serving.backend.Finish(0, " three"));
  CHECK(client.ReadUntil("0\r\n\r\n").find("data: [DONE]\n\n") != std::string::npos);

  CHECK(client.Get("/health").status == 200);
  CHECK(test.serving.backend.num_cancelled() == 0);
}

TEST_CASE("a whole chat answer comes with its headers") {
  TestServer test;
  HttpClient client(test.port());
  REQUIRE(client.Send(HttpClient::PostText("/v1/chat/completions",
                                           R"({"messages":[{"role":"user","content":"Hi"}]})",
                                           "X-Request-Id: abc-1\r\n")));
  REQUIRE(test.serving.backend.WaitForRequests(1));
  REQUIRE(test.serving.backend.Send(0, "Hel"));
  REQUIRE(test.serving.backend.Finish(0, "lo"));
  const auto response = client.ReadResponse();
  CHECK(response.status == 200);
  CHECK(response.head.find("x-request-id: abc-1\r\n") != std::string::npos);
  CHECK(response.head.find("openai-processing-ms: ") != std::string::npos);
  CHECK(response.head.find("Content-Type: application/json\r\n") != std::string::npos);
  CHECK(json::parse(response.body)["choices"][0]["message"]["content"] == "Hello");
}

TEST_CASE(
    "a client that leaves cancels its request, whether it streams, waits for a token or for the "
    "whole") {
  TestServer test;
  const bool streams = GENERATE(true, false);
  const bool after_first = GENERATE(true, false);
  INFO("streams " << streams << ", after a token " << after_first);
  HttpClient client(test.port());
  const std::string body =
      streams ? kStreamBody : R"({"model":"tiny","prompt":"Hi","max_tokens":50})";
  REQUIRE(client.Send(HttpClient::PostText("/v1/completions", body)));
  REQUIRE(test.serving.backend.WaitForRequests(1));
  const Request request = test.serving.backend.request(0);
  if (after_first) {
    REQUIRE(test.serving.backend.Send(0, "x"));
    if (streams) client.ReadUntil("\n\n");
  }
  client.Close();
  CHECK(test.serving.backend.WaitForCancel(request.id));
  CHECK_FALSE(test.serving.backend.Send(0, "late"));
}

TEST_CASE("a client that stops reading is given up within the write time-out") {
  TestServer test({.write_timeout = milliseconds(300)});
  HttpClient client(test.port());
  client.SetReceiveBuffer(4096);
  REQUIRE(client.Send(HttpClient::PostText("/v1/completions", kStreamBody)));
  REQUIRE(test.serving.backend.WaitForRequests(1));
  const Request request = test.serving.backend.request(0);
  const std::string piece(64 * 1024, 'x');
  RequestOutput output;
  for (int i = 0; i < 200; ++i) {  // far more than the socket buffers hold
    RequestOutput next;
    next.deltas.emplace_back();
    next.deltas[0].text = piece;
    if (!test.serving.backend.SendOutput(0, std::move(next))) break;
  }
  CHECK(test.serving.backend.WaitForCancel(request.id));
}

TEST_CASE("keep-alive serves many requests, HTTP/1.0 and Connection: close end the connection") {
  TestServer test;
  HttpClient client(test.port());
  for (int i = 0; i < 20; ++i) CHECK(client.Get("/health/live").body == R"({"status":"ok"})");
  client.Send("GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  const auto last = client.ReadResponse();
  CHECK(last.status == 200);
  CHECK(last.head.find("Connection: close\r\n") != std::string::npos);
  CHECK(client.AtEnd());

  HttpClient old(test.port());
  old.Send("GET /version HTTP/1.0\r\n\r\n");
  CHECK(old.ReadResponse().body == R"({"version":"0.1.0"})");
  CHECK(old.AtEnd());
}

TEST_CASE("an HTTP/1.0 client gets a stream without chunks") {
  TestServer test;
  HttpClient client(test.port());
  std::string text = HttpClient::PostText("/v1/completions", kStreamBody);
  text.replace(text.find("HTTP/1.1"), 8, "HTTP/1.0");
  REQUIRE(client.Send(text));
  REQUIRE(test.serving.backend.WaitForRequests(1));
  REQUIRE(test.serving.backend.Finish(0, "all"));
  const auto response = client.ReadResponse();
  CHECK(response.head.find("chunked") == std::string::npos);
  const std::vector<std::string> events = EventsOf(response.body);
  REQUIRE(events.size() == 2);
  CHECK(events[1] == "data: [DONE]");
}

TEST_CASE("bodies come whole, in chunks and after 100-continue") {
  TestServer test;
  HttpClient client(test.port());
  client.Send(
      "POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Type: application/json; charset=utf-8\r\n"
      "Transfer-Encoding: chunked\r\n\r\n8\r\n{\"prompt\r\n6\r\n\":\"A\"}\r\n0\r\n\r\n");
  CHECK(json::parse(client.ReadResponse().body)["tokens"] == json::array({256, 65}));
  client.Send(
      "POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nExpect: "
      "100-continue\r\n"
      "Content-Length: 14\r\n\r\n");
  CHECK(client.ReadResponse(false).status == 100);
  client.Send(R"({"prompt":"A"})");
  CHECK(client.ReadResponse().status == 200);
}

TEST_CASE("a body over the limit is a 413 that the client gets to read") {
  TestServer test({.max_body_bytes = 1000});
  const std::string large(100'000, 'x');
  for (const bool chunked : {false, true}) {
    HttpClient client(test.port());
    const std::string head =
        chunked
            ? "POST /tokenize HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n186a0\r\n"
            : "POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n";
    client.Send(head + large);
    const auto response = client.ReadResponse();
    CHECK(response.status == 413);
    CHECK(response.head.find("Connection: close") != std::string::npos);
    CHECK(json::parse(response.body)["error"]["type"] == "invalid_request_error");
  }
  HttpClient client(test.port());
  client.Send(
      "POST /tokenize HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: "
      "100000\r\n\r\n");
  CHECK(client.ReadResponse().status == 413);
}

TEST_CASE("headers over the limit and lines that are no HTTP get an error body") {
  TestServer test({.max_header_bytes = 2000});
  HttpClient client(test.port());
  client.Send("GET /health HTTP/1.1\r\nX-Long: " + std::string(5000, 'a') + "\r\n\r\n");
  const auto long_header = client.ReadResponse();
  CHECK(long_header.status == 431);
  CHECK(json::parse(long_header.body)["error"]["code"].is_null());

  HttpClient garbage(test.port());
  garbage.Send("\x16\x03\x01\x02 this is TLS or worse\r\n\r\n");
  const auto response = garbage.ReadResponse();
  CHECK(response.status == 400);
  CHECK(json::parse(response.body)["error"]["message"].get<std::string>().find("HTTP") !=
        std::string::npos);
}

TEST_CASE("a request sent ahead is answered after the stream; garbage sent ahead gets a 400") {
  TestServer test;
  HttpClient client(test.port());
  const bool garbage = GENERATE(false, true);
  REQUIRE(client.Send(HttpClient::PostText("/v1/completions", kStreamBody) +
                      (garbage ? "NONSENSE\r\n\r\n" : "GET /version HTTP/1.1\r\nHost: x\r\n\r\n")));
  REQUIRE(test.serving.backend.WaitForRequests(1));
  REQUIRE(test.serving.backend.Finish(0, "done"));
  CHECK(client.ReadResponse().body.ends_with("data: [DONE]\n\n"));
  CHECK(client.ReadResponse().status == (garbage ? 400 : 200));
}

TEST_CASE("unknown paths, wrong methods and wrong media types are JSON errors") {
  TestServer test;
  HttpClient client(test.port());
  CHECK(client.Get("/v1/nothing").status == 404);
  const auto wrong = client.Get("/v1/completions");
  CHECK(wrong.status == 405);
  CHECK(wrong.head.find("Allow: POST\r\n") != std::string::npos);
  CHECK(json::parse(wrong.body)["error"].size() == 4);
  client.Send(
      "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: "
      "2\r\n\r\n{}");
  CHECK(client.ReadResponse().status == 415);
  const auto bad = client.Post("/v1/completions", "{\"prompt\": \n  oops}");
  CHECK(bad.status == 400);
  CHECK(json::parse(bad.body)["error"]["message"].get<std::string>().find("line 2, column 3") !=
        std::string::npos);
}

TEST_CASE("HEAD gives the head of GET") {
  TestServer test;
  HttpClient client(test.port());
  for (const char* path : {"/health", "/health/live", "/health/ready"}) {
    const auto response = client.Get(path, "HEAD");
    CHECK(response.status == 200);
    CHECK(response.head.find("Content-Length: 15\r\n") != std::string::npos);
  }
  CHECK(client.Get("/version").status == 200);  // the next answer is in step
}

TEST_CASE("insane request ids are replaced") {
  TestServer test;
  HttpClient client(test.port());
  client.Send("GET /version HTTP/1.1\r\nHost: x\r\nX-Request-Id: a b<script>\r\n\r\n");
  CHECK(client.ReadResponse().head.find("x-request-id: req-") != std::string::npos);
}

TEST_CASE("a quiet stream is kept alive by comments") {
  TestServer test({.idle_ping = milliseconds(50)});
  HttpClient client(test.port());
  REQUIRE(client.Send(HttpClient::PostText("/v1/completions", kStreamBody)));
  REQUIRE(test.serving.backend.WaitForRequests(1));
  CHECK(client.ReadUntil(": ping\n\n").find("200 OK") != std::string::npos);
  CHECK(client.ReadUntil(": ping\n\n").ends_with(": ping\n\n"));
  REQUIRE(test.serving.backend.Finish(0, "late"));
  CHECK(client.ReadUntil("[DONE]").find("late") != std::string::npos);
}

TEST_CASE("a failure before the first token is a status, one after it an event") {
  TestServer test;
  HttpClient client(test.port());
  REQUIRE(client.Send(HttpClient::PostText("/v1/completions", kStreamBody)));
  REQUIRE(test.serving.backend.WaitForRequests(1));
  REQUIRE(test.serving.backend.Fail(0, Internal("the device is lost")));
  const auto early = client.ReadResponse();
  CHECK(early.status == 500);
  CHECK(json::parse(early.body)["error"]["message"].get<std::string>().find("(request req-") !=
        std::string::npos);

  REQUIRE(client.Send(HttpClient::PostText("/v1/completions", kStreamBody)));
  REQUIRE(test.serving.backend.WaitForRequests(2));
  REQUIRE(test.serving.backend.Send(1, "x"));
  REQUIRE(test.serving.backend.Fail(1, Unavailable("draining")));
  const auto late = client.ReadResponse();
  CHECK(late.status == 200);
  const std::vector<std::string> events = EventsOf(late.body);
  REQUIRE(events.size() == 3);
  CHECK(json::parse(events[1].substr(6))["error"]["type"] == "service_unavailable");
  CHECK(events[2] == "data: [DONE]");
  CHECK(client.AtEnd());
}

}  // namespace
}  // namespace spin
