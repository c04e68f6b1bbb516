#include "tools/bench/http_transport.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <limits>
#include <string_view>
#include <utility>

#include "tools/bench/openai_protocol.h"
#include "tools/bench/sse_parser.h"

namespace spin {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using boost::system::error_code;
using Clock = std::chrono::steady_clock;
using asio::redirect_error;
using asio::use_awaitable;

constexpr size_t kMaxErrorBody = 4096;

double Seconds(Clock::duration duration) {
  return std::chrono::duration<double>(duration).count();
}

Clock::duration ToDuration(double seconds) {
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

struct Target {
  std::string host;
  std::string port;
  std::string path;  // prefix of the URL, without a slash at its end
};

absl::StatusOr<Target> ParseUrl(std::string_view url) {
  constexpr std::string_view kScheme = "http://";
  if (!url.starts_with(kScheme)) return InvalidArgument("--url %s: only http:// is spoken", url);
  url.remove_prefix(kScheme.size());
  const size_t slash = std::min(url.find('/'), url.size());
  const std::string_view authority = url.substr(0, slash);
  std::string_view path = url.substr(slash);
  while (path.ends_with('/')) path.remove_suffix(1);
  // Both http://host:8000 and the http://host:8000/v1 that SDKs want are taken.
  if (path.ends_with("/v1")) path.remove_suffix(3);
  size_t colon = authority.rfind(':');
  if (colon != authority.npos && authority.find(']', colon) != authority.npos)
    colon = authority.npos;
  std::string_view host = authority.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  if (host.empty()) return InvalidArgument("--url names no host");
  return Target{.host = std::string(host),
                .port = colon == authority.npos ? "80" : std::string(authority.substr(colon + 1)),
                .path = std::string(path)};
}

http::request<http::string_body> MakeRequest(http::verb verb, const Target& target,
                                             const std::string& path, const ServeOptions& options,
                                             std::string body) {
  http::request<http::string_body> request(verb, target.path + path, 11);
  request.set(http::field::host, target.host + ":" + target.port);
  request.set(http::field::user_agent, "spin_bench");
  request.set(http::field::connection, "close");
  if (!options.api_key.empty())
    request.set(http::field::authorization, "Bearer " + options.api_key);
  if (verb == http::verb::post) request.set(http::field::content_type, "application/json");
  request.body() = std::move(body);
  request.prepare_payload();
  return request;
}

// One HTTP exchange whose body is handed on as it comes. Stops early when on_body returns false.
class Exchange {
 public:
  Exchange(const ServeOptions& options, asio::any_io_executor executor)
      : timeout_(ToDuration(options.timeout_s)), stream_(executor), resolver_(executor) {}

  template <typename OnBody>
  asio::awaitable<absl::Status> Run(const Target& target,
                                    const http::request<http::string_body>& request,
                                    OnBody on_body) {
    error_code ec;
    const auto addresses = co_await resolver_.async_resolve(target.host, target.port,
                                                            redirect_error(use_awaitable, ec));
    if (ec) co_return Failed("resolve " + target.host, ec);
    stream_.expires_after(timeout_);
    co_await stream_.async_connect(addresses, redirect_error(use_awaitable, ec));
    if (ec) co_return Failed("connect to " + target.host + ":" + target.port, ec);
    stream_.socket().set_option(asio::ip::tcp::no_delay(true), ec);
    co_await http::async_write(stream_, request, redirect_error(use_awaitable, ec));
    if (ec) co_return Failed("send the request", ec);
    co_await http::async_read_header(stream_, buffer_, parser_, redirect_error(use_awaitable, ec));
    if (ec) co_return Failed("read the answer", ec);
    while (!parser_.is_done()) {
      parser_.get().body().data = chunk_.data();
      parser_.get().body().size = chunk_.size();
      stream_.expires_after(timeout_);
      co_await http::async_read_some(stream_, buffer_, parser_, redirect_error(use_awaitable, ec));
      if (ec && ec != http::error::need_buffer) co_return Failed("read the answer", ec);
      const size_t size = chunk_.size() - parser_.get().body().size;
      if (size > 0 && !on_body(std::string_view(chunk_.data(), size))) break;
    }
    co_return absl::OkStatus();
  }

  int status() const { return static_cast<int>(parser_.get().result_int()); }
  void LiftBodyLimit() { parser_.body_limit(std::numeric_limits<std::uint64_t>::max()); }

 private:
  static absl::Status Failed(const std::string& what, const error_code& ec) {
    return Unavailable("cannot %s: %s", what, ec.message());
  }

  Clock::duration timeout_;
  beast::tcp_stream stream_;
  asio::ip::tcp::resolver resolver_;
  beast::flat_buffer buffer_;
  http::response_parser<http::buffer_body> parser_;
  std::array<char, 16384> chunk_;
};

// Reads one stream into its record.
class StreamReader {
 public:
  StreamReader(RequestRecord& record, std::atomic<int64_t>& total_events, Clock::time_point begin)
      : record_(record), total_events_(total_events), begin_(begin) {}

  // False when the stream is over: [DONE], or an error.
  bool Take(std::string_view bytes) {
    const double now_s = Seconds(Clock::now() - begin_);
    parser_.Feed(bytes, [&](std::string_view payload) {
      if (!done_ && record_.error.empty()) TakeEvent(payload, now_s);
    });
    return !done_ && record_.error.empty();
  }

  void Finish() {
    if (!record_.error.empty()) return;
    if (!done_) {
      record_.error = "the stream ended before [DONE]";
    } else if (events_ == 0) {
      record_.error = "the stream held no text";
    }
    if (record_.output_tokens == 0) record_.output_tokens = events_;  // a server without usage
  }

 private:
  void TakeEvent(std::string_view payload, double now_s) {
    const absl::StatusOr<StreamEvent> event = ParseStreamEvent(payload);
    if (!event.ok() || !event->error.empty()) {
      record_.error = event.ok() ? event->error : MessageOf(event.status());
      return;
    }
    done_ = event->done;
    if (event->input_tokens >= 0) record_.input_tokens = event->input_tokens;
    if (event->output_tokens >= 0) record_.output_tokens = event->output_tokens;
    if (!event->has_content) return;
    if (events_ == 0) {
      record_.ttft_s = now_s;
    } else {
      record_.itl_s.push_back(now_s - record_.e2e_s);
    }
    record_.e2e_s = now_s;
    ++events_;
    total_events_.fetch_add(1, std::memory_order_relaxed);
  }

  RequestRecord& record_;
  std::atomic<int64_t>& total_events_;
  Clock::time_point begin_;
  SseParser parser_;
  int events_ = 0;
  bool done_ = false;
};

class HttpTransport final : public Transport {
 public:
  HttpTransport(const ServeOptions& options, Target target, std::vector<std::string> bodies,
                asio::any_io_executor executor)
      : options_(options),
        target_(std::move(target)),
        bodies_(std::move(bodies)),
        executor_(std::move(executor)) {}

  asio::awaitable<void> Send(size_t index, RequestRecord& record) override {
    const Clock::time_point send = Clock::now();
    Exchange exchange(options_, executor_);
    exchange.LiftBodyLimit();
    StreamReader reader(record, events_, send);
    std::string error_body;
    const auto request = MakeRequest(http::verb::post, target_,
                                     options_.chat ? "/v1/chat/completions" : "/v1/completions",
                                     options_, std::move(bodies_[index]));
    const absl::Status status =
        co_await exchange.Run(target_, request, [&](std::string_view bytes) {
          if (exchange.status() == 200) return reader.Take(bytes);
          error_body += bytes;
          return error_body.size() < kMaxErrorBody;
        });
    if (!status.ok()) {
      if (record.error.empty()) record.error = MessageOf(status);
    } else if (exchange.status() != 200) {
      record.error =
          absl::StrFormat("HTTP %d: %s", exchange.status(), ParseErrorMessage(error_body));
    }
    reader.Finish();
  }

 private:
  const ServeOptions& options_;
  const Target target_;
  std::vector<std::string> bodies_;
  asio::any_io_executor executor_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Transport>> MakeHttpTransport(const ServeOptions& options,
                                                             const std::string& model,
                                                             const std::vector<Prompt>& prompts,
                                                             asio::io_context& loop) {
  SPIN_ASSIGN_OR_RETURN(Target target, ParseUrl(options.url));
  // Written before the clock starts: serialising a long prompt is no part of any latency.
  std::vector<std::string> bodies;
  for (const Prompt& prompt : prompts) {
    SPIN_ASSIGN_OR_RETURN(std::string body, MakeRequestBody(options, model, prompt));
    bodies.push_back(std::move(body));
  }
  return std::make_unique<HttpTransport>(options, std::move(target), std::move(bodies),
                                         loop.get_executor());
}

absl::StatusOr<std::string> FetchHttpModel(const ServeOptions& options) {
  SPIN_ASSIGN_OR_RETURN(const Target target, ParseUrl(options.url));
  asio::io_context loop(1);
  Exchange exchange(options, loop.get_executor());
  const auto request = MakeRequest(http::verb::get, target, "/v1/models", options, "");
  std::string body;
  absl::Status status;
  asio::co_spawn(
      loop,
      [&]() -> asio::awaitable<void> {
        status = co_await exchange.Run(target, request, [&](std::string_view bytes) {
          body += bytes;
          return true;
        });
      },
      asio::detached);
  loop.run();
  SPIN_RETURN_IF_ERROR(status);
  if (exchange.status() != 200) {
    return Unavailable("/v1/models answered HTTP %d: %s", exchange.status(),
                       ParseErrorMessage(body));
  }
  return ParseFirstModel(body);
}

}  // namespace spin
