// The engine requests behind one HTTP answer: submitted together, polled together, given up together.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "server/generation_backend.h"
#include "server/response_stream.h"

namespace spin {

// One thread at a time (the connection's); the engine talks to the streams. The destructor cancels what still runs, and
// after it `wake` is not called any more.
class GenerationRun {
 public:
  // Outputs that may wait for a connection whose client reads slowly; beyond, the request is given up.
  static constexpr std::size_t kMaxWaitingOutputs = 2048;

  // `backend` outlives the run. Ids and sinks of `requests` are filled in here. If one is refused, the others are
  // cancelled and the refusal is the result.
  static absl::StatusOr<std::unique_ptr<GenerationRun>> Start(GenerationBackend& backend,
                                                              std::vector<Request> requests,
                                                              const std::function<void()>& wake);
  ~GenerationRun();
  GenerationRun(const GenerationRun&) = delete;
  GenerationRun& operator=(const GenerationRun&) = delete;

  struct Event {
    std::size_t request = 0;  // index into `requests`
    RequestOutput output;
  };
  // The next output of any request, or nothing. An overflow is an event with an error.
  std::optional<Event> TryNext();

  // Every request has finished and all of its output was taken.
  bool finished() const { return num_running_ == 0; }

 private:
  struct Entry {
    RequestId id;
    std::shared_ptr<ResponseStream> stream;
    bool finished = false;
  };

  explicit GenerationRun(GenerationBackend& backend) : backend_(backend) {}

  GenerationBackend& backend_;
  std::vector<Entry> entries_;
  std::size_t next_ = 0;  // where TryNext looks first: each request has its turn
  std::size_t num_running_ = 0;
};

}  // namespace spin
