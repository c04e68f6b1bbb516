// The HTTP server on a free port with the OpenAI handler and a scripted engine.
#pragma once

#include <catch2/catch.hpp>
#include <memory>

#include "server/http/http_server.h"
#include "server/openai/openai_handler.h"
#include "tests/server/serving_fakes.h"

namespace spin::testing {

struct TestServer {
  TestServing serving;
  std::unique_ptr<HttpHandler> handler = MakeOpenAiHandler(serving.context);
  HttpServer server;

  explicit TestServer(HttpServer::Options options = {}) : server(WithAnyPort(options), *handler) {
    REQUIRE(server.Start().ok());
  }
  static HttpServer::Options WithAnyPort(HttpServer::Options options) {
    options.port = 0;
    return options;
  }
  uint16_t port() const { return server.port(); }
};

inline constexpr char kStreamBody[] =
    R"({"model":"tiny","prompt":"Hi","stream":true,"max_tokens":50})";

}  // namespace spin::testing
