// Server-sent events: bytes in, `data` payloads out (WHATWG HTML, 9.2.6; fields other than data are
// of no use here).
#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace spin {

// One stream. Not thread-safe.
class SseParser {
 public:
  using OnData = std::function<void(std::string_view)>;

  // Takes the next bytes, cut anywhere; calls on_data for each event that a blank line completed.
  void Feed(std::string_view bytes, const OnData& on_data);

 private:
  void TakeLine(std::string_view line, const OnData& on_data);

  std::string line_;  // the line begun and not ended
  std::string data_;  // joined data lines of the event begun and not ended
  bool has_data_ = false;
};

}  // namespace spin
