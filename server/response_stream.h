// The bounded stream between the engine and one client's connection.
//
// The engine thread pushes (never blocks), the connection's thread pops. When the client reads too slowly the buffer
// fills up and the engine is told to give the request up; the batch never waits for a client.
#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>

#include "engine/request.h"

namespace spin {

class ResponseStream final : public OutputSink {
 public:
  // `on_ready` is called on the engine thread when an output arrives in an empty buffer; it must only wake the
  // consumer.
  ResponseStream(std::size_t max_outputs, std::function<void()> on_ready);

  bool OnOutput(RequestOutput output) override;

  // The oldest output, or nothing. Consumer thread.
  std::optional<RequestOutput> TryPop();

  // The consumer is gone: later outputs are refused and `on_ready` is not called again. Any thread.
  void Close();

  // The buffer overflowed: the client was too slow.
  bool overflowed() const;

 private:
  const std::size_t max_outputs_;
  mutable std::mutex mutex_;  // guards what follows
  std::function<void()> on_ready_;
  std::deque<RequestOutput> outputs_;
  bool closed_ = false;
  bool overflowed_ = false;
};

}  // namespace spin
