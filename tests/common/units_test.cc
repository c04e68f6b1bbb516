// Sizes as people write them in configuration.
#include "common/units.h"

#include <catch2/catch.hpp>

namespace spin {
namespace {

TEST_CASE("sizes parse with binary and decimal units") {
  CHECK(ParseBytes("512").value() == 512);
  CHECK(ParseBytes("60GiB").value() == 60 * kGiB);
  CHECK(ParseBytes("1.5 MiB").value() == 3 * kMiB / 2);
  CHECK(ParseBytes("10MB").value() == 10'000'000);
}

TEST_CASE("what is no size is refused with the text") {
  for (const char* bad : {"", "GiB", "-1GiB", "12parsecs", "nan", "1e30GiB"}) {
    INFO(bad);
    const auto parsed = ParseBytes(bad);
    REQUIRE_FALSE(parsed.ok());
    CHECK(MessageOf(parsed.status()).find(bad) != std::string::npos);
  }
}

TEST_CASE("sizes print for people") {
  CHECK(FormatBytes(512) == "512 B");
  CHECK(FormatBytes(1536 * kMiB) == "1.50 GiB");
  CHECK(FormatBytes(100 * kKiB) == "100 KiB");
}

}  // namespace
}  // namespace spin
