// The load client's gRPC side: spin.v1.Inference/Generate, all streams on one channel.
#pragma once

#include <boost/asio/io_context.hpp>
#include <memory>
#include <string>
#include <vector>

#include "common/status.h"
#include "tools/bench/serve_options.h"
#include "tools/bench/transport.h"
#include "tools/bench/workload.h"

namespace spin {

// Streams are read and timed on gRPC's own threads; only their ends come to `loop`. `options` and
// `loop` outlive it.
absl::StatusOr<std::unique_ptr<Transport>> MakeGrpcTransport(const ServeOptions& options,
                                                             const std::vector<Prompt>& prompts,
                                                             boost::asio::io_context& loop);

// The first served name of GetModelInfo.
absl::StatusOr<std::string> FetchGrpcModel(const ServeOptions& options);

}  // namespace spin
