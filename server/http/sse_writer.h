// Server-sent events as OpenAI's clients read them: "data: " + one line + a blank line; "[DONE]" ends the stream.
#pragma once

#include <string>
#include <string_view>

namespace spin {

// REQUIRES: `data` holds no line break (a JSON text dumped without indentation has none).
void AppendSseEvent(std::string_view data, std::string& out);
void AppendSseDone(std::string& out);
// A comment: clients skip it, proxies see a living connection.
void AppendSsePing(std::string& out);

}  // namespace spin
