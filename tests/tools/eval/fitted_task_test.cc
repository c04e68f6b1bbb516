// Prompts in tokens: as long as the context has room for, through a real tokenizer and a chat template.
#include <absl/strings/str_cat.h>

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "common/check.h"
#include "tools/eval/documents.h"
#include "tools/eval/prose.h"
#include "tools/eval/task_registry.h"
#include "tools/eval/testbed_tasks.h"

namespace spin::eval {
namespace {

ModelFolder SmallFolder() {
  ModelFolder folder;
  auto tokenizer = Tokenizer::Load("tests/models/testdata/tokenizers/smollm2.tokenizer.json");
  SPIN_CHECK_OK(tokenizer.status());
  folder.tokenizer = *std::move(tokenizer);
  auto chat = ChatTemplate::Parse(
      "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content "
      "}}<|im_end|>\n{% endfor %}"
      "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}");
  SPIN_CHECK_OK(chat.status());
  folder.chat_template = *std::move(chat);
  folder.config.vocab_size = folder.tokenizer->vocab_size();
  return folder;
}

TEST_CASE(
    "each of RULER's prompts just fits, ends with the answer's begin, and its answer scores 1") {
  const ModelFolder folder = SmallFolder();
  const auto tasks = MakeTasks({}, folder, MakeProse(1, 300));
  REQUIRE(tasks.ok());
  REQUIRE(tasks->size() == 11);
  for (const auto& task : *tasks) {
    INFO(task->name());
    for (const int32_t context : {2048, 4096}) {
      const auto sample = task->Sample(context, 7, 0);
      REQUIRE(sample.ok());
      const auto length = static_cast<int32_t>(sample->prompt.size());
      CHECK(length + sample->max_new <= context);
      // One unit of filler is a sentence, or a common word's repetitions.
      CHECK(length + sample->max_new > context - 100);
      CHECK(task->Sample(context, 7, 0)->prompt == sample->prompt);
      CHECK(task->Sample(context, 7, 1)->prompt != sample->prompt);
      CHECK(task->Sample(context, 8, 0)->prompt != sample->prompt);
      const std::string text = folder.tokenizer->Decode(sample->prompt, false);
      CHECK(text.starts_with("<|im_start|>user\n"));
      const std::string turn = "<|im_end|>\n<|im_start|>assistant\n";
      REQUIRE(text.find(turn) != std::string::npos);
      CHECK(text.size() > text.find(turn) + turn.size());
      // The whole prompt as an answer contains every reference; nothing contains none.
      CHECK(sample->score(sample->prompt) == 1);
      CHECK(sample->score({}) == 0);
    }
  }
}

TEST_CASE("a context without room for the question is an error that names the task") {
  const ModelFolder folder = SmallFolder();
  const std::vector<std::string> names = {"vt"};
  const auto tasks = MakeTasks(names, folder, MakeProse(1, 300));
  REQUIRE(tasks.ok());
  const auto sample = (*tasks)[0]->Sample(200, 1, 0);
  CHECK(sample.status().code() == absl::StatusCode::kInvalidArgument);
  CHECK(MessageOf(sample.status()).find("vt") != std::string::npos);
}

TEST_CASE("task names: unknown ones and those of other models are refused") {
  const ModelFolder folder = SmallFolder();
  for (const std::string name : {"niah", "needle"}) {
    const std::vector<std::string> names = {name};
    const auto tasks = MakeTasks(names, folder, {"A sentence."});
    CHECK(tasks.status().code() == absl::StatusCode::kInvalidArgument);
  }
  CHECK(TaskNames().size() == 16);
}

TEST_CASE("documents: their length, pieces of a text, prose by seed; the testbed's or random ids") {
  const ModelFolder folder = SmallFolder();
  const auto prose = MakeDocuments(folder, {.text = "", .count = 2, .tokens = 300, .seed = 4});
  REQUIRE(prose.ok());
  REQUIRE(prose->size() == 2);
  CHECK((*prose)[0].size() == 300);
  CHECK((*prose)[0] != (*prose)[1]);
  CHECK(*prose == *MakeDocuments(folder, {.text = "", .count = 2, .tokens = 300, .seed = 4}));

  const std::string text = JoinSentences(MakeProse(8, 60));
  const auto tokens = folder.tokenizer->Encode(text, false);
  const auto pieces = MakeDocuments(folder, {.text = text, .count = 3, .tokens = 200, .seed = 1});
  REQUIRE(pieces.ok());
  CHECK((*pieces)[0] == std::vector<int32_t>(tokens.begin(), tokens.begin() + 200));
  CHECK((*pieces)[2] == std::vector<int32_t>(tokens.end() - 200, tokens.end()));
  CHECK_FALSE(
      MakeDocuments(folder, {.text = "Too short.", .count = 1, .tokens = 200, .seed = 1}).ok());

  ModelFolder bare;
  bare.config.vocab_size = 320;
  const auto random = MakeDocuments(bare, {.text = "", .count = 2, .tokens = 100, .seed = 1});
  REQUIRE(random.ok());
  CHECK((*random)[0].size() == 100);
  for (const int32_t token : (*random)[1]) CHECK((token >= 0 && token < 320));
  CHECK(DocumentLanguage(bare) == "random token ids");

  bare.config.vocab_size = kTestbedVocab;
  const auto testbed = MakeDocuments(bare, {.text = "", .count = 2, .tokens = 300, .seed = 1});
  REQUIRE(testbed.ok());
  CHECK((*testbed)[1] == *MakeTestbedDocument(300, 2));
  CHECK(DocumentLanguage(bare) == "the testbed's language");
}

}  // namespace
}  // namespace spin::eval
