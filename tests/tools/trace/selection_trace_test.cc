// The file format: what is written is read back, and what is no trace is refused.
#include "tools/trace/selection_trace.h"

#include <catch2/catch.hpp>

#include <cstdio>
#include <filesystem>

#include "tests/tools/trace/random_trace.h"

namespace spin::trace {
namespace {

TraceHeader Small() {
  return {.num_layers = 2,
          .num_kv_heads = 3,
          .page_tokens = 8,
          .budget_pages = 9,
          .fixed_pages = 2,
          .prompt_tokens = 400,
          .num_steps = 50};
}

void CheckEqual(const SelectionTrace& a, const SelectionTrace& b) {
  REQUIRE(a.header() == b.header());
  for (int32_t layer = 0; layer < a.header().num_layers; ++layer) {
    for (int32_t head = 0; head < a.header().num_kv_heads; ++head) {
      REQUIRE(a.stream(layer, head).ids == b.stream(layer, head).ids);
      REQUIRE(a.stream(layer, head).ends == b.stream(layer, head).ends);
    }
  }
}

TEST_CASE("a trace is read back as it was written") {
  TraceHeader header = Small();
  header.model = "some model";
  header.source = "tëxt";
  header.page_tokens = GENERATE(1, 8, 64);
  header.budget_pages = GENERATE(1, 2, 9, 300);
  header.fixed_pages = 1;
  header.prompt_tokens = GENERATE(1, 63, 64, 4000);
  // Page 0 and the tail may be one and the same, or two pages of a budget of one.
  if (header.budget_pages == 1 && header.Tail(header.num_steps - 1) > 0) return;
  const SelectionTrace trace = RandomTrace(header, 3);
  REQUIRE(trace.complete());
  const auto read = SelectionTrace::Decode(trace.Encode());
  REQUIRE(read.ok());
  CheckEqual(*read, trace);
}

TEST_CASE("the bytes are as the format says") {
  TraceHeader header = {.num_layers = 1,
                        .num_kv_heads = 1,
                        .page_tokens = 16,
                        .budget_pages = 3,
                        .fixed_pages = 1,
                        .prompt_tokens = 4815,  // page 300 ends at token 4815
                        .num_steps = 2,
                        .model = "m",
                        .source = ""};
  SelectionTrace trace(header);
  trace.Append(0, 0, std::vector<int32_t>{0, 2, 300});
  trace.Append(0, 0, std::vector<int32_t>{0, 3, 301});
  CHECK(header.FreshTail(1));
  const std::string bytes = trace.Encode();
  const std::string expected =
      std::string("SPINTRC\n") +
      std::string("\1\0\0\0\1\0\0\0\1\0\0\0\20\0\0\0\3\0\0\0\1\0\0\0\317\22\0\0\2\0\0\0", 32) +
      std::string("\1\0\0\0m\0\0\0\0", 9) +
      std::string("\3\0\1\251\2", 5) +   // 3 pages: 0, then 1 and 297 between
      std::string("\4\2\0\250\2\0", 6);  // 4 changes: 2, 3, 300, 301
  CHECK(bytes == expected);
}

TEST_CASE("damaged bytes are refused or read as some valid trace, never more") {
  const SelectionTrace trace = RandomTrace(Small(), 4);
  const std::string bytes = trace.Encode();
  for (size_t size = 0; size < bytes.size(); ++size) {
    REQUIRE(!SelectionTrace::Decode(bytes.substr(0, size)).ok());
  }
  CHECK(!SelectionTrace::Decode(bytes + "x").ok());
  Random random(5);
  int32_t refused = 0;
  for (int32_t round = 0; round < 3000; ++round) {
    std::string damaged = bytes;
    for (uint32_t i = 0; i <= random.Below(3); ++i) {
      damaged[random.Below(static_cast<uint32_t>(damaged.size()))] =
          static_cast<char>(random.NextU32());
    }
    const auto read = SelectionTrace::Decode(damaged);
    refused += !read.ok();
    if (read.ok()) CHECK(read->Encode().size() <= damaged.size() + 8);
  }
  CHECK(refused > 1000);
}

TEST_CASE("files") {
  const SelectionTrace trace = RandomTrace(Small(), 6);
  const std::string path =
      (std::filesystem::temp_directory_path() / "spin-selection-trace-test").string();
  REQUIRE(trace.WriteFile(path).ok());
  const auto read = SelectionTrace::ReadFile(path);
  REQUIRE(read.ok());
  CheckEqual(*read, trace);
  std::remove(path.c_str());
  const auto missing = SelectionTrace::ReadFile(path);
  CHECK(MessageOf(missing.status()).find(path) != std::string::npos);
  CHECK(!trace.WriteFile("/nonexistent/trace").ok());
}

}  // namespace
}  // namespace spin::trace
