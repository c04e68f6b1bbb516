// What the load client itself costs: it must keep up with 10,000 streamed tokens a second on one
// core, each in an event and a packet of its own. The figures are printed.
#include <time.h>

#include <catch2/catch.hpp>
#include <cstdio>

#include "tests/tools/bench/scripted_server.h"
#include "tools/bench/load_generator.h"
#include "tools/bench/openai_protocol.h"
#include "tools/bench/sse_parser.h"

namespace spin {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr double kGoal = 1'000;
#else
constexpr double kGoal = 10'000;
#endif

// An event as spind and vLLM write it.
const std::string kEvent =
    R"({"id":"cmpl-3f0c9a7e5d2b4c18","object":"text_completion","created":1900000000,)"
    R"("model":"qwen3-8b","choices":[{"index":0,"text":" token","logprobs":null,)"
    R"("finish_reason":null,"stop_reason":null,"token_ids":[123456]}],"usage":null})";
const std::string kUsage =
    R"({"choices":[],"usage":{"prompt_tokens":11,"completion_tokens":600,"total_tokens":611}})";

double ThreadCpuSeconds() {
  timespec time = {};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

TEST_CASE("One core receives, parses and records 10,000 events a second") {
  constexpr int kStreams = 16, kEvents = 600;
  std::vector<std::string> payloads(kEvents, kEvent);
  payloads.push_back(kUsage);
  payloads.push_back("[DONE]");
  const ScriptedAnswer answer = StreamOf(payloads, 1);
  const ScriptedServer server([&](const std::string&) { return answer; });
  ServeOptions options;
  options.url = server.url();
  options.concurrency = kStreams;
  const auto prompts = MakePrompts(options, kStreams, 0);

  const double before_s = ThreadCpuSeconds();
  const auto result = RunLoad(options, "m", prompts, {});
  const double cpu_s = ThreadCpuSeconds() - before_s;
  REQUIRE(result.ok());
  int64_t events = 0;
  for (const RequestRecord& record : result->records) {
    REQUIRE(record.error == "");
    CHECK(record.itl_s.size() == kEvents - 1);
    events += static_cast<int64_t>(record.itl_s.size()) + 1;
  }
  const double per_core = static_cast<double>(events) / cpu_s;
  std::printf("HTTP: %.0f events/s arrived, %.1f us of the client's core each: %.0f/s a core\n",
              static_cast<double>(events) / result->duration_s, 1e6 / per_core, per_core);
  CHECK(per_core > kGoal);
}

TEST_CASE("Parsing alone leaves most of the core to the network") {
  constexpr int kEvents = 20'000;
  std::string stream;
  for (int i = 0; i < kEvents; ++i) stream += "data: " + kEvent + "\n\n";
  SseParser parser;
  int content = 0;
  const double before_s = ThreadCpuSeconds();
  for (size_t i = 0; i < stream.size(); i += 16384) {
    parser.Feed(std::string_view(stream).substr(i, 16384), [&](std::string_view payload) {
      content += ParseStreamEvent(payload)->has_content;
    });
  }
  const double per_core = kEvents / (ThreadCpuSeconds() - before_s);
  CHECK(content == kEvents);
  std::printf("parsing: %.2f us an event\n", 1e6 / per_core);
  CHECK(per_core > 10 * kGoal);
}

TEST_CASE("A prompt that comes back as ids does not hold the loop up") {
  // The first event of a 128K-token prompt, as servers write it when asked for token ids.
  std::string ids = "1";
  for (int i = 1; i < 131072; ++i) ids += "," + std::to_string(i % 151936);
  const std::string payload =
      R"({"choices":[{"index":0,"text":"a","token_ids":[5],"prompt_token_ids":[)" + ids + "]}]}";
  const double before_s = ThreadCpuSeconds();
  CHECK(ParseStreamEvent(payload)->has_content);
  const double seconds = ThreadCpuSeconds() - before_s;
  std::printf("128K prompt ids: %.2f ms\n", seconds * 1e3);
  CHECK(seconds < 40.0 / kGoal);
}

}  // namespace
}  // namespace spin
