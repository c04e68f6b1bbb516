// The gRPC server over the loopback with a scripted engine: streams, refusals, cancelled calls, health.
#include "server/grpc/grpc_server.h"

#include <grpcpp/grpcpp.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "proto/inference.grpc.pb.h"
#include "server/host_port.h"
#include "tests/server/serving_fakes.h"

namespace spin {
namespace {

using grpc::StatusCode;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

struct TestServer {
  testing::TestServing serving;
  GrpcServer server;
  std::unique_ptr<v1::Inference::Stub> stub;

  explicit TestServer(GrpcServer::Options options = {})
      : server(WithAnyPort(options), serving.context) {
    REQUIRE(server.Start().ok());
    server.SetServing(true);
    const std::string address = HostPort(options.host, server.port());
    stub = v1::Inference::NewStub(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
  }

  static GrpcServer::Options WithAnyPort(GrpcServer::Options options) {
    options.port = 0;
    return options;
  }
  testing::ScriptedBackend& backend() { return serving.backend; }

  // What a call that sends no message ends with.
  grpc::Status Refusal(const v1::GenerateRequest& request) {
    grpc::ClientContext context;
    Limit(context);
    const auto reader = stub->Generate(&context, request);
    v1::GenerateResponse response;
    CHECK_FALSE(reader->Read(&response));
    return reader->Finish();
  }

  static void Limit(grpc::ClientContext& context) {
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
  }
};

v1::GenerateRequest TextRequest(const std::string& text) {
  v1::GenerateRequest request;
  request.set_text(text);
  return request;
}

TEST_CASE("a generation streams message by message and ends with its usage") {
  TestServer test;
  v1::GenerateRequest request = TextRequest("Hi");
  request.set_priority(3);
  request.mutable_sampling()->set_max_tokens(9);
  request.mutable_sampling()->set_temperature(0);
  request.mutable_sampling()->add_stop("END");
  grpc::ClientContext context;
  TestServer::Limit(context);
  const auto reader = test.stub->Generate(&context, request);
  REQUIRE(test.backend().WaitForRequests(1));
  const Request submitted = test.backend().request(0);
  CHECK(submitted.priority == 3);
  CHECK(submitted.prompt == std::vector<int32_t>{256, 'H', 'i'});
  CHECK(submitted.sampling.max_tokens == 9);
  CHECK(submitted.sampling.temperature == 0);
  CHECK(submitted.sampling.top_p == 1);
  CHECK(submitted.sampling.n == 1);
  CHECK(submitted.sampling.stop == std::vector<std::string>{"END"});

  v1::GenerateResponse message;
  REQUIRE(test.backend().Send(0, "one"));
  REQUIRE(reader->Read(&message));  // before the next token exists
  CHECK(message.text() == "one");
  CHECK(message.tokens_size() == 3);
  CHECK(message.tokens(0).id() == 'o');
  CHECK_FALSE(message.tokens(0).has_logprob());
  CHECK(message.finish_reason() == v1::FINISH_REASON_UNSPECIFIED);
  CHECK_FALSE(message.has_usage());

  SequenceDelta last = testing::DeltaOf(" two", FinishReason::kStop);
  last.stop_string = "END";
  RequestOutput output;
  output.deltas.push_back(last);
  output.finished = true;
  REQUIRE(test.backend().SendOutput(0, output));
  REQUIRE(reader->Read(&message));
  CHECK(message.finish_reason() == v1::FINISH_REASON_STOP);
  CHECK(message.stop_string() == "END");
  CHECK(message.usage().prompt_tokens() == 3);
  CHECK(message.usage().completion_tokens() == 7);
  CHECK_FALSE(reader->Read(&message));
  CHECK(reader->Finish().ok());
}

TEST_CASE("token ids, several sequences and log-probabilities pass through") {
  TestServer test;
  v1::GenerateRequest request;
  for (const int32_t id : {5, 6, 7}) request.mutable_tokens()->add_ids(id);
  request.mutable_sampling()->set_n(2);
  request.mutable_sampling()->set_logprobs(2);
  request.mutable_sampling()->set_prompt_logprobs(1);
  (*request.mutable_sampling()->mutable_logit_bias())[9] = -2;
  grpc::ClientContext context;
  TestServer::Limit(context);
  const auto reader = test.stub->Generate(&context, request);
  REQUIRE(test.backend().WaitForRequests(1));
  const Request submitted = test.backend().request(0);
  CHECK(submitted.prompt == std::vector<int32_t>{5, 6, 7});
  CHECK(submitted.sampling.n == 2);
  REQUIRE(submitted.sampling.logit_bias.size() == 1);
  CHECK(submitted.sampling.logit_bias[0].first == 9);
  CHECK(submitted.sampling.logit_bias[0].second == -2);

  RequestOutput output;
  output.prompt_logprobs = {testing::SampledOf(6), testing::SampledOf(7)};
  output.deltas = {testing::DeltaOf("a"), testing::DeltaOf("b", FinishReason::kLength, 1)};
  REQUIRE(test.backend().SendOutput(0, output));
  REQUIRE(test.backend().Send(0, "c", FinishReason::kStop, true));
  std::vector<v1::GenerateResponse> messages;
  for (v1::GenerateResponse message; reader->Read(&message);) messages.push_back(message);
  CHECK(reader->Finish().ok());
  REQUIRE(messages.size() == 3);
  REQUIRE(messages[0].prompt_tokens_size() == 3);
  CHECK(messages[0].prompt_tokens(0).id() == 5);
  CHECK_FALSE(messages[0].prompt_tokens(0).has_logprob());
  CHECK(messages[0].prompt_tokens(2).logprob() == -1);
  CHECK(messages[0].tokens(0).logprob() == -1);
  CHECK(messages[0].tokens(0).top_size() == 2);
  CHECK(messages[1].prompt_tokens_size() == 0);
  CHECK(messages[1].index() == 1);
  CHECK(messages[1].finish_reason() == v1::FINISH_REASON_LENGTH);
  CHECK(messages[1].usage().completion_tokens() == 1);
  CHECK(messages[2].usage().completion_tokens() == 2);
}

TEST_CASE("what a call cost is in its last message, when asked") {
  TestServer test;
  v1::GenerateRequest request = TextRequest("Hi");
  request.mutable_sampling()->set_n(2);
  request.set_spin_usage(true);
  request.mutable_sparse()->set_budget_tokens(512);
  grpc::ClientContext context;
  TestServer::Limit(context);
  const auto reader = test.stub->Generate(&context, request);
  REQUIRE(test.backend().WaitForRequests(1));
  CHECK(test.backend().request(0).wants_summary);
  CHECK(test.backend().request(0).sparse.budget_tokens == 512);
  REQUIRE(test.backend().Send(0, "a", FinishReason::kStop));
  RequestOutput output;
  output.deltas.push_back(testing::DeltaOf("b", FinishReason::kStop, 1));
  output.finished = true;
  output.summary = RequestSummary{.queue_ns = 1'500'000,
                                  .prefill_ns = 20'000'000,
                                  .decode_ns = 40'000'000,
                                  .placement = Placement::kTiered,
                                  .demotions = 1,
                                  .context_tokens = 6,
                                  .steps = 2,
                                  .attended_tokens = 9,
                                  .retrieved = {},
                                  .fetched_bytes = 4096};
  REQUIRE(test.backend().SendOutput(0, output));
  v1::GenerateResponse message;
  REQUIRE(reader->Read(&message));
  CHECK_FALSE(message.usage().has_spin());
  REQUIRE(reader->Read(&message));
  REQUIRE(message.usage().has_spin());
  const v1::SpinUsage& spin = message.usage().spin();
  CHECK(spin.queue_ms() == 1.5);
  CHECK(spin.prefill_ms() == 20);
  CHECK(spin.decode_ms() == 40);
  CHECK(spin.placement() == "tiered");
  CHECK(spin.demotions() == 1);
  CHECK(spin.context_tokens() == 6);
  CHECK(spin.attended_tokens() == 4.5);
  CHECK_FALSE(spin.has_hit_ratio());
  CHECK(spin.fetched_bytes() == 4096);
  CHECK_FALSE(reader->Read(&message));
}

TEST_CASE("refusals of the front end and of the engine have their codes") {
  TestServer test;
  CHECK(test.Refusal({}).error_code() == StatusCode::INVALID_ARGUMENT);
  CHECK(test.backend().num_requests() == 0);
  const std::vector<std::pair<absl::Status, StatusCode>> cases = {
      {InvalidArgument("top_p: no"), StatusCode::INVALID_ARGUMENT},
      {OutOfRange("too long"), StatusCode::INVALID_ARGUMENT},
      {FailedPrecondition("never fits"), StatusCode::INVALID_ARGUMENT},
      {ResourceExhausted("queue full"), StatusCode::RESOURCE_EXHAUSTED},
      {Unavailable("stopping"), StatusCode::UNAVAILABLE}};
  for (const auto& [refusal, code] : cases) {
    test.backend().RefuseNext(refusal);
    const grpc::Status status = test.Refusal(TextRequest("x"));
    CHECK(status.error_code() == code);
    CHECK(status.error_message() == MessageOf(refusal));
  }
  test.serving.context.tokenizer = nullptr;
  CHECK(test.Refusal(TextRequest("x")).error_code() == StatusCode::UNIMPLEMENTED);
  for (const ServerState state : {ServerState::kLoading, ServerState::kDraining}) {
    test.serving.context.state = state;
    CHECK(test.Refusal(TextRequest("x")).error_code() == StatusCode::UNAVAILABLE);
  }
}

TEST_CASE("an engine error in the middle of a stream ends it with that error") {
  TestServer test;
  grpc::ClientContext context;
  TestServer::Limit(context);
  const auto reader = test.stub->Generate(&context, TextRequest("x"));
  REQUIRE(test.backend().WaitForRequests(1));
  REQUIRE(test.backend().Send(0, "some"));
  REQUIRE(test.backend().Fail(0, Unavailable("the time to drain is over")));
  v1::GenerateResponse message;
  CHECK(reader->Read(&message));
  CHECK(message.text() == "some");
  CHECK_FALSE(reader->Read(&message));
  const grpc::Status status = reader->Finish();
  CHECK(status.error_code() == StatusCode::UNAVAILABLE);
  CHECK(status.error_message() == "the time to drain is over");
}

TEST_CASE("a cancelled call cancels its request, before the first token and after it") {
  TestServer test;
  const bool after_first = GENERATE(false, true);
  grpc::ClientContext context;
  TestServer::Limit(context);
  const auto reader = test.stub->Generate(&context, TextRequest("x"));
  REQUIRE(test.backend().WaitForRequests(1));
  v1::GenerateResponse message;
  if (after_first) {
    REQUIRE(test.backend().Send(0, "a"));
    REQUIRE(reader->Read(&message));
  }
  context.TryCancel();
  CHECK(test.backend().WaitForCancel(test.backend().request(0).id));
  CHECK_FALSE(test.backend().Send(0, "late"));
  CHECK(reader->Finish().error_code() == StatusCode::CANCELLED);
}

TEST_CASE("unary calls answer, and not while the model loads") {
  TestServer test;
  v1::TokenizeRequest request;
  request.set_text("ab");
  v1::TokenizeResponse response;
  const auto tokenize = [&] {
    grpc::ClientContext context;
    TestServer::Limit(context);
    return test.stub->Tokenize(&context, request, &response);
  };
  CHECK(tokenize().ok());
  CHECK(std::vector<int32_t>(response.ids().begin(), response.ids().end()) ==
        std::vector<int32_t>{256, 'a', 'b'});
  request.set_add_special_tokens(false);
  CHECK(tokenize().ok());
  CHECK(response.ids_size() == 2);

  grpc::ClientContext context;
  TestServer::Limit(context);
  v1::GetModelInfoResponse info;
  CHECK(test.stub->GetModelInfo(&context, {}, &info).ok());
  CHECK(info.served_names_size() == 2);
  CHECK(info.served_names(0) == "tiny");
  CHECK(info.max_model_len() == 128);
  CHECK(info.vocab_size() == 258);
  CHECK(info.has_tokenizer());
  CHECK(info.version() == "0.1.0");

  test.serving.context.state = ServerState::kLoading;
  CHECK(tokenize().error_code() == StatusCode::UNAVAILABLE);
}

TEST_CASE("one call too many is refused, and a place that is free again is given") {
  TestServer test({.max_calls = 2});
  grpc::ClientContext contexts[2];
  std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>> readers[2];
  for (int i = 0; i < 2; ++i) {
    TestServer::Limit(contexts[i]);
    readers[i] = test.stub->Generate(&contexts[i], TextRequest("x"));
  }
  REQUIRE(test.backend().WaitForRequests(2));
  // On a connection of its own: on the same one the stream would wait at the client.
  grpc::ChannelArguments own_connection;
  own_connection.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  test.stub = v1::Inference::NewStub(
      grpc::CreateCustomChannel(HostPort("127.0.0.1", test.server.port()),
                                grpc::InsecureChannelCredentials(), own_connection));
  const grpc::Status refused = test.Refusal(TextRequest("x"));
  CHECK(refused.error_code() == StatusCode::RESOURCE_EXHAUSTED);
  CHECK(refused.error_message().find("2 calls run already") != std::string::npos);
  contexts[0].TryCancel();
  CHECK(readers[0]->Finish().error_code() == StatusCode::CANCELLED);
  REQUIRE(test.backend().WaitForCancel(test.backend().request(0).id));
  // The server learns a moment later that the call is over.
  test.backend().RefuseNext(Unavailable("admitted"));
  grpc::Status status = test.Refusal(TextRequest("x"));
  for (int i = 0; i < 100 && status.error_code() == StatusCode::RESOURCE_EXHAUSTED; ++i) {
    std::this_thread::sleep_for(milliseconds(20));
    status = test.Refusal(TextRequest("x"));
  }
  CHECK(status.error_message() == "admitted");
  contexts[1].TryCancel();
  readers[1]->Finish();
}

bool HasIpv6() {
  const int socket = ::socket(AF_INET6, SOCK_STREAM, 0);
  sockaddr_in6 address = {};
  address.sin6_family = AF_INET6;
  address.sin6_addr = in6addr_loopback;
  const bool bound =
      ::bind(socket, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0;
  ::close(socket);
  return bound;
}

TEST_CASE("an IPv6 address is served") {
  CHECK(HostPort("::", 8001) == "[::]:8001");
  if (!HasIpv6()) {
    WARN("this machine has no IPv6");
    return;
  }
  TestServer test({.host = "::1"});
  grpc::ClientContext context;
  TestServer::Limit(context);
  v1::GetModelInfoResponse info;
  CHECK(test.stub->GetModelInfo(&context, {}, &info).ok());
}

TEST_CASE("a taken port is refused with its key") {
  TestServer test;
  GrpcServer second({.port = test.server.port()}, test.serving.context);
  const absl::Status status = second.Start();
  REQUIRE_FALSE(status.ok());
  CHECK(MessageOf(status).find("server.grpc_port") != std::string::npos);
}

TEST_CASE("stopping cancels what still runs after the grace") {
  TestServer test;
  grpc::ClientContext context;
  TestServer::Limit(context);
  const auto reader = test.stub->Generate(&context, TextRequest("x"));
  REQUIRE(test.backend().WaitForRequests(1));
  const auto begin = steady_clock::now();
  test.server.Stop(milliseconds(50));
  CHECK(steady_clock::now() - begin < std::chrono::seconds(5));
  CHECK(test.backend().WaitForCancel(test.backend().request(0).id));
  v1::GenerateResponse message;
  CHECK_FALSE(reader->Read(&message));
  CHECK_FALSE(reader->Finish().ok());
}

}  // namespace
}  // namespace spin
