// The gRPC side of the load client against a scripted spin.v1.Inference in the same process.
#include "tools/bench/grpc_transport.h"

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <csignal>
#include <functional>
#include <mutex>
#include <thread>

#include "proto/inference.grpc.pb.h"
#include "tools/bench/load_generator.h"

namespace spin {
namespace {

using std::chrono::milliseconds;
using Writer = grpc::ServerWriter<v1::GenerateResponse>;
using Script = std::function<grpc::Status(grpc::ServerContext&, Writer&)>;

class ScriptedInference final : public v1::Inference::Service {
 public:
  explicit ScriptedInference(Script script) : script_(std::move(script)) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  ~ScriptedInference() override {
    server_->Shutdown(std::chrono::system_clock::now());
    server_->Wait();
  }

  grpc::Status Generate(grpc::ServerContext* context, const v1::GenerateRequest* request,
                        Writer* writer) override {
    {
      const std::lock_guard lock(mutex_);
      requests_.push_back(*request);
      for (const auto& [key, value] : context->client_metadata()) {
        if (key == "authorization") authorization_ = std::string(value.data(), value.size());
      }
    }
    return script_(*context, *writer);
  }
  grpc::Status GetModelInfo(grpc::ServerContext*, const v1::GetModelInfoRequest*,
                            v1::GetModelInfoResponse* response) override {
    response->add_served_names("me");
    return grpc::Status::OK;
  }

  ServeOptions Options() const {
    ServeOptions options;
    options.grpc = "127.0.0.1:" + std::to_string(port_);
    options.token_ids = true;
    options.input_len = 7;
    options.output_len = 3;
    options.timeout_s = 20;
    return options;
  }
  std::vector<v1::GenerateRequest> requests() const {
    const std::lock_guard lock(mutex_);
    return requests_;
  }
  std::string authorization() const {
    const std::lock_guard lock(mutex_);
    return authorization_;
  }

