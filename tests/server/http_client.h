// A small blocking HTTP client on a plain socket: tests send what no client library would.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace spin::testing {

class HttpClient {
 public:
  explicit HttpClient(uint16_t port);  // connects to 127.0.0.1
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  bool connected() const { return socket_ >= 0; }
  void SetReceiveBuffer(int bytes);
  bool Send(std::string_view bytes);
  void Close();

  // Reads until `marker` has come (the text up to and with it), or the connection ends or three seconds pass (what
  // came).
  std::string ReadUntil(std::string_view marker);
  // One answer: head, and the body by Content-Length or chunks (decoded).
  struct Response {
    int status = 0;
    std::string head;
    std::string body;
  };
  Response ReadResponse(bool has_body = true);
  // True when the server has closed: nothing but what was read came.
  bool AtEnd();

  Response Post(std::string_view path, std::string_view json);
  Response Get(std::string_view path, std::string_view method = "GET");
  static std::string PostText(std::string_view path, std::string_view json,
                              std::string_view headers = "");

 private:
  bool Fill();  // more bytes into rest_; false at the end

  int socket_ = -1;
  std::string rest_;
};

}  // namespace spin::testing
