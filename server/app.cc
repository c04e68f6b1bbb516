#include "server/app.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <thread>
#include <utility>

#include "common/hash.h"
#include "common/logging.h"
#include "common/metrics.h"
#include "common/units.h"
#include "server/engine_backend.h"
#include "server/grpc/grpc_server.h"
#include "server/host_port.h"
#include "server/http/http_server.h"
#include "server/model_stack.h"
#include "server/openai/openai_handler.h"
#include "server/serving_context.h"
#include "server/warm_up.h"

namespace spin {
namespace {

constexpr auto kStopPoll = std::chrono::milliseconds(20);
// What an answer may still need to leave after its generation has ended.
constexpr auto kFlushTime = std::chrono::seconds(2);

double SecondsSince(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

ModelInfo MakeModelInfo(const ServerConfig& config, const ModelPlan& plan) {
  const ModelFolder& folder = plan.folder;
  ModelInfo info;
  info.served_names = config.served_names;
  if (info.served_names.empty()) {
    info.served_names = {std::filesystem::canonical(folder.path).filename().string()};
  }
  info.path = folder.path;
  info.architecture = folder.config.architecture;
  info.dtype = NameOf(config.dtype);
  info.algorithm = config.sparse.algorithm;
  info.created = std::chrono::duration_cast<std::chrono::seconds>(
                     std::chrono::system_clock::now().time_since_epoch())
                     .count();
  info.max_model_len = plan.max_model_len;
  info.vocab_size = folder.config.vocab_size;
  info.eos_token_ids = folder.eos_token_ids();
  info.bos_token = folder.bos_token;
  info.eos_token = folder.eos_token;
  if (config.use_generation_config) {
    info.defaults = {.temperature = folder.generation.temperature,
                     .top_p = folder.generation.top_p,
                     .min_p = folder.generation.min_p,
                     .repetition_penalty = folder.generation.repetition_penalty,
                     .top_k = folder.generation.top_k};
  }
  return info;
}

// The same for every process with this build, model and numerics.
std::string SystemFingerprint(const ServerConfig& config, const ModelInfo& model) {
  uint64_t hash = kFnv1aBasis;
  for (const std::string& text :
       {model.path, model.architecture, model.dtype, config.sparse.algorithm,
        config.sparse.seer_gates, std::to_string(config.sparse.budget_tokens.value_or(0)),
        config.backend.device}) {
    hash = Fnv1a(text + "\n", hash);
  }
  return absl::StrFormat("spin-%s-%08x", kVersion, static_cast<uint32_t>(hash ^ (hash >> 32)));
}

// What requests may take in memory while they are read: of each of the two servers.
std::size_t RequestRoomBytes(const ServerConfig& config) {
  return static_cast<std::size_t>(std::max(256 * kMiB, 8 * config.max_body_bytes));
}

// Written beside and renamed, so that a reader never sees half of it.
absl::Status WriteReadyFile(const std::string& path, int http_port, int grpc_port) {
  const std::string partial = path + ".partial";
  {
    std::ofstream file(partial, std::ios::trunc);
    file << absl::StrFormat("{\"http\": %d, \"grpc\": %d, \"pid\": %d}\n", http_port, grpc_port,
                            ::getpid());
    if (!file.flush()) return Unavailable("--ready-file: cannot write %s", partial);
  }
  if (std::rename(partial.c_str(), path.c_str()) != 0) {
    return Unavailable("--ready-file: cannot write %s", path);
  }
  return absl::OkStatus();
}

}  // namespace

struct App::Impl {
  ServerConfig config;
  MetricsRegistry metrics;
  ServingContext context;
  std::unique_ptr<ModelStack> stack;
  std::unique_ptr<EngineBackend> backend;
  std::unique_ptr<HttpHandler> handler;
  std::unique_ptr<HttpServer> http;
  std::unique_ptr<GrpcServer> grpc;
  bool stopped = false;

