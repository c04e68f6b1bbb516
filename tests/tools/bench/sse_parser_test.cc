#include "tools/bench/sse_parser.h"

#include <catch2/catch.hpp>
#include <vector>

namespace spin {
namespace {

std::vector<std::string> ParseInPieces(std::string_view bytes, size_t piece) {
  SseParser parser;
  std::vector<std::string> events;
  for (size_t i = 0; i < bytes.size(); i += piece) {
    parser.Feed(bytes.substr(i, piece), [&](std::string_view data) { events.emplace_back(data); });
  }
  return events;
}

TEST_CASE("Events come out the same however the bytes are cut") {
  const std::string bytes =
      ": ping\n\ndata: {\"a\":1}\n\nevent: x\r\ndata:two\r\ndata: lines\r\n\r\nid: 3\n\ndata: "
      "[DONE]\n\ndata: cut";
  const std::vector<std::string> expected = {"{\"a\":1}", "two\nlines", "[DONE]"};
  for (size_t piece = 1; piece <= bytes.size(); ++piece) {
    INFO("pieces of " << piece);
    CHECK(ParseInPieces(bytes, piece) == expected);
  }
}

TEST_CASE("An empty data line is an event, no data line is none") {
  CHECK(ParseInPieces("data:\n\n", 3) == std::vector<std::string>{""});
  CHECK(ParseInPieces("\n\n\n", 1).empty());
}

}  // namespace
}  // namespace spin
