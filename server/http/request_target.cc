#include "server/http/request_target.h"

#include <cctype>

namespace spin {
namespace {

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

void ParseRequestTarget(std::string_view target, std::string& path, std::string& query) {
  const std::size_t scheme = target.find("://");
  if (!target.starts_with('/') && scheme != std::string_view::npos) {
    const std::size_t slash = target.find('/', scheme + 3);
    target = slash == std::string_view::npos ? "/" : target.substr(slash);
  }
  const std::size_t question = target.find('?');
  if (question != std::string_view::npos) {
    query = std::string(target.substr(question + 1));
    target = target.substr(0, question);
  }
  path.clear();
  for (std::size_t i = 0; i < target.size(); ++i) {
    const int high = target[i] == '%' && i + 2 < target.size() ? HexDigit(target[i + 1]) : -1;
    const int low = high >= 0 ? HexDigit(target[i + 2]) : -1;
    if (low < 0) {
      path += target[i];
      continue;
    }
    path += static_cast<char>(high * 16 + low);
    i += 2;
  }
}

}  // namespace spin
