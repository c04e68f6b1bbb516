// Single and sharded folders of tensors, and the ways in which they are incomplete.
#include "models/checkpoint.h"

#include <catch2/catch.hpp>

#include "tests/models/checkpoint_files.h"

namespace spin {
namespace {

using Catch::Contains;
using testing::WriteFile;

std::string Shard(const std::string& tensor) {
  const nlohmann::json header = {{tensor, testing::TensorEntry("F32", {2, 2}, 0, 16)}};
  return testing::SafetensorsBytes(header.dump(), std::string(16, 'x'));
}

void WriteIndex(const std::string& folder, const nlohmann::json& map) {
  WriteFile(folder + "/model.safetensors.index.json",
            nlohmann::json{{"metadata", {{"total_size", 32}}}, {"weight_map", map}}.dump());
}

TEST_CASE("A single file, or the shards that the index names") {
  const std::string folder = testing::ScratchFolder("checkpoint_test");
  WriteFile(folder + "/model.safetensors", Shard("a"));
  auto single = Checkpoint::Open(folder);
  REQUIRE(single.ok());
  CHECK(single->Contains("a"));

  WriteFile(folder + "/x-1.safetensors", Shard("a"));
  WriteFile(folder + "/x-2.safetensors", Shard("b"));
  WriteIndex(folder, {{"a", "x-1.safetensors"}, {"b", "x-2.safetensors"}});
  auto sharded = Checkpoint::Open(folder);
  REQUIRE(sharded.ok());
  CHECK(sharded->Contains("b"));
  REQUIRE(sharded->Find("b", {2, 2}).ok());
  CHECK_THAT(MessageOf(sharded->Find("b", {4, 1}).status()),
             Contains("'b'") && Contains("[2, 2]") && Contains("[4, 1]"));
  const auto missing = sharded->Find("c", {2, 2});
  CHECK(missing.status().code() == absl::StatusCode::kNotFound);
  CHECK_THAT(MessageOf(missing.status()), Contains("'c'") && Contains(folder));
}

TEST_CASE("A folder without tensors, a missing shard and a corrupt index are refused by name") {
  const std::string folder = testing::ScratchFolder("checkpoint_bad_test");
  CHECK(Checkpoint::Open(folder).status().code() == absl::StatusCode::kNotFound);
  WriteIndex(folder, {{"a", "gone.safetensors"}});
  CHECK_THAT(MessageOf(Checkpoint::Open(folder).status()), Contains("gone.safetensors"));
  const std::string index = folder + "/model.safetensors.index.json";
  for (const std::string& text : {std::string("{"), std::string("{}"), std::string("[]"),
                                  std::string("{\"weight_map\": {\"a\": 1}}")}) {
    WriteFile(index, text);
    CHECK_THAT(MessageOf(Checkpoint::Open(folder).status()), Contains(index));
  }
}

TEST_CASE("A shard outside of the folder is refused") {
  const std::string root = testing::ScratchFolder("checkpoint_path_test");
  const std::string folder = root + "/model";
  std::filesystem::create_directories(folder);
  WriteFile(root + "/outside.safetensors", Shard("a"));
  for (const std::string& name :
       {std::string("../outside.safetensors"), root + "/outside.safetensors", std::string(".."),
        std::string("."), std::string(""), std::string("./../outside.safetensors")}) {
    INFO(name);
    WriteIndex(folder, {{"a", name}});
    CHECK_THAT(MessageOf(Checkpoint::Open(folder).status()), Contains("no file name"));
  }
}

}  // namespace
}  // namespace spin
