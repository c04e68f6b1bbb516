// Connections, drain and stop of the HTTP server, over the loopback.
#include "server/http/http_server.h"

#include <catch2/catch.hpp>
#include <chrono>
#include <latch>
#include <memory>
#include <new>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

#include "tests/server/http_client.h"
#include "tests/server/test_server.h"

namespace spin {
namespace {

using nlohmann::json;
using std::chrono::milliseconds;
using testing::HttpClient;
using testing::kStreamBody;
using testing::TestServer;

TEST_CASE("too many connections are refused with a 503") {
  TestServer test({.max_connections = 2});
  HttpClient first(test.port());
  HttpClient second(test.port());
  CHECK(first.Get("/version").status == 200);
  CHECK(second.Get("/version").status == 200);
  HttpClient third(test.port());
  const auto response = third.ReadResponse();
  CHECK(response.status == 503);
  CHECK(response.head.find("Retry-After: 1\r\n") != std::string::npos);
}

TEST_CASE("idle connections are closed") {
  TestServer test({.idle_timeout = milliseconds(100)});
  HttpClient client(test.port());
  CHECK(client.Get("/version").status == 200);
  CHECK(client.AtEnd());
}

TEST_CASE("a drain refuses new work, lets streams finish and then ends") {
  TestServer test;
  HttpClient streaming(test.port());
  REQUIRE(streaming.Send(HttpClient::PostText("/v1/completions", kStreamBody)));
  REQUIRE(test.serving.backend.WaitForRequests(1));
  REQUIRE(test.serving.backend.Send(0, "begin"));
  streaming.ReadUntil("begin");

  test.serving.context.state = ServerState::kDraining;
  HttpClient client(test.port());
  const auto refused = client.Post("/v1/completions", kStreamBody);
  CHECK(refused.status == 503);
  CHECK(refused.head.find("Retry-After: ") != std::string::npos);
  CHECK(refused.head.find("Connection: close\r\n") != std::string::npos);
  CHECK(client.AtEnd());
  HttpClient probe(test.port());
  CHECK(probe.Get("/health/ready").status == 503);
  HttpClient live(test.port());
  CHECK(live.Get("/health/live").status == 200);

  std::thread stop([&] { test.server.Stop(milliseconds(5000)); });
  std::this_thread::sleep_for(milliseconds(50));
  REQUIRE(test.serving.backend.Finish(0, "end"));
  CHECK(streaming.ReadUntil("0\r\n\r\n").find("[DONE]") != std::string::npos);
  streaming.Close();
  stop.join();
  CHECK(test.serving.backend.num_cancelled() == 0);
  CHECK_FALSE(HttpClient(test.port()).Send("GET /version HTTP/1.1\r\n\r\n"));
}

TEST_CASE("streams that outlive the grace of a stop are cancelled") {
  TestServer test;
  HttpClient client(test.port());
  REQUIRE(client.Send(HttpClient::PostText("/v1/completions", kStreamBody)));
  REQUIRE(test.serving.backend.WaitForRequests(1));
  const Request request = test.serving.backend.request(0);
  test.server.Stop(milliseconds(50));
  CHECK(test.serving.backend.WaitForCancel(request.id));
  CHECK(test.server.num_connections() == 0);
}

TEST_CASE("large bodies are handled on a worker while others are served") {
  TestServer test({.inline_body_bytes = 10});
  HttpClient client(test.port());
  const auto response =
      client.Post("/tokenize", R"({"prompt":")" + std::string(1'000'000, 'a') + R"("})");
  CHECK(response.status == 200);
  CHECK(json::parse(response.body)["count"] == 1'000'001);
}

// "/wait" is answered once Go was called, everything else at once.
class WaitingHandler final : public HttpHandler {
 public:
  std::unique_ptr<HttpTask> Handle(HttpRequest& request, Waker) override {
    if (request.path == "/wait") {
      entered_.count_down();
      go_.wait();
    }
    HttpResponse response;
    response.body = request.path;
    return Ready(std::move(response));
  }
  void WaitUntilEntered() { entered_.wait(); }
  void Go() { go_.count_down(); }

