// The composition root: configuration in, a serving process out.
//
// Order: listen (health answers "loading"), load, warm up, ready. Stop: refuse, drain, close.
// Signals are main.cc's.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "common/status.h"
#include "server/config_loader.h"

namespace spin {

class App {
 public:
  // Listens and loads; returns when the server is ready. Writes `ready_file` (unless empty).
  static absl::StatusOr<std::unique_ptr<App>> Start(const ServerConfig& config,
                                                    const std::string& ready_file);
  ~App();  // Stop without patience, unless stopped

  // Refuses new requests, waits for the running ones up to server.drain_timeout, closes. `abort`
  // may become true at any time: then at once.
  void Stop(const std::atomic<bool>& abort);

 private:
  struct Impl;
  explicit App(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// --check-config: everything that can be known without reading weights, as text.
absl::StatusOr<std::string> CheckConfig(const ServerConfig& config);

inline constexpr char kVersion[] = "0.1.0";

}  // namespace spin
