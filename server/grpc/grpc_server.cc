#include "server/grpc/grpc_server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>

#include <utility>

#include "proto/inference.grpc.pb.h"
#include "server/grpc/call_limit.h"
#include "server/grpc/generate_call.h"
#include "server/grpc/messages.h"
#include "server/grpc/wake_queue.h"
#include "server/host_port.h"

namespace spin {
namespace {

constexpr char kServiceName[] = "spin.v1.Inference";

class InferenceService final : public v1::Inference::CallbackService {
 public:
  InferenceService(const ServingContext& context, int max_calls)
      : context_(context), limit_(max_calls) {}

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(
      grpc::CallbackServerContext*, const v1::GenerateRequest* request) override {
    return StartGenerateCall(context_, *request, wakes_, limit_);
  }

  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* call,
                                     const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) override {
    return Reply(call, [&]() -> absl::Status {
      if (context_.tokenizer == nullptr) return Unimplemented("the model has no tokenizer");
      const bool special = !request->has_add_special_tokens() || request->add_special_tokens();
      for (const TokenId id : context_.tokenizer->Encode(request->text(), special))
        response->add_ids(id);
      return absl::OkStatus();
    });
  }

  grpc::ServerUnaryReactor* GetModelInfo(grpc::CallbackServerContext* call,
                                         const v1::GetModelInfoRequest*,
                                         v1::GetModelInfoResponse* response) override {
    return Reply(call, [&] {
      const ModelInfo& model = context_.model;
      for (const std::string& name : model.served_names) response->add_served_names(name);
      response->set_path(model.path);
      response->set_architecture(model.architecture);
      response->set_dtype(model.dtype);
      response->set_algorithm(model.algorithm);
      response->set_max_model_len(model.max_model_len);
      response->set_vocab_size(model.vocab_size);
      for (const int32_t id : model.eos_token_ids) response->add_eos_token_ids(id);
      response->set_has_tokenizer(context_.tokenizer != nullptr);
      response->set_version(context_.version);
      return absl::OkStatus();
    });
  }

 private:
  // Answers a unary call at once, or Unavailable while the model loads.
  template <typename F>
  grpc::ServerUnaryReactor* Reply(grpc::CallbackServerContext* call, F fill) {
    grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
    if (context_.state == ServerState::kLoading) {
      reactor->Finish(ToGrpcStatus(Unavailable("the server is loading")));
    } else {
      reactor->Finish(ToGrpcStatus(fill()));
    }
    return reactor;
  }

  const ServingContext& context_;
  CallLimit limit_;
  WakeQueue wakes_;
};

}  // namespace

struct GrpcServer::Impl {
  Impl(const Options& o, ServingContext& c) : options(o), service(c, o.max_calls) {}

  Options options;
  InferenceService service;
  std::unique_ptr<grpc::Server> server;
  int port = 0;
};

GrpcServer::GrpcServer(const Options& options, ServingContext& context)
    : impl_(std::make_unique<Impl>(options, context)) {}

GrpcServer::~GrpcServer() {
  Stop(std::chrono::milliseconds(0));
}

absl::Status GrpcServer::Start() {
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  const Options& options = impl_->options;
  const std::string address = HostPort(options.host, options.port);
  grpc::ServerBuilder builder;
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);  // a taken port is an error
  // Unary calls do not count in max_calls; so many of a connection wait at the client.
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, options.max_calls);
  builder.SetResourceQuota(grpc::ResourceQuota("spind").Resize(options.max_buffer_bytes));
  builder.SetMaxReceiveMessageSize(options.max_message_bytes);
  builder.AddListeningPort(address, grpc::InsecureServerCredentials(), &impl_->port);
  builder.RegisterService(&impl_->service);
  impl_->server = builder.BuildAndStart();
  if (impl_->server == nullptr || impl_->port == 0) {
    return Unavailable("server.grpc_port: cannot listen on %s (is the port taken?)", address);
  }
  SetServing(false);
  return absl::OkStatus();
}

uint16_t GrpcServer::port() const {
  return static_cast<uint16_t>(impl_->port);
}

void GrpcServer::SetServing(bool serving) {
  grpc::HealthCheckServiceInterface* health = impl_->server->GetHealthCheckService();
  health->SetServingStatus("", serving);
  health->SetServingStatus(kServiceName, serving);
}

void GrpcServer::Stop(std::chrono::milliseconds grace) {
  if (impl_->server == nullptr) return;
  impl_->server->Shutdown(std::chrono::system_clock::now() + grace);
  impl_->server->Wait();
  impl_->server.reset();
}

}  // namespace spin
