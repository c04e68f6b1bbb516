// A walk over one JSON text that looks at the members it is asked for and steps over the rest,
// without building anything: the events of a stream are parsed in the time between two of them.
#pragma once

#include <string_view>

namespace spin {

// Checks brackets, strings and separators, not what a number or a literal is made of. After the
// first mistake everything ends early and ok() is false.
class JsonCursor {
 public:
  explicit JsonCursor(std::string_view text) : at_(text.data()), end_(text.data() + text.size()) {}

  // The next value is an object: calls on_member(key) with the cursor before each value, which it
  // must consume by one call of Members, Elements or Skip. Keys come as they are written.
  template <typename OnMember>
  void Members(OnMember on_member) {
    if (!Take('{')) return Fail();
    if (Take('}')) return;
    do {
      const std::string_view key = Skip();
      if (!ok_ || key.front() != '"' || !Take(':')) return Fail();
      on_member(key.substr(1, key.size() - 2));
    } while (ok_ && Take(','));
    if (!Take('}')) Fail();
  }

  // The next value is an array: calls on_element(), which must consume one value, for each.
  template <typename OnElement>
  void Elements(OnElement on_element) {
    if (!Take('[')) return Fail();
    if (Take(']')) return;
    do {
      on_element();
    } while (ok_ && Take(','));
    if (!Take(']')) Fail();
  }

  // Steps over the next value and returns its text; "" after a mistake.
  std::string_view Skip();

  // What the next value begins with: { [ " or the first byte of a scalar; 0 at the end.
  char Peek();

  // Every value asked for was there. AtEnd: and nothing but space follows.
  bool ok() const { return ok_; }
  bool AtEnd() { return ok_ && Peek() == 0; }

 private:
  bool Take(char c) {
    if (Peek() != c) return false;
    ++at_;
    return true;
  }
  void Fail() {
    ok_ = false;
    at_ = end_;
  }
  bool SkipString();
  bool SkipNested();

  const char* at_;
  const char* end_;
  bool ok_ = true;
};

}  // namespace spin
