// What safetensors files are read, and how those that do not add up are refused.
#include "models/safetensors.h"

#include <catch2/catch.hpp>

#include <limits>

#include "tests/models/checkpoint_files.h"

namespace spin {
namespace {

using testing::SafetensorsBytes;
using testing::TensorEntry;

absl::StatusOr<std::map<std::string, TensorView>> Parse(const std::string& file) {
  return ParseSafetensors(std::as_bytes(std::span<const char>(file.data(), file.size())));
}

std::string ErrorOf(const std::string& file) {
  const auto parsed = Parse(file);
  if (parsed.ok()) return "";
  CHECK(parsed.status().code() == absl::StatusCode::kInvalidArgument);
  return MessageOf(parsed.status());
}

std::string ErrorOfEntry(const nlohmann::json& entry) {
  return ErrorOf(
      SafetensorsBytes(nlohmann::json{{"the.tensor", entry}}.dump(), std::string(16, 'x')));
}

TEST_CASE("A valid file gives views into its bytes; unread types and metadata are left out") {
  const std::string file = testing::SmallSafetensors();
  const auto parsed = Parse(file);
  REQUIRE(parsed.ok());
  REQUIRE(parsed->size() == 2);
  const TensorView& a = parsed->at("a");
  CHECK(a.dtype == DType::kBf16);
  CHECK(a.shape == std::vector<int64_t>{2, 3});
  CHECK(std::memcmp(a.bytes.data(), "abcdefghijkl", 12) == 0);
  CHECK(parsed->at("b").dtype == DType::kF32);
  CHECK(parsed->at("b").bytes.size() == 8);

  const nlohmann::json header = {{"ids", TensorEntry("I64", {2}, 0, 16)},
                                 {"half", TensorEntry("F16", {8}, 0, 16)},
                                 {"empty", TensorEntry("F32", {0, 7}, 4, 4)},
                                 {"scalar", TensorEntry("F32", {}, 0, 4)}};
  const std::string mixed = SafetensorsBytes(header.dump(), std::string(16, 'x'));
  const auto views = Parse(mixed);
  REQUIRE(views.ok());
  CHECK_FALSE(views->contains("ids"));
  CHECK(views->at("half").dtype == DType::kF16);
  CHECK(views->at("empty").bytes.empty());
  CHECK(views->at("scalar").shape.empty());
}

TEST_CASE("A header that does not fit the file is refused") {
  using Catch::Contains;
  CHECK_THAT(ErrorOf("short"), Contains("no header"));
  std::string huge = testing::SmallSafetensors();
  for (const uint64_t size : {uint64_t{1} << 40, std::numeric_limits<uint64_t>::max(),
                              static_cast<uint64_t>(huge.size())}) {
    std::memcpy(huge.data(), &size, sizeof(size));
    CHECK_THAT(ErrorOf(huge), Contains("does not fit"));
  }
  CHECK_THAT(ErrorOf(SafetensorsBytes("{\"a\": ", "")), Contains("not valid JSON"));
  CHECK_THAT(ErrorOf(SafetensorsBytes("[1]", "")), Contains("not an object"));
  CHECK_THAT(ErrorOf(SafetensorsBytes("", "")), Contains("not valid JSON"));
  CHECK_THAT(ErrorOf(SafetensorsBytes("{\"a\":" + std::string(100000, '['), "")),
             Contains("JSON") || Contains("nested"));
  CHECK_THAT(ErrorOf(SafetensorsBytes(
                 "{\"a\":" + std::string(100000, '[') + std::string(100000, ']') + "}", "")),
             Contains("nested"));
}

TEST_CASE("A tensor that does not add up is refused by name") {
  using Catch::Contains;
  constexpr uint64_t kMax = std::numeric_limits<uint64_t>::max();
  const auto refused = [](const nlohmann::json& entry, const std::string& why) {
    INFO(entry.dump());
    CHECK_THAT(ErrorOfEntry(entry), Contains("the.tensor") && Contains(why));
  };
  refused(TensorEntry("F32", {4}, 0, 12), "another size");
  refused(TensorEntry("F32", {5}, 0, 20), "outside of the file");
  refused(TensorEntry("F32", {4}, kMax - 15, kMax), "outside of the file");
  refused(TensorEntry("F32", {4}, 16, 0), "outside of the file");
  refused(TensorEntry("I64", {2}, 8, 24), "outside of the file");
  refused(TensorEntry("F32", {-4}, 0, 16), "bad shape");
  refused(TensorEntry("F32", {int64_t{1} << 32, int64_t{1} << 32}, 0, 0), "bad shape");
  refused(TensorEntry("F32", {int64_t{1} << 62}, 0, 0), "bad shape");
  refused(TensorEntry("F32", std::vector<int64_t>(9, 1), 0, 4), "too many dimensions");
  refused({{"dtype", "F32"}, {"shape", {4}}, {"data_offsets", {-4, 12}}}, "outside");
  refused({{"dtype", "F32"}, {"shape", {4}}, {"data_offsets", {0.0, 16.0}}}, "outside");
  refused({{"dtype", "F32"}, {"shape", {4}}, {"data_offsets", {0}}}, "data_offsets");
  refused({{"dtype", "F32"}, {"shape", {4}}}, "data_offsets");
  refused({{"dtype", "F32"}, {"shape", 4}, {"data_offsets", {0, 16}}}, "shape");
  refused({{"shape", {4}}, {"data_offsets", {0, 16}}}, "dtype");
  refused(7, "object");
}

TEST_CASE("Errors of a file on disk name it") {
  const std::string folder = testing::ScratchFolder("safetensors_test");
  const std::string path = folder + "/model.safetensors";
  const auto absent = SafetensorsFile::Open(path);
  CHECK(absent.status().code() == absl::StatusCode::kNotFound);
  const std::string file = testing::SmallSafetensors();
  testing::WriteFile(path, file);
  const auto opened = SafetensorsFile::Open(path);
  REQUIRE(opened.ok());
  CHECK(opened->tensors().size() == 2);
  for (std::size_t length = 0; length < file.size(); ++length) {
    INFO("truncated to " << length);
    testing::WriteFile(path, file.substr(0, length));
    const auto truncated = SafetensorsFile::Open(path);
    REQUIRE_FALSE(truncated.ok());
    CHECK_THAT(MessageOf(truncated.status()), Catch::Contains(path));
  }
}

}  // namespace
}  // namespace spin
