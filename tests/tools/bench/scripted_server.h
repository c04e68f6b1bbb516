// A small HTTP server for tests of clients: answers each request with the pieces that a script
// gives for it.
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace spin {

struct ScriptedAnswer {
  int delay_ms = 0;                 // before each piece
  std::vector<std::string> pieces;  // raw bytes of the response, head included
};

// "data: {payload}\n\n" events as a chunked response: the head, then one piece an event (the last ends the body).
ScriptedAnswer StreamOf(const std::vector<std::string>& payloads, int delay_ms);

// A whole answer at once.
ScriptedAnswer AnswerOf(const std::string& status, const std::string& body);

// Listens on a free port of 127.0.0.1; one thread a connection, one request a connection.
class ScriptedServer {
 public:
  // script: the request (head and body) -> its answer. Called from several threads at once.
  explicit ScriptedServer(std::function<ScriptedAnswer(const std::string&)> script);
  ~ScriptedServer();

  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }
  std::vector<std::string> requests() const;
  int max_in_flight() const { return max_in_flight_; }

 private:
  void Accept();
  void Serve(int connection);

  std::function<ScriptedAnswer(const std::string&)> script_;
  int listener_ = -1;
  int port_ = 0;
  std::atomic<int> in_flight_ = 0;
  std::atomic<int> max_in_flight_ = 0;
  mutable std::mutex mutex_;
  std::vector<std::string> requests_;
  std::vector<std::thread> connections_;
  std::thread acceptor_;
};

}  // namespace spin