  absl::Status Listen();
  absl::Status Load(ModelPlan plan);
};

// Ports open before the weights are read: probes and clients get an answer meanwhile.
absl::Status App::Impl::Listen() {
  context.metrics = &metrics;
  handler = MakeOpenAiHandler(context);
  http = std::make_unique<HttpServer>(
      HttpServer::Options{.host = config.host,
                          .port = static_cast<uint16_t>(config.http_port),
                          .max_body_bytes = static_cast<std::size_t>(config.max_body_bytes),
                          .max_bodies_bytes = RequestRoomBytes(config)},
      *handler);
  SPIN_RETURN_IF_ERROR(http->Start());
  grpc = std::make_unique<GrpcServer>(
      GrpcServer::Options{.host = config.host,
                          .port = static_cast<uint16_t>(config.grpc_port),
                          .max_message_bytes = static_cast<int>(config.max_body_bytes),
                          .max_buffer_bytes = RequestRoomBytes(config)},
      context);
  return grpc->Start();
}

absl::Status App::Impl::Load(ModelPlan plan) {
  SPIN_ASSIGN_OR_RETURN(stack, ModelStack::Create(config, std::move(plan), metrics));
  backend = std::make_unique<EngineBackend>(stack->engine());
  context.backend = backend.get();
  context.tokenizer = stack->plan().folder.tokenizer.get();
  context.chat_template = stack->plan().folder.chat_template.get();
  const auto begin = std::chrono::steady_clock::now();
  if (const int32_t steps = stack->executor().WarmUp(); steps > 0) {
    SPIN_LOG(INFO, "warm-up  products timed, %d decode steps captured in %.1f s", steps,
             SecondsSince(begin));
  }
  stack->engine().Start();
  return WarmUp(*backend, context.model.vocab_size);
}

App::App(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

absl::StatusOr<std::unique_ptr<App>> App::Start(const ServerConfig& config,
                                                const std::string& ready_file) {
  const auto begin = std::chrono::steady_clock::now();
  SPIN_LOG(INFO, "spind %s", kVersion);
  SPIN_ASSIGN_OR_RETURN(ModelPlan plan, PlanModel(config));
  auto impl = std::make_unique<Impl>();
  impl->config = config;
  impl->context.model = MakeModelInfo(config, plan);
  impl->context.version = kVersion;
  impl->context.system_fingerprint = SystemFingerprint(config, impl->context.model);
  impl->metrics.SetCommonLabels(
      {{"model_name", impl->context.model.served_names[0]}, {"engine", "0"}});
  SPIN_LOG(INFO, "plan\n%s", plan.ToText());
  SPIN_RETURN_IF_ERROR(impl->Listen());
  SPIN_RETURN_IF_ERROR(impl->Load(std::move(plan)));
  impl->context.state = ServerState::kReady;
  impl->grpc->SetServing(true);
  const int http_port = impl->http->port();
  const int grpc_port = impl->grpc->port();
  if (!ready_file.empty()) SPIN_RETURN_IF_ERROR(WriteReadyFile(ready_file, http_port, grpc_port));
  SPIN_LOG(INFO, "ready in %.1f s: serving '%s' on http://%s/v1 and grpc://%s", SecondsSince(begin),
           impl->context.model.served_names[0], HostPort(config.host, http_port),
           HostPort(config.host, grpc_port));
  return std::unique_ptr<App>(new App(std::move(impl)));
}

App::~App() {
  const std::atomic<bool> at_once = true;
  Stop(at_once);
}

void App::Stop(const std::atomic<bool>& abort) {
  if (impl_->stopped) return;
  impl_->stopped = true;
  impl_->context.state = ServerState::kDraining;
  impl_->grpc->SetServing(false);
  Engine& engine = impl_->stack->engine();
  // Drain blocks; a second signal must still be able to cut it short.
  std::atomic<bool> drained = false;
  std::thread drain([&] {
    engine.Drain(abort ? 0 : impl_->config.drain_timeout_ms * 1'000'000);
    drained = true;
  });
  while (!drained && !abort) std::this_thread::sleep_for(kStopPoll);
  if (!drained) engine.Drain(0);
  drain.join();
  const auto grace = abort ? std::chrono::milliseconds(0) : std::chrono::milliseconds(kFlushTime);
  impl_->http->Stop(grace);
  impl_->grpc->Stop(grace);
  engine.Stop();
}

absl::StatusOr<std::string> CheckConfig(const ServerConfig& config) {
  SPIN_ASSIGN_OR_RETURN(const ModelPlan plan, PlanModel(config));
  return plan.ToText();
}

}  // namespace spin