 private:
  Script script_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
  mutable std::mutex mutex_;
  std::vector<v1::GenerateRequest> requests_;
  std::string authorization_;
};

void Write(Writer& writer, std::vector<int32_t> ids) {
  v1::GenerateResponse response;
  for (const int32_t id : ids) response.add_tokens()->set_id(id);
  writer.Write(response);
}

void WriteEnd(Writer& writer, int prompt_tokens, int completion_tokens) {
  v1::GenerateResponse response;
  response.set_finish_reason(v1::FINISH_REASON_LENGTH);
  response.mutable_usage()->set_prompt_tokens(prompt_tokens);
  response.mutable_usage()->set_completion_tokens(completion_tokens);
  writer.Write(response);
}

LoadResult Run(const ServeOptions& options, int count) {
  auto result = RunLoad(options, "m", MakePrompts(options, count, 0), {});
  REQUIRE(result.ok());
  return *std::move(result);
}

TEST_CASE("A call carries ids, lengths and sampling, and is timed message by message") {
  ScriptedInference server([](grpc::ServerContext&, Writer& writer) {
    for (int i = 0; i < 3; ++i) {
      std::this_thread::sleep_for(milliseconds(20));
      Write(writer, {i, i});
    }
    WriteEnd(writer, 8, 6);
    return grpc::Status::OK;
  });
  ServeOptions options = server.Options();
  options.ignore_eos = true;
  options.api_key = "secret";
  const LoadResult result = Run(options, 1);
  const RequestRecord& record = result.records[0];
  REQUIRE(record.error == "");
  CHECK(record.completed());
  CHECK(record.input_tokens == 8);
  CHECK(record.output_tokens == 6);
  CHECK(record.ttft_s >= 0.020);
  REQUIRE(record.itl_s.size() == 2);  // the last message has no token
  for (const double gap : record.itl_s) CHECK(gap > 0.001);
  CHECK(record.e2e_s == Approx(record.ttft_s + record.itl_s[0] + record.itl_s[1]));
  CHECK(result.duration_s >= record.e2e_s);

  const v1::GenerateRequest request = server.requests()[0];
  const auto& ids = request.tokens().ids();
  CHECK(std::vector<int32_t>(ids.begin(), ids.end()) == MakePrompts(options, 1, 0)[0].ids);
  CHECK(request.sampling().max_tokens() == 3);
  CHECK(request.sampling().has_temperature());
  CHECK(request.sampling().ignore_eos());
  CHECK(server.authorization() == "Bearer secret");
}

TEST_CASE("Without usage tokens are counted, and text goes where no ids were asked for") {
  ScriptedInference server([](grpc::ServerContext&, Writer& writer) {
    Write(writer, {1, 2, 3});
    return grpc::Status::OK;
  });
  ServeOptions options = server.Options();
  CHECK(Run(options, 1).records[0].output_tokens == 3);
  CHECK(Run(options, 1).records[0].input_tokens == 7);
  options.token_ids = false;
  Run(options, 1);
  CHECK(server.requests().back().text() == MakePrompts(options, 1, 0)[0].text);
}

TEST_CASE("Both loops go through gRPC, as many calls at a time as they should") {
  std::atomic<int> now = 0, most = 0;
  ScriptedInference server([&](grpc::ServerContext&, Writer& writer) {
    most = std::max(most.load(), ++now);
    std::this_thread::sleep_for(milliseconds(10));
    Write(writer, {1});
    --now;
    return grpc::Status::OK;
  });
  ServeOptions options = server.Options();
  options.concurrency = 3;
  LoadResult result = Run(options, 12);
  for (const RequestRecord& record : result.records) CHECK(record.completed());
  CHECK(result.max_in_flight == 3);
  CHECK(most <= 3);
  options.request_rate = std::numeric_limits<double>::infinity();
  options.concurrency = 0;
  CHECK(Run(options, 12).max_in_flight == 12);
}

TEST_CASE("A call that goes wrong is a record with the reason") {
  const auto error_of = [](const Script& script) {
    ScriptedInference server(script);
    return Run(server.Options(), 1).records[0].error;
  };
  CHECK(error_of([](grpc::ServerContext&, Writer&) {
          return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "the queue is full");
        }) == "gRPC RESOURCE_EXHAUSTED: the queue is full");
  CHECK(error_of([](grpc::ServerContext&, Writer&) { return grpc::Status::OK; }) ==
        "the stream held no token");
  ServeOptions options;
  options.grpc = "127.0.0.1:1";
  CHECK_THAT(Run(options, 1).records[0].error, Catch::StartsWith("gRPC UNAVAILABLE: "));
}

TEST_CASE("A server that falls silent fails the call after the timeout, and is told") {
  std::atomic<bool> cancelled = false;
  ScriptedInference server([&](grpc::ServerContext& context, Writer& writer) {
    Write(writer, {1});
    for (int i = 0; i < 2000 && !context.IsCancelled(); ++i)
      std::this_thread::sleep_for(milliseconds(5));
    cancelled = context.IsCancelled();
    return grpc::Status::CANCELLED;
  });
  ServeOptions options = server.Options();
  options.timeout_s = 0.2;
  CHECK(Run(options, 1).records[0].error == "no message within 0.2 s");
  for (int i = 0; i < 1000 && !cancelled; ++i) std::this_thread::sleep_for(milliseconds(5));
  CHECK(cancelled);
}

TEST_CASE("An interrupt cancels what runs and keeps what had finished") {
  std::atomic<int> calls = 0;
  ScriptedInference server([&](grpc::ServerContext& context, Writer& writer) {
    Write(writer, {1});
    if (++calls <= 2) return grpc::Status::OK;
    std::raise(SIGINT);
    while (!context.IsCancelled()) std::this_thread::sleep_for(milliseconds(5));
    return grpc::Status::CANCELLED;
  });
  ServeOptions options = server.Options();
  options.concurrency = 1;
  const LoadResult result = Run(options, 5);
  CHECK(result.interrupted);
  CHECK(result.records[0].completed());
  CHECK(result.records[1].completed());
  CHECK_FALSE(result.records[2].finished);
}

TEST_CASE("The model's name is asked for, and a missing server is explained") {
  ServeOptions options;
  {
    const ScriptedInference server([](auto&, auto&) { return grpc::Status::OK; });
    options = server.Options();
    CHECK(FetchFirstModel(options).value() == "me");
  }
  options.grpc = "127.0.0.1:1";
  CHECK_THAT(MessageOf(FetchFirstModel(options).status()),
             Catch::Contains("no server at 127.0.0.1:1") && Catch::Contains("--grpc"));
}

}  // namespace
}  // namespace spin