 private:
  std::latch entered_{1}, go_{1};
};

TEST_CASE("a large body that takes long to handle does not hold up the next one") {
  WaitingHandler handler;
  HttpServer server({.port = 0, .inline_body_bytes = 10}, handler);
  REQUIRE(server.Start().ok());
  const std::string body(1000, 'x');
  HttpClient slow(server.port()), next(server.port());
  REQUIRE(slow.Send(HttpClient::PostText("/wait", body)));
  handler.WaitUntilEntered();
  CHECK(next.Post("/next", body).body == "/next");
  handler.Go();
  CHECK(slow.ReadResponse().body == "/wait");
}

// Fails where the path says.
class FailingHandler final : public HttpHandler {
 public:
  std::unique_ptr<HttpTask> Handle(HttpRequest& request, Waker) override {
    if (request.path == "/handle") throw std::bad_alloc();
    return std::make_unique<Task>(request.path);
  }

 private:
  class Task final : public HttpTask {
   public:
    explicit Task(std::string path) : path_(std::move(path)) {}
    std::optional<HttpResponse> PollHead() override {
      if (path_ == "/head") throw std::runtime_error("no head");
      HttpResponse head;
      head.streamed = true;
      return head;
    }
    Body PollBody() override {
      if (path_ == "/body" || sent_) throw std::runtime_error("no body");
      sent_ = true;
      return {.data = "begin"};
    }

   private:
    const std::string path_;
    bool sent_ = false;
  };
};

TEST_CASE("an exception is a 500 where no answer has begun, else the connection ends") {
  FailingHandler handler;
  HttpServer server({.port = 0, .inline_body_bytes = 10}, handler);
  REQUIRE(server.Start().ok());
  for (const char* path : {"/handle", "/head", "/body"}) {
    for (const std::size_t bytes : {1, 1000}) {  // on the connection's thread, and on a worker
      INFO(path << " with " << bytes);
      HttpClient client(server.port());
      const auto response = client.Post(path, std::string(bytes, 'x'));
      CHECK(response.status == 500);
      const json error = json::parse(response.body)["error"];
      CHECK(error["type"] == "server_error");
      CHECK(error["message"].get<std::string>().find("(request req-") != std::string::npos);
      CHECK(client.AtEnd());
    }
  }
  HttpClient client(server.port());
  REQUIRE(client.Send(HttpClient::PostText("/later", "x")));
  const std::string answer = client.ReadUntil("0\r\n\r\n");
  CHECK(answer.find("begin") != std::string::npos);
  CHECK_FALSE(answer.ends_with("0\r\n\r\n"));
}

TEST_CASE("large bodies share a room; one too many is a 503, small ones and later ones pass") {
  TestServer test({.inline_body_bytes = 100, .max_bodies_bytes = 1000});
  const auto body_of = [](std::size_t bytes) {
    return R"({"prompt":")" + std::string(bytes - 13, 'a') + R"("})";
  };
  const std::string text = HttpClient::PostText("/tokenize", body_of(900));
  HttpClient first(test.port());
  REQUIRE(first.Send(text.substr(0, text.size() - 100)));
  HttpClient::Response refused;
  for (int i = 0; i < 100 && refused.status != 503; ++i) {  // until the first one's bytes were read
    refused = HttpClient(test.port()).Post("/tokenize", body_of(900));
  }
  REQUIRE(refused.status == 503);
  CHECK(refused.head.find("Retry-After: 1\r\n") != std::string::npos);
  CHECK(json::parse(refused.body)["error"]["type"] == "service_unavailable");
  CHECK(HttpClient(test.port()).Post("/tokenize", body_of(90)).status == 200);
  REQUIRE(first.Send(text.substr(text.size() - 100)));
  CHECK(first.ReadResponse().status == 200);
  CHECK(first.Post("/tokenize", body_of(900)).status == 200);
}

TEST_CASE("a port in use and a host that is no address are errors that name the key") {
  TestServer test;
  HttpServer taken({.port = test.port()}, *test.handler);
  const absl::Status status = taken.Start();
  CHECK(status.code() == absl::StatusCode::kUnavailable);
  CHECK(MessageOf(status).find("server.http_port") != std::string::npos);
  HttpServer nowhere({.host = "not a host"}, *test.handler);
  CHECK(nowhere.Start().code() == absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace spin
