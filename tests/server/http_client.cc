#include "tests/server/http_client.h"

#include <absl/strings/str_format.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cstdlib>

namespace spin::testing {

HttpClient::HttpClient(uint16_t port) {
  socket_ = ::socket(AF_INET, SOCK_STREAM, 0);
  const timeval patience{.tv_sec = 3, .tv_usec = 0};
  ::setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  ::setsockopt(socket_, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) Close();
}

HttpClient::~HttpClient() {
  Close();
}

void HttpClient::Close() {
  if (socket_ >= 0) ::close(socket_);
  socket_ = -1;
}

void HttpClient::SetReceiveBuffer(int bytes) {
  ::setsockopt(socket_, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
}

bool HttpClient::Send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(sent));
  }
  return true;
}

bool HttpClient::Fill() {
  char bytes[4096];
  const ssize_t count = ::recv(socket_, bytes, sizeof bytes, 0);
  if (count <= 0) return false;
  rest_.append(bytes, static_cast<std::size_t>(count));
  return true;
}

std::string HttpClient::ReadUntil(std::string_view marker) {
  std::size_t place = std::string::npos;
  while ((place = rest_.find(marker)) == std::string::npos && Fill()) {
  }
  const std::size_t end = place == std::string::npos ? rest_.size() : place + marker.size();
  std::string text = rest_.substr(0, end);
  rest_.erase(0, end);
  return text;
}

HttpClient::Response HttpClient::ReadResponse(bool has_body) {
  Response response;
  response.head = ReadUntil("\r\n\r\n");
  if (response.head.size() < 12) return response;
  response.status = std::atoi(response.head.c_str() + 9);
  if (!has_body || response.status == 100) return response;
  if (response.head.find("Transfer-Encoding: chunked") != std::string::npos) {
    for (;;) {
      const std::string size_line = ReadUntil("\r\n");
      const std::size_t size = std::strtoul(size_line.c_str(), nullptr, 16);
      while (rest_.size() < size + 2 && Fill()) {
      }
      response.body += rest_.substr(0, size);
      rest_.erase(0, size + 2);
      if (size == 0) return response;
    }
  }
  const std::size_t place = response.head.find("Content-Length: ");
  if (place == std::string::npos) {
    while (Fill()) {
    }
    response.body = std::move(rest_);
    rest_.clear();
    return response;
  }
  const std::size_t size = std::strtoul(response.head.c_str() + place + 16, nullptr, 10);
  while (rest_.size() < size && Fill()) {
  }
  response.body = rest_.substr(0, size);
  rest_.erase(0, size);
  return response;
}

bool HttpClient::AtEnd() {
  char byte = 0;
  return rest_.empty() && ::recv(socket_, &byte, 1, 0) == 0;
}

std::string HttpClient::PostText(std::string_view path, std::string_view json,
                                 std::string_view headers) {
  return absl::StrFormat(
      "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n%sContent-Length: "
      "%d\r\n\r\n%s",
      path, headers, json.size(), json);
}

HttpClient::Response HttpClient::Post(std::string_view path, std::string_view json) {
  Send(PostText(path, json));
  return ReadResponse();
}

HttpClient::Response HttpClient::Get(std::string_view path, std::string_view method) {
  Send(absl::StrFormat("%s %s HTTP/1.1\r\nHost: localhost\r\n\r\n", method, path));
  return ReadResponse(method != "HEAD");
}

}  // namespace spin::testing
