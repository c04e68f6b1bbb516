#include "server/http/http_session.h"

#include <absl/strings/escaping.h>
#include <absl/strings/str_format.h>

#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/read.hpp>
#include <exception>
#include <utility>

#include "common/logging.h"
#include "server/http/error_response.h"
#include "server/http/random_id.h"
#include "server/http/request_target.h"

namespace spin {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using boost::beast::error_code;

namespace {

constexpr auto kAwait = asio::as_tuple(asio::use_awaitable);
constexpr std::size_t kReadBytes = std::size_t{16} << 10;
// What a client may send ahead while its request is answered; then we stop reading (and see it leave only by writing).
constexpr std::size_t kMaxReadAhead = std::size_t{64} << 10;
constexpr std::chrono::milliseconds kLinger{2'000};
constexpr std::chrono::milliseconds kFarAway{3'600'000};

std::string ToString(boost::beast::string_view text) {
  return {text.data(), text.size()};
}

// The connection ended or broke, as opposed to: what came is no HTTP.
bool IsDisconnect(const error_code& error) {
  return error == http::error::end_of_stream || error == http::error::partial_message ||
         error.category() == boost::system::system_category() ||
         error.category() == asio::error::get_misc_category();
}

std::string WhatOf(const std::exception_ptr& thrown) {
  try {
    std::rethrow_exception(thrown);
  } catch (const std::exception& exception) {
    return exception.what();
  } catch (...) {
    return "an unknown exception";
  }
}

}  // namespace

// ---- Wakeup -------------------------------------------------------------------------------------------------------

void HttpSession::Wakeup::Set() {
  set_ = true;
  timer_.cancel();
}

asio::awaitable<bool> HttpSession::Wakeup::Wait(Time limit) {
  if (!set_) {
    timer_.expires_after(limit);
    co_await timer_.async_wait(kAwait);
  }
  co_return std::exchange(set_, false);
}

// ---- Life ---------------------------------------------------------------------------------------------------------

HttpSession::HttpSession(asio::ip::tcp::socket socket, const Environment& environment)
    : socket_(std::move(socket)),
      env_(environment),
      buffer_(environment.options.max_header_bytes + kMaxReadAhead + kReadBytes),
      deadline_(socket_.get_executor()),
      wakeup_(socket_.get_executor()),
      body_share_(environment.body_room) {}

void HttpSession::Spawn(asio::awaitable<void> coroutine, std::function<void()> on_end) {
  asio::co_spawn(
      socket_.get_executor(), std::move(coroutine),
      [self = shared_from_this(), on_end = std::move(on_end)](const std::exception_ptr& thrown) {
        if (thrown) SPIN_LOG(ERROR, "a connection ended: %s", WhatOf(thrown));
        self->CloseSocket();
        on_end();
      });
}

void HttpSession::Start(std::function<void()> on_end) {
  Spawn(Run(), std::move(on_end));
}

void HttpSession::Refuse(std::function<void()> on_end) {
  Spawn(RunRefusal(), std::move(on_end));
}

void HttpSession::StopWhenIdle() {
  asio::post(socket_.get_executor(), [self = shared_from_this()] {
    if (self->idle_) self->CloseSocket();
  });
}

void HttpSession::Abort() {
  asio::post(socket_.get_executor(), [self = shared_from_this()] { self->CloseSocket(); });
}

void HttpSession::CloseSocket() {
  gone_ = true;
  DisarmDeadline();
  error_code ignored;
  socket_.close(ignored);
  wakeup_.Set();
}

void HttpSession::ArmDeadline(Time time) {
  const uint64_t number = ++deadline_number_;
  deadline_.expires_after(time);
  deadline_.async_wait([weak = weak_from_this(), number](error_code error) {
    const auto self = weak.lock();
    if (!error && self && self->deadline_number_ == number) self->CloseSocket();
  });
}

void HttpSession::DisarmDeadline() {
  ++deadline_number_;
  deadline_.cancel();
}

asio::awaitable<void> HttpSession::Run() {
  const auto self = shared_from_this();
  error_code ignored;
  socket_.set_option(asio::ip::tcp::no_delay(true), ignored);
  std::exception_ptr thrown;
  while (!gone_ && !env_.stopping) {
    try {
      const ReadResult result = co_await ReadRequest();
      if (result != ReadResult::kRequest) break;
      co_await AnswerRequest();
    } catch (...) {  // out of memory, most likely
      thrown = std::current_exception();
    }
    if (thrown) co_await AnswerFailure(WhatOf(thrown));
    if (!keep_alive_) break;
  }
  if (!gone_) co_await CloseGently();
}

// A request was given up: its client learns it where no answer has begun, and that this one is incomplete otherwise.
asio::awaitable<void> HttpSession::AnswerFailure(const std::string& what) {
  SPIN_LOG(ERROR, "request %s was given up: %s", request_.id, what);
  DisarmDeadline();
  keep_alive_ = false;
  co_await StopWatching();
  if (answering_ || gone_) co_return CloseSocket();
  if (request_.id.empty()) request_.id = MakeRandomId("req-");
  co_await SendWhole(ErrorResponse(Internal("The server failed on this request."), request_.id));
}

asio::awaitable<void> HttpSession::RunRefusal() {
  const auto self = shared_from_this();
  request_.id = MakeRandomId("req-");
  co_await RefuseRequest(503, "The server has too many open connections. Try again later.");
  co_await CloseGently();
}

// Sends what is still in flight before the socket closes: closing with unread input would reset the connection, and the
// client would lose the answer.
asio::awaitable<void> HttpSession::CloseGently() {
  ArmDeadline(kLinger);
  error_code error;
  socket_.shutdown(asio::ip::tcp::socket::shutdown_send, error);
  std::array<char, 4096> rest;
  while (!error) {
    std::tie(error, std::ignore) = co_await socket_.async_read_some(asio::buffer(rest), kAwait);
  }
  DisarmDeadline();
}

// ---- Reading ------------------------------------------------------------------------------------------------------

asio::awaitable<HttpSession::ReadResult> HttpSession::RefuseRequest(int status,
                                                                    std::string_view message) {
  keep_alive_ = false;
  HttpResponse response = ProtocolError(status, message);
  if (status == 503) response.headers.emplace_back("Retry-After", "1");
  co_await SendWhole(response);
  co_return ReadResult::kAnswered;
}

asio::awaitable<std::pair<error_code, bool>> HttpSession::ReadBody(Parser& parser) {
  error_code error;
  parser.eager(true);
  while (!error && !parser.is_done()) {
    std::tie(error, std::ignore) = co_await http::async_read_some(socket_, buffer_, parser, kAwait);
    const std::size_t bytes = parser.get().body().size();
    if (bytes <= env_.options.inline_body_bytes || body_share_.GrowTo(bytes)) continue;
    co_return std::pair(error, false);
  }
  co_return std::pair(error, true);
}

asio::awaitable<HttpSession::ReadResult> HttpSession::ReadRequest() {
  const HttpServer::Options& options = env_.options;
  request_ = HttpRequest();
  body_share_.Release();
  answering_ = false;
  is_head_ = false;
  http_10_ = false;
  started_ = std::chrono::steady_clock::now();
  if (buffer_.size() == 0) {
    idle_ = true;
    ArmDeadline(options.idle_timeout);
    const auto [error, count] =
        co_await socket_.async_read_some(buffer_.prepare(kReadBytes), kAwait);
    idle_ = false;
    DisarmDeadline();
    buffer_.commit(count);
    if (error || gone_) co_return ReadResult::kClosed;
  }
  Parser parser;
  parser.header_limit(static_cast<uint32_t>(options.max_header_bytes));
  parser.body_limit(options.max_body_bytes);
  ArmDeadline(options.read_timeout);
  bool has_room = true;
  auto [error, count] = co_await http::async_read_header(socket_, buffer_, parser, kAwait);
  if (!error && !parser.is_done()) {
    if (boost::beast::iequals(parser.get()[http::field::expect], "100-continue")) {
      const bool written = co_await Write("HTTP/1.1 100 Continue\r\n\r\n");
      if (!written) co_return ReadResult::kClosed;
      ArmDeadline(options.read_timeout);
    }
    std::tie(error, has_room) = co_await ReadBody(parser);
  }
  DisarmDeadline();
  if (gone_) co_return ReadResult::kClosed;
  const auto& message = parser.get();
  request_.id = RequestIdFor(ToString(message["x-request-id"]));
  started_ = std::chrono::steady_clock::now();
  if (!has_room) {
    co_return co_await RefuseRequest(
        503, "The server is reading too many large requests. Try again later.");
  }
  if (error == http::error::body_limit) {
    co_return co_await RefuseRequest(
        413, absl::StrFormat("The request body is larger than the limit of %d bytes.",
                             options.max_body_bytes));
  }
  if (error == http::error::header_limit || error == http::error::buffer_overflow) {
    co_return co_await RefuseRequest(
        431, absl::StrFormat("The request headers are larger than the limit of %d bytes.",
                             options.max_header_bytes));
  }
  if (error && IsDisconnect(error)) co_return ReadResult::kClosed;
  if (error) {
    co_return co_await RefuseRequest(
        400, absl::StrFormat("The request is not valid HTTP: %s.", error.message()));
  }
  http_10_ = message.version() < 11;
  keep_alive_ = message.keep_alive();
  is_head_ = message.method() == http::verb::head;
  request_.method = is_head_ ? "GET" : ToString(message.method_string());
  ParseRequestTarget(ToString(message.target()), request_.path, request_.query);
  for (const auto& field : message) {
    request_.headers.emplace_back(ToString(field.name_string()), ToString(field.value()));
  }
  request_.body = std::move(parser.get().body());
  co_return ReadResult::kRequest;
}

// ---- Watching the client while its request is answered ------------------------------------------------------------

void HttpSession::StartWatching() {
  watching_ = true;
  stop_watching_ = false;
  asio::co_spawn(socket_.get_executor(), WatchClient(),
                 [self = shared_from_this()](const std::exception_ptr& thrown) {
                   if (thrown) self->gone_ = true;  // nobody would notice it leave
                   self->watching_ = false;
                   self->wakeup_.Set();
                 });
}

asio::awaitable<void> HttpSession::WatchClient() {
  const auto self = shared_from_this();
  while (!stop_watching_ && !gone_ && buffer_.size() < kMaxReadAhead) {
    const auto [error, count] =
        co_await socket_.async_read_some(buffer_.prepare(kReadBytes), kAwait);
    buffer_.commit(count);
    if (error && !(error == asio::error::operation_aborted && stop_watching_)) gone_ = true;
    if (error) break;
  }
}

asio::awaitable<void> HttpSession::StopWatching() {
  stop_watching_ = true;
  while (watching_) {
    error_code ignored;
    socket_.cancel(ignored);
    co_await wakeup_.Wait(kFarAway);
  }
}

Waker HttpSession::MakeWaker() {
  return [weak = weak_from_this(), executor = socket_.get_executor()] {
    asio::post(executor, [weak] {
      if (const auto self = weak.lock()) self->wakeup_.Set();
    });
  };
}

// ---- Answering ----------------------------------------------------------------------------------------------------

asio::awaitable<std::unique_ptr<HttpTask>> HttpSession::StartTask() {
  if (request_.body.size() <= env_.options.inline_body_bytes) {
    co_return env_.handler.Handle(request_, MakeWaker());
  }
  // Tokenising a long prompt takes a while: not on a thread that streams to others.
  co_return co_await asio::co_spawn(
      env_.workers,
      [this]() -> asio::awaitable<std::unique_ptr<HttpTask>> {
        co_return env_.handler.Handle(request_, MakeWaker());
      },
      asio::use_awaitable);
}

asio::awaitable<std::optional<HttpResponse>> HttpSession::AwaitHead(HttpTask& task) {
  std::optional<HttpResponse> head = task.PollHead();
  if (head.has_value() && !head->streamed) co_return head;
  StartWatching();
  while (!head.has_value() && !gone_) {
    if (!co_await wakeup_.Wait(env_.options.idle_ping)) task.OnIdle();
    if (!gone_) head = task.PollHead();
  }
  co_return head;
}

asio::awaitable<void> HttpSession::AnswerRequest() {
  std::unique_ptr<HttpTask> task = co_await StartTask();
  request_.body = std::string();
  body_share_.Release();
  const std::string method = std::exchange(request_.method, std::string());
  const std::optional<HttpResponse> head = co_await AwaitHead(*task);
  if (env_.handler.closing() || env_.stopping) keep_alive_ = false;
  if (head.has_value() && !gone_) {
    if (head->streamed && !is_head_) {
      co_await SendStream(*head, *task);
    } else {
      co_await SendWhole(*head);
    }
  }
  task.reset();
  co_await StopWatching();
  const auto elapsed = std::chrono::steady_clock::now() - started_;
  const double elapsed_ms = std::chrono::duration<double, std::milli>(elapsed).count();
  // 499, as nginx has it: the client left before its answer was complete.
  const int status = gone_ ? 499 : head->status;
  // What the client wrote must not look like lines of ours.
  SPIN_LOG(DEBUG, "%s %s %d %.1f ms %s", method, absl::Utf8SafeCHexEscape(request_.path), status,
           elapsed_ms, request_.id);
}

std::string HttpSession::Head(const HttpResponse& response, bool chunked) const {
  const auto elapsed = std::chrono::steady_clock::now() - started_;
  const auto elapsed_ms = std::chrono::duration_cast<std::chrono::milliseconds>(elapsed).count();
  std::string head = absl::StrFormat(
      "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nx-request-id: %s\r\nopenai-processing-ms: %d\r\n"
      "Connection: %s\r\n",
      response.status, ToString(http::obsolete_reason(static_cast<http::status>(response.status))),
      response.content_type, request_.id, elapsed_ms, keep_alive_ ? "keep-alive" : "close");
  for (const auto& [name, value] : response.headers) {
    head += absl::StrFormat("%s: %s\r\n", name, value);
  }
  if (chunked) {
    head += "Transfer-Encoding: chunked\r\n";
  } else if (!response.streamed) {
    head += absl::StrFormat("Content-Length: %d\r\n", response.body.size());
  }
  head += "\r\n";
  return head;
}

asio::awaitable<bool> HttpSession::Write(std::string bytes) {
  if (gone_) co_return false;
  ArmDeadline(env_.options.write_timeout);
  const auto [error, count] = co_await asio::async_write(socket_, asio::buffer(bytes), kAwait);
  DisarmDeadline();
  if (error) gone_ = true;
  co_return !gone_;
}

asio::awaitable<void> HttpSession::SendWhole(const HttpResponse& response) {
  std::string bytes = Head(response, /*chunked=*/false);
  if (!is_head_) bytes += response.body;
  answering_ = true;
  co_await Write(std::move(bytes));
}

asio::awaitable<void> HttpSession::SendStream(const HttpResponse& head, HttpTask& task) {
  // HTTP/1.0 knows no chunks: the body ends where the connection does.
  const bool chunked = !http_10_;
  if (!chunked) keep_alive_ = false;
  std::string bytes = Head(head, chunked);
  for (;;) {
    HttpTask::Body body = task.PollBody();
    if (body.close) keep_alive_ = false;
    if (chunked) {
      if (!body.data.empty()) bytes += absl::StrFormat("%x\r\n%s\r\n", body.data.size(), body.data);
      if (body.last) bytes += "0\r\n\r\n";
    } else {
      bytes += body.data;
    }
    answering_ = answering_ || !bytes.empty();
    if (!bytes.empty() && !co_await Write(std::exchange(bytes, std::string()))) co_return;
    if (body.last) co_return;
    if (!body.data.empty()) continue;
    if (!co_await wakeup_.Wait(env_.options.idle_ping)) task.OnIdle();
    if (gone_) co_return;
  }
}

}  // namespace spin
