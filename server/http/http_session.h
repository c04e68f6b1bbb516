// One HTTP connection: read a request, poll its task, write the answer, again. Private to the server (it shows Boost).
#pragma once

#include <atomic>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/beast/core/error.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "server/http/body_room.h"
#include "server/http/http_message.h"
#include "server/http/http_server.h"

namespace spin {

// All members run on the strand of the socket, except where it says "any thread". Owned by its coroutines: it dies with
// the last of them.
class HttpSession : public std::enable_shared_from_this<HttpSession> {
 public:
  struct Environment {
    const HttpServer::Options& options;
    HttpHandler& handler;
    boost::asio::thread_pool& workers;
    BodyRoom& body_room;
    std::atomic<bool>& stopping;  // no further request is read
  };

  HttpSession(boost::asio::ip::tcp::socket socket, const Environment& environment);

  // Runs the connection; `on_end` is called once, after the last use of the environment.
  void Start(std::function<void()> on_end);
  // Answers 503 and closes: there are too many connections.
  void Refuse(std::function<void()> on_end);

  // Any thread. Ends the connection now if it waits for a request (Environment::stopping ends it after an answer).
  void StopWhenIdle();
  // Any thread. Closes the socket: whatever runs ends, its task is destroyed.
  void Abort();

 private:
  using Time = std::chrono::milliseconds;
  using Parser = boost::beast::http::request_parser<boost::beast::http::string_body>;
  enum class ReadResult { kRequest, kAnswered, kClosed };

  void Spawn(boost::asio::awaitable<void> coroutine, std::function<void()> on_end);
  boost::asio::awaitable<void> Run();
  boost::asio::awaitable<void> RunRefusal();
  boost::asio::awaitable<ReadResult> ReadRequest();
  // The error, and whether there was room for what came.
  boost::asio::awaitable<std::pair<boost::beast::error_code, bool>> ReadBody(Parser& parser);
  boost::asio::awaitable<ReadResult> RefuseRequest(int status, std::string_view message);
  boost::asio::awaitable<void> AnswerRequest();
  boost::asio::awaitable<void> AnswerFailure(const std::string& what);
  boost::asio::awaitable<std::unique_ptr<HttpTask>> StartTask();
  boost::asio::awaitable<std::optional<HttpResponse>> AwaitHead(HttpTask& task);
  boost::asio::awaitable<void> SendWhole(const HttpResponse& response);
  boost::asio::awaitable<void> SendStream(const HttpResponse& head, HttpTask& task);
  boost::asio::awaitable<bool> Write(std::string bytes);
  boost::asio::awaitable<void> WatchClient();
  boost::asio::awaitable<void> StopWatching();
  boost::asio::awaitable<void> CloseGently();

  void StartWatching();
  Waker MakeWaker();
  std::string Head(const HttpResponse& response, bool chunked) const;
  void ArmDeadline(Time time);
  void DisarmDeadline();
  void CloseSocket();

  // A flag that a coroutine of this strand can wait for.
  class Wakeup {
   public:
    explicit Wakeup(const boost::asio::any_io_executor& executor) : timer_(executor) {}
    void Set();
    // True when set (and clears it), false when `limit` has passed.
    boost::asio::awaitable<bool> Wait(Time limit);

   private:
    boost::asio::steady_timer timer_;
    bool set_ = false;
  };

  boost::asio::ip::tcp::socket socket_;
  Environment env_;
  boost::beast::flat_buffer buffer_;  // bytes read and not yet parsed
  boost::asio::steady_timer deadline_;
  uint64_t deadline_number_ = 0;  // an expiry of an earlier arming is ignored
  Wakeup wakeup_;

  HttpRequest request_;
  BodyRoom::Share body_share_;  // of a body over inline_body_bytes, until it is handled
  bool is_head_ = false;
  bool http_10_ = false;
  bool keep_alive_ = false;  // as the client asked, and as long as nothing speaks against it
  std::chrono::steady_clock::time_point started_;  // of the request: its last byte was read

  bool answering_ = false;      // something of the answer was written
  bool idle_ = false;           // waits for a request
  bool gone_ = false;           // the client closed, timed out or broke the connection
  bool watching_ = false;       // WatchClient runs
  bool stop_watching_ = false;  // and shall end
};

}  // namespace spin
