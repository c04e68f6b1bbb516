#include "server/http/sse_writer.h"

#include "common/check.h"

namespace spin {

void AppendSseEvent(std::string_view data, std::string& out) {
  SPIN_CHECK(data.find('\n') == std::string_view::npos);
  out += "data: ";
  out += data;
  out += "\n\n";
}

void AppendSseDone(std::string& out) {
  out += "data: [DONE]\n\n";
}

void AppendSsePing(std::string& out) {
  out += ": ping\n\n";
}

}  // namespace spin
