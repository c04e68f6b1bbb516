// Paths and methods to functions. Unknown path: 404; known path, wrong method: 405 with Allow. Both with a JSON body.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "server/http/http_message.h"

namespace spin {

// Filled at start, then immutable: any thread may route.
class Router {
 public:
  using Function = std::function<std::unique_ptr<HttpTask>(HttpRequest& request, Waker waker)>;

  // `path` is exact, or ends in "/*": the rest of the path, not empty and slashes included, becomes request.path_tail.
  // GET routes answer HEAD too.
  void Add(std::string method, std::string path, Function function);

  std::unique_ptr<HttpTask> Route(HttpRequest& request, Waker waker) const;

 private:
  struct Entry {
    std::string method;
    std::string path;  // of a prefix route: with the last slash, without the star
    bool prefix = false;
    Function function;

    bool Matches(const std::string& requested) const;
  };
  std::vector<Entry> entries_;
};

}  // namespace spin
