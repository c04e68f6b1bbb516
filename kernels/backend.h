// A backend: one Device and its Ops. The build decides which kinds exist; nothing above kernels/ asks which one runs.
#pragma once

#include <memory>
#include <string>

#include "common/status.h"
#include "kernels/device.h"
#include "kernels/ops.h"

namespace spin {

struct BackendOptions {
  std::string device =
      "auto";  // auto | cpu | cuda. "cuda" never falls back: it is an error where there is none
  int threads = 0;              // CPU worker threads; 0: all cores that the process may use
  int gemm_sms = 0;             // CUDA: multiprocessors that a product may count on; 0: all
  bool inline_streams = false;  // CPU: run work as it is enqueued, on the calling thread (tests)
};

struct Backend {
  std::unique_ptr<Device> device;
  std::unique_ptr<Ops> ops;  // destroyed before the device
};

absl::StatusOr<Backend> CreateBackend(const BackendOptions& options);

}  // namespace spin
