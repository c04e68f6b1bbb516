#include "tools/bench/json_cursor.h"

#include <cstring>

namespace spin {

char JsonCursor::Peek() {
  while (at_ != end_ && (*at_ == ' ' || *at_ == '\n' || *at_ == '\t' || *at_ == '\r')) ++at_;
  return at_ == end_ ? '\0' : *at_;
}

std::string_view JsonCursor::Skip() {
  const char first = Peek();
  const char* begin = at_;
  if (first == '"') {
    if (!SkipString()) Fail();
  } else if (first == '{' || first == '[') {
    if (!SkipNested()) Fail();
  } else {
    while (at_ != end_ && std::strchr(",:]} \n\t\r", *at_) == nullptr) ++at_;
    if (at_ == begin) Fail();
  }
  return ok_ ? std::string_view(begin, static_cast<size_t>(at_ - begin)) : std::string_view();
}

bool JsonCursor::SkipString() {
  for (++at_; at_ != end_; ++at_) {
    if (*at_ == '"') {
      ++at_;
      return true;
    }
    if (*at_ == '\\' && ++at_ == end_) return false;
  }
  return false;
}

bool JsonCursor::SkipNested() {
  int depth = 0;
  while (at_ != end_) {
    const char c = *at_;
    if (c == '"') {
      if (!SkipString()) return false;
      continue;
    }
    ++at_;
    if (c == '{' || c == '[') ++depth;
    if ((c == '}' || c == ']') && --depth == 0) return true;
  }
  return false;
}

}  // namespace spin
