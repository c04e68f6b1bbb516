// Which files a model folder needs, and that a corrupt file is never taken for an absent one.
#include "models/model_folder.h"

#include <catch2/catch.hpp>

#include "tests/models/checkpoint_files.h"
#include "tests/models/tokenizer/small_tokenizer.h"

namespace spin {
namespace {

using Catch::Contains;
using testing::WriteFile;

std::string Folder() {
  const std::string folder = testing::ScratchFolder("model_folder_test");
  WriteFile(folder + "/config.json", testing::SmallConfig().dump());
  return folder;
}

TEST_CASE("config.json alone is a folder that serves token ids") {
  const auto folder = ReadModelFolder(Folder());
  REQUIRE(folder.ok());
  CHECK(folder->tokenizer == nullptr);
  CHECK(folder->chat_template == nullptr);
  CHECK(folder->eos_token_ids() == std::vector<int32_t>{2, 3});
}

TEST_CASE("All files of a folder are read") {
  const std::string path = Folder();
  WriteFile(path + "/tokenizer.json", SmallTokenizerJson().dump());
  WriteFile(path + "/generation_config.json", R"({"eos_token_id": 7, "top_k": 20})");
  WriteFile(path + "/tokenizer_config.json",
            R"({"bos_token": "<s>", "eos_token": {"content": "</s>"},
                "chat_template": [{"name": "tool", "template": "t"},
                                  {"name": "default", "template": "{{ messages }}"}]})");
  const auto folder = ReadModelFolder(path);
  REQUIRE(folder.ok());
  CHECK(folder->tokenizer != nullptr);
  CHECK(folder->chat_template != nullptr);
  CHECK(folder->bos_token == "<s>");
  CHECK(folder->eos_token == "</s>");
  CHECK(folder->eos_token_ids() == std::vector<int32_t>{7});
  CHECK(folder->generation.top_k == 20);
}

TEST_CASE("A corrupt file is refused by name") {
  for (const char* name :
       {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"}) {
    for (const char* text : {"{\"a\": ", "[]", "\xff\xfe"}) {
      INFO(name << ": " << text);
      const std::string path = Folder();
      WriteFile(path + "/" + name, text);
      const auto folder = ReadModelFolder(path);
      REQUIRE_FALSE(folder.ok());
      CHECK_THAT(MessageOf(folder.status()), Contains(name));
    }
  }
  const std::string path = Folder();
  WriteFile(path + "/chat_template.jinja", "{% for x in %}");
  CHECK_THAT(MessageOf(ReadModelFolder(path).status()), Contains("chat_template.jinja"));
}

TEST_CASE("A tokenizer with more tokens than the model is refused") {
  const std::string path = Folder();
  nlohmann::json config = testing::SmallConfig();
  config["vocab_size"] = 200;
  WriteFile(path + "/config.json", config.dump());
  WriteFile(path + "/tokenizer.json", SmallTokenizerJson().dump());
  CHECK_THAT(MessageOf(ReadModelFolder(path).status()),
             Contains("tokenizer.json") && Contains("vocab_size"));
}

TEST_CASE("An end-of-sequence token outside of the vocabulary is refused") {
  const std::string path = Folder();
  WriteFile(path + "/generation_config.json", R"({"eos_token_id": 100000000})");
  CHECK_THAT(MessageOf(ReadModelFolder(path).status()), Contains("eos_token_id"));
}

TEST_CASE("No folder, or no config.json, is an error that says so") {
  const std::string path = Folder();
  CHECK_THAT(MessageOf(ReadModelFolder(path + "/none").status()), Contains("not a folder"));
  std::filesystem::remove(path + "/config.json");
  CHECK_THAT(MessageOf(ReadModelFolder(path).status()), Contains("config.json"));
}

}  // namespace
}  // namespace spin
