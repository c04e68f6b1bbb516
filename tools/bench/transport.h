// How a request of a load test reaches a server, and what is known of it afterwards.
#pragma once

#include <atomic>
#include <boost/asio/awaitable.hpp>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace spin {

// One request. Times in seconds; start_s counts from the start of the run, the others from the
// request's own send (which includes connecting).
struct RequestRecord {
  bool finished =
      false;  // false: not sent, or cut off by an interrupt; then neither completed nor failed
  std::string error;  // empty: completed
  int input_tokens = 0;
  int output_tokens = 0;
  double start_s = 0;
  double ttft_s = 0;
  double e2e_s = 0;
  std::vector<double> itl_s;  // gaps between content events

  bool completed() const { return finished && error.empty(); }
};

// The requests of one run, made before its clock starts.
class Transport {
 public:
  // Gives up what is still running.
  virtual ~Transport() = default;

  // Sends request `index` and reads its stream to the end: fills in tokens, times and the error.
  // Called at most once an index, on the run's loop.
  virtual boost::asio::awaitable<void> Send(size_t index, RequestRecord& record) = 0;

  // Content events of all requests so far.
  int64_t events() const { return events_.load(std::memory_order_relaxed); }

 protected:
  std::atomic<int64_t> events_ = 0;
};

}  // namespace spin
