#include "tests/tools/bench/scripted_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>

namespace spin {
namespace {

// Head and body; the body's length is in the head.
std::string ReadRequest(int connection) {
  std::string request;
  char bytes[4096];
  for (;;) {
    const size_t head_end = request.find("\r\n\r\n");
    if (head_end != request.npos) {
      const size_t field = request.find("Content-Length: ");
      const size_t length =
          field < head_end ? std::strtoul(request.c_str() + field + 16, nullptr, 10) : 0;
      if (request.size() >= head_end + 4 + length) return request;
    }
    const ssize_t size = recv(connection, bytes, sizeof bytes, 0);
    if (size <= 0) return request;
    request.append(bytes, static_cast<size_t>(size));
  }
}

}  // namespace

ScriptedAnswer StreamOf(const std::vector<std::string>& payloads, int delay_ms) {
  ScriptedAnswer answer{.delay_ms = delay_ms,
                        .pieces = {"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                                   "Transfer-Encoding: chunked\r\n\r\n"}};
  for (const std::string& payload : payloads) {
    const std::string event = "data: " + payload + "\n\n";
    char size[32];
    std::snprintf(size, sizeof size, "%zx\r\n", event.size());
    answer.pieces.push_back(size + event + "\r\n");
  }
  answer.pieces.back() += "0\r\n\r\n";
  return answer;
}

ScriptedAnswer AnswerOf(const std::string& status, const std::string& body) {
  return {.delay_ms = 0,
          .pieces = {"HTTP/1.1 " + status + "\r\nContent-Length: " + std::to_string(body.size()) +
                     "\r\n\r\n" + body}};
}

ScriptedServer::ScriptedServer(std::function<ScriptedAnswer(const std::string&)> script)
    : script_(std::move(script)), listener_(socket(AF_INET, SOCK_STREAM, 0)) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      listen(listener_, 128) != 0 ||
      getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    std::perror("ScriptedServer");
    std::abort();
  }
  port_ = ntohs(address.sin_port);
  acceptor_ = std::thread([this] { Accept(); });
}

ScriptedServer::~ScriptedServer() {
  shutdown(listener_, SHUT_RDWR);
  acceptor_.join();
  close(listener_);
  for (std::thread& connection : connections_) connection.join();
}

std::vector<std::string> ScriptedServer::requests() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return requests_;
}

void ScriptedServer::Accept() {
  for (;;) {
    const int connection = accept(listener_, nullptr, nullptr);
    if (connection < 0) return;
    const int no_delay = 1;  // each piece is a packet of its own
    setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &no_delay, sizeof no_delay);
    connections_.emplace_back([this, connection] { Serve(connection); });
  }
}

void ScriptedServer::Serve(int connection) {
  const std::string request = ReadRequest(connection);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    requests_.push_back(request);
    max_in_flight_ = std::max(max_in_flight_.load(), ++in_flight_);
  }
  const ScriptedAnswer answer = script_(request);
  for (size_t i = 0; i < answer.pieces.size(); ++i) {
    const std::string& piece = answer.pieces[i];
    std::this_thread::sleep_for(std::chrono::milliseconds(answer.delay_ms));
    // Before the last byte is out the client cannot begin its next request.
    if (i + 1 == answer.pieces.size()) --in_flight_;
    if (send(connection, piece.data(), piece.size(), MSG_NOSIGNAL) < 0) break;
  }
  close(connection);
}

}  // namespace spin
