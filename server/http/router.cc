#include "server/http/router.h"

#include <utility>

#include "server/http/error_response.h"

namespace spin {

bool Router::Entry::Matches(const std::string& requested) const {
  if (!prefix) return requested == path;
  return requested.size() > path.size() && requested.compare(0, path.size(), path) == 0;
}

void Router::Add(std::string method, std::string path, Function function) {
  Entry entry;
  entry.prefix = path.ends_with("/*");
  if (entry.prefix) path.pop_back();
  entry.method = std::move(method);
  entry.path = std::move(path);
  entry.function = std::move(function);
  entries_.push_back(std::move(entry));
}

std::unique_ptr<HttpTask> Router::Route(HttpRequest& request, Waker waker) const {
  std::string allowed;
  for (const Entry& entry : entries_) {
    if (!entry.Matches(request.path)) continue;
    if (entry.method == request.method) {
      if (entry.prefix) request.path_tail = request.path.substr(entry.path.size());
      return entry.function(request, std::move(waker));
    }
    if (!allowed.empty()) allowed += ", ";
    allowed += entry.method == "GET" ? "GET, HEAD" : entry.method;
  }
  if (allowed.empty()) {
    return Ready(ProtocolError(
        404, absl::StrFormat("Unknown request URL: %s %s.", request.method, request.path)));
  }
  HttpResponse response = ProtocolError(
      405, absl::StrFormat("%s does not allow the method %s.", request.path, request.method));
  response.headers.emplace_back("Allow", allowed);
  return Ready(std::move(response));
}

}  // namespace spin
