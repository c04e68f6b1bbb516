#include "server/http/http_server.h"

#include <algorithm>
#include <atomic>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "common/check.h"
#include "common/host_limits.h"
#include "common/logging.h"
#include "server/http/body_room.h"
#include "server/http/http_session.h"

namespace spin {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

// Threads for large bodies: a long prompt that is tokenised does not hold up the next one.
constexpr int kMinWorkers = 2;
constexpr int kMaxWorkers = 4;

struct HttpServer::Impl {
  Impl(const Options& server_options, HttpHandler& http_handler)
      : options(server_options),
        handler(http_handler),
        body_room(options.max_bodies_bytes),
        workers(static_cast<std::size_t>(std::clamp(UsableCores(), kMinWorkers, kMaxWorkers))),
        environment{options, handler, workers, body_room, stopping},
        acceptor_strand(asio::make_strand(io)),
        acceptor(acceptor_strand) {}

  absl::Status Listen();
  asio::awaitable<void> Accept();
  void Open(tcp::socket socket);
  void ForEachSession(void (HttpSession::*action)());

  const Options options;
  HttpHandler& handler;
  BodyRoom body_room;
  asio::io_context io;
  asio::thread_pool workers;
  std::atomic<bool> stopping{false};
  HttpSession::Environment environment;
  asio::strand<asio::io_context::executor_type> acceptor_strand;
  tcp::acceptor acceptor;
  uint16_t port = 0;
  std::vector<std::thread> threads;

  mutable std::mutex mutex;  // guards what follows
  std::condition_variable session_ended;
  std::unordered_map<uint64_t, std::weak_ptr<HttpSession>> sessions;
  uint64_t next_session = 0;
};

absl::Status HttpServer::Impl::Listen() {
  error_code error;
  const auto address = asio::ip::make_address(options.host, error);
  if (error) {
    return InvalidArgument("server.host: '%s' is no IP address (127.0.0.1, 0.0.0.0, ::1 ...)",
                           options.host);
  }
  const tcp::endpoint endpoint(address, options.port);
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(asio::socket_base::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error) {
    return Unavailable("cannot listen on %s port %d: %s. Choose another server.http_port.",
                       options.host, options.port, error.message());
  }
  port = acceptor.local_endpoint(error).port();
  return absl::OkStatus();
}

asio::awaitable<void> HttpServer::Impl::Accept() {
  asio::steady_timer pause(acceptor_strand);
  while (!stopping) {
    auto [error, socket] =
        co_await acceptor.async_accept(asio::make_strand(io), asio::as_tuple(asio::use_awaitable));
    if (stopping || error == asio::error::operation_aborted) co_return;
    if (error) {
      // Out of file descriptors, most likely: some will be closed.
      SPIN_LOG(WARNING, "cannot accept a connection: %s", error.message());
      pause.expires_after(std::chrono::milliseconds(50));
      co_await pause.async_wait(asio::as_tuple(asio::use_awaitable));
      continue;
    }
    try {
      Open(std::move(socket));
    } catch (const std::exception& exception) {  // out of memory; the next one may find some
      SPIN_LOG(ERROR, "cannot serve a connection: %s", exception.what());
    }
  }
}

void HttpServer::Impl::Open(tcp::socket socket) {
  auto session = std::make_shared<HttpSession>(std::move(socket), environment);
  uint64_t id = 0;
  bool refused = false;
  {
    std::lock_guard<std::mutex> lock(mutex);
    const auto limit = static_cast<std::size_t>(options.max_connections);
    refused = sessions.size() >= limit;
    if (sessions.size() >= 2 * limit)
      return;  // even the refusals are limited: the socket just closes
    id = next_session++;
    sessions.emplace(id, session);
  }
  const auto on_end = [this, id] {
    std::lock_guard<std::mutex> lock(mutex);
    sessions.erase(id);
    session_ended.notify_all();
  };
  try {
    refused ? session->Refuse(on_end) : session->Start(on_end);
  } catch (...) {
    on_end();
    throw;
  }
}

void HttpServer::Impl::ForEachSession(void (HttpSession::*action)()) {
  std::lock_guard<std::mutex> lock(mutex);
  for (const auto& [id, weak] : sessions) {
    if (const auto session = weak.lock()) ((*session).*action)();
  }
}

HttpServer::HttpServer(const Options& options, HttpHandler& handler)
    : impl_(std::make_unique<Impl>(options, handler)) {}

HttpServer::~HttpServer() {
  Stop(std::chrono::milliseconds(0));
}

absl::Status HttpServer::Start() {
  SPIN_CHECK(impl_->threads.empty());
  SPIN_RETURN_IF_ERROR(impl_->Listen());
  asio::co_spawn(impl_->acceptor_strand, impl_->Accept(), asio::detached);
  for (int i = 0; i < impl_->options.io_threads; ++i) {
    impl_->threads.emplace_back([impl = impl_.get()] { impl->io.run(); });
  }
  return absl::OkStatus();
}

uint16_t HttpServer::port() const {
  return impl_->port;
}

int HttpServer::num_connections() const {
  std::lock_guard<std::mutex> lock(impl_->mutex);
  return static_cast<int>(impl_->sessions.size());
}

void HttpServer::Stop(std::chrono::milliseconds grace) {
  if (impl_->threads.empty()) return;
  impl_->stopping = true;
  asio::post(impl_->acceptor_strand, [impl = impl_.get()] {
    error_code ignored;
    impl->acceptor.close(ignored);
  });
  const auto deadline = std::chrono::steady_clock::now() + grace;
  impl_->ForEachSession(&HttpSession::StopWhenIdle);
  std::unique_lock<std::mutex> lock(impl_->mutex);
  const auto all_ended = [this] { return impl_->sessions.empty(); };
  if (!impl_->session_ended.wait_until(lock, deadline, all_ended)) {
    lock.unlock();
    impl_->ForEachSession(&HttpSession::Abort);
  } else {
    lock.unlock();
  }
  // Nothing is left to do for the threads once every connection has ended.
  for (std::thread& thread : impl_->threads) thread.join();
  impl_->threads.clear();
  impl_->workers.join();
}

}  // namespace spin
