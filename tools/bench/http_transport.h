// The load client's HTTP side: OpenAI streams, each on a connection of its own.
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

// `options` and `loop` outlive it. InvalidArgument when options.url cannot be spoken to.
absl::StatusOr<std::unique_ptr<Transport>> MakeHttpTransport(const ServeOptions& options,
                                                             const std::string& model,
                                                             const std::vector<Prompt>& prompts,
                                                             boost::asio::io_context& loop);

// The first model of /v1/models.
absl::StatusOr<std::string> FetchHttpModel(const ServeOptions& options);

}  // namespace spin
