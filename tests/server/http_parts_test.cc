// The small parts of the HTTP layer: headers, targets, routes, ids, events.
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <set>

#include "server/http/http_message.h"
#include "server/http/random_id.h"
#include "server/http/request_target.h"
#include "server/http/router.h"
#include "server/http/sse_writer.h"

namespace spin {
namespace {

TEST_CASE("headers are found in any case") {
  HttpRequest request;
  request.headers = {{"content-TYPE", "a"}, {"Content-Type", "b"}};
  CHECK(request.Header("Content-Type") == "a");
  CHECK(request.Header("Content").empty());
}

TEST_CASE("targets are split and percent-decoded") {
  const auto path_of = [](std::string_view target) {
    std::string path;
    std::string query;
    ParseRequestTarget(target, path, query);
    return path + "|" + query;
  };
  CHECK(path_of("/v1/models") == "/v1/models|");
  CHECK(path_of("/a%2Fb%20c?x=%20") == "/a/b c|x=%20");
  CHECK(path_of("/bad%zz%4") == "/bad%zz%4|");
  CHECK(path_of("http://host:80/p?q") == "/p|q");
  CHECK(path_of("http://host") == "/|");
  CHECK(path_of("*") == "*|");
}

TEST_CASE("routes match exactly or by prefix") {
  Router router;
  const auto answer = [](int status) {
    return [status](HttpRequest& request, const Waker&) {
      HttpResponse response;
      response.status = status;
      response.body = request.path_tail;
      return Ready(std::move(response));
    };
  };
  router.Add("GET", "/a", answer(201));
  router.Add("POST", "/a", answer(202));
  router.Add("GET", "/m/*", answer(203));
  const auto route = [&](const char* method, const char* path) {
    HttpRequest request;
    request.method = method;
    request.path = path;
    return *router.Route(request, nullptr)->PollHead();
  };
  CHECK(route("GET", "/a").status == 201);
  CHECK(route("POST", "/a").status == 202);
  CHECK(route("GET", "/m/x/y").body == "x/y");
  CHECK(route("GET", "/m/").status == 404);
  CHECK(route("GET", "/a/").status == 404);
  const HttpResponse wrong = route("DELETE", "/a");
  CHECK(wrong.status == 405);
  CHECK(wrong.headers.at(0).second == "GET, HEAD, POST");
  CHECK(nlohmann::json::parse(wrong.body)["error"]["type"] == "invalid_request_error");
}

TEST_CASE("ids do not repeat, and only sane ones are taken from clients") {
  std::set<std::string> ids;
  for (int i = 0; i < 10'000; ++i) ids.insert(MakeRandomId("cmpl-"));
  CHECK(ids.size() == 10'000);
  CHECK(ids.begin()->size() == 37);
  CHECK(RequestIdFor("Abc-1_2.3:4") == "Abc-1_2.3:4");
  for (const std::string& bad :
       {std::string(), std::string("a b"), std::string("a\r\nX: y"), std::string(129, 'a')}) {
    CHECK(RequestIdFor(bad).starts_with("req-"));
  }
}

TEST_CASE("events are one line and a blank line") {
  std::string out;
  AppendSseEvent(R"({"a":"\n"})", out);
  AppendSsePing(out);
  AppendSseDone(out);
  CHECK(out == "data: {\"a\":\"\\n\"}\n\n: ping\n\ndata: [DONE]\n\n");
}

}  // namespace
}  // namespace spin
