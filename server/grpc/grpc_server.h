// The gRPC front end: spin.v1.Inference, grpc.health.v1.Health and reflection, with the callback API behind a pimpl.
//
// gRPC's own threads run the calls; no thread waits for a generation. A client that cancels or goes away stops its
// generation within one step.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "common/status.h"
#include "server/serving_context.h"

namespace spin {

class GrpcServer {
 public:
  struct Options {
    std::string host = "127.0.0.1";
    uint16_t port = 8001;  // 0: any free port
    int max_message_bytes = 32 << 20;
    int max_calls = 1024;  // Generate, over all connections; one more is RESOURCE_EXHAUSTED
    // Buffers of all connections; where more is needed, gRPC refuses connections and ends calls.
    std::size_t max_buffer_bytes = std::size_t{256} << 20;
  };

  // `context` outlives the server. Health follows context.state: SetServing.
  GrpcServer(const Options& options, ServingContext& context);
  ~GrpcServer();  // Stop(0)

  absl::Status Start();   // Unavailable where the port is taken
  uint16_t port() const;  // REQUIRES: Start returned OK

  // What grpc.health.v1 answers, for "" and "spin.v1.Inference".
  void SetServing(bool serving);

  // Lets running calls finish until `grace` has passed, then cancels them. Idempotent.
  void Stop(std::chrono::milliseconds grace);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace spin
