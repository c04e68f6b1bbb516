// Requests, answers and handlers of the HTTP server, as plain data: nothing here knows Boost.
//
// A handler turns a request into a task; the connection polls the task. A task that is not ready says so and calls its
// Waker when there is more: the connection then polls again. So no thread ever waits for a generation, and a connection
// whose client reads slowly simply polls less often.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace spin {

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

struct HttpRequest {
  std::string method;   // "GET"; a HEAD request arrives as GET, its body is left out by the server
  std::string path;     // percent-decoded, without the query
  std::string query;    // as sent
  HttpHeaders headers;  // names as sent
  std::string body;     // whole; gone when HttpHandler::Handle has returned
  std::string id;       // x-request-id: the client's where sane, else made here
  std::string path_tail;  // what a "/*" route matched

  // The value of the first header of that name (any case); empty when absent.
  std::string_view Header(std::string_view name) const;
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  HttpHeaders headers;
  std::string body;       // whole; unused when streamed
  bool streamed = false;  // the body comes from HttpTask::PollBody
};

// One answer in the making. The connection's thread calls one method at a time. Destroyed when the answer is sent or
// the client is gone, whichever comes first: the destructor gives up work that is still running.
class HttpTask {
 public:
  virtual ~HttpTask() = default;

  // The answer (or the head of a streamed one) once it is known; nothing: call again after a wake.
  virtual std::optional<HttpResponse> PollHead() = 0;

  struct Body {
    std::string data;    // may be empty: call again after a wake
    bool last = false;   // nothing follows `data`
    bool close = false;  // with `last`: the connection ends too (the stream failed)
  };
  // REQUIRES: PollHead gave a streamed answer. Bounded: a few tens of KiB at most unless one piece is larger.
  virtual Body PollBody() { return {.data = "", .last = true}; }

  // Nothing was sent for Options::idle_ping: a stream may say something that keeps proxies alive.
  virtual void OnIdle() {}
};

// Wakes the connection that polls a task. Any thread; cheap; never blocks. Not to be called after the task's
// destructor.
using Waker = std::function<void()>;

class HttpHandler {
 public:
  virtual ~HttpHandler() = default;

  // Any thread, several at once. Never throws, never waits for the engine. The request may be moved from.
  virtual std::unique_ptr<HttpTask> Handle(HttpRequest& request, Waker waker) = 0;

  // True while the server drains: each connection is closed after its answer.
  virtual bool closing() const { return false; }
};

// A task whose answer is known already.
class ReadyTask final : public HttpTask {
 public:
  explicit ReadyTask(HttpResponse response) : response_(std::move(response)) {}
  std::optional<HttpResponse> PollHead() override { return std::move(response_); }

 private:
  HttpResponse response_;
};

std::unique_ptr<HttpTask> Ready(HttpResponse response);

}  // namespace spin
