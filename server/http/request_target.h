// The target of a request line: "/v1/models/a%2Fb?x=1" or, as proxies send it, "http://host/path".
#pragma once

#include <string>
#include <string_view>

namespace spin {

// `path`: percent-decoded (a bad escape stays as it is); `query`: what follows the '?', as sent.
void ParseRequestTarget(std::string_view target, std::string& path, std::string& query);

}  // namespace spin
