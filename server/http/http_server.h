// The HTTP/1.1 server: connections, limits, time-outs, graceful stop. What is answered is the handler's business.
//
// Boost.Beast behind a pimpl (its headers cost seconds a file). One or two threads run all connections; each connection
// is a coroutine on its own strand. While a task runs, the connection also reads, so a client that goes away is
// noticed at once, whatever is being written; its task is then destroyed.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "common/status.h"
#include "server/http/http_message.h"

namespace spin {

class HttpServer {
 public:
  struct Options {
    std::string host = "127.0.0.1";
    uint16_t port = 8000;  // 0: any free port
    int io_threads = 2;
    std::size_t max_header_bytes = std::size_t{64} << 10;  // request line and headers; more: 431
    std::size_t max_body_bytes = std::size_t{32} << 20;    // more: 413
    std::size_t inline_body_bytes = std::size_t{16}
                                    << 10;  // larger bodies are handled on a worker thread
    // Of all bodies over inline_body_bytes that are being read or handled; more: 503.
    std::size_t max_bodies_bytes = std::size_t{256} << 20;
    int max_connections = 1024;                       // one more gets a 503 at once
    std::chrono::milliseconds idle_timeout{75'000};   // between the requests of a connection
    std::chrono::milliseconds read_timeout{60'000};   // one header, or one body
    std::chrono::milliseconds write_timeout{30'000};  // one write: the client does not read
    std::chrono::milliseconds idle_ping{15'000};      // HttpTask::OnIdle
  };

  // `handler` outlives the server.
  HttpServer(const Options& options, HttpHandler& handler);
  ~HttpServer();  // Stop(0)

  // Binds and begins to answer. InvalidArgument for a host that is no address, Unavailable where the port is taken.
  absl::Status Start();

  // The port in use. REQUIRES: Start returned OK.
  uint16_t port() const;

  int num_connections() const;

  // Stops accepting, closes idle connections, lets running answers finish until `grace` has passed, then closes all.
  // Returns when no handler or task runs any more. Idempotent; not from a handler.
  void Stop(std::chrono::milliseconds grace);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace spin
