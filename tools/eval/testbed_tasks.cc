#include "tools/eval/testbed_tasks.h"

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <utility>

#include "tools/eval/shuffle.h"

namespace spin::eval {
namespace {

using Tokens = std::vector<int32_t>;

constexpr int32_t kBos = 1, kSet = 3, kEnd = 4, kAsk = 5, kAll = 6, kAns = 7;
constexpr int32_t kOrdinalBase = 8, kNumOrdinals = 4;
constexpr int32_t kKeyBase = 32, kNumKeys = 256;
constexpr int32_t kValueBase = 288, kNumValues = 256;
constexpr int32_t kFillerBase = 544, kNumFiller = 480, kNumSuccessors = 16;
constexpr uint64_t kFillerSeed = 0x7E57BED;
constexpr int32_t kQueries = 4;
constexpr int32_t kLinks = 4;
constexpr uint64_t kDocumentId = 5;  // behind those of the tasks

// What a task says and asks: statements in the order they were made.
struct Scene {
  std::vector<Tokens> statements;
  Tokens question;
  Tokens answer;
};

Tokens DrawKeys(Random& random, int32_t count) {
  Tokens keys = DrawDistinct(kNumKeys, count, random);
  for (int32_t& key : keys) key += kKeyBase;
  return keys;
}

int32_t DrawValue(Random& random) {
  return kValueBase + static_cast<int32_t>(random.Below(kNumValues));
}

struct Record {
  int32_t key = 0, first = 0, second = 0;
};

std::vector<Record> DrawRecords(Random& random, int32_t count) {
  std::vector<Record> records;
  for (const int32_t key : DrawKeys(random, count)) {
    const int32_t first = DrawValue(random);
    records.push_back({key, first, DrawValue(random)});
  }
  return records;
}

// `count` records, of which the first `asked` are asked for.
Scene RecordScene(Random& random, int32_t count, int32_t asked) {
  Scene scene;
  for (const Record& record : DrawRecords(random, count)) {
    scene.statements.push_back({kSet, record.key, record.first, record.second, kEnd});
    if (static_cast<int32_t>(scene.statements.size()) > asked) continue;
    scene.question.insert(scene.question.end(), {kAsk, record.key});
    scene.answer.insert(scene.answer.end(), {record.key, record.first, record.second});
  }
  scene.question.push_back(kAns);
  return scene;
}

Scene Needle(Random& random, int32_t) {
  return RecordScene(random, 1, 1);
}

int32_t NumRecords(int32_t length) {
  return std::clamp(length / 64, kQueries, 128);
}

Scene MultiKey(Random& random, int32_t length) {
  return RecordScene(random, NumRecords(length), 1);
}

Scene MultiQuery(Random& random, int32_t length) {
  return RecordScene(random, NumRecords(length), kQueries);
}

Scene MultiValue(Random& random, int32_t length) {
  const Tokens keys = DrawKeys(random, std::clamp(length / 256, 1, 32));
  Scene scene;
  scene.question = {kAll, keys[0], kAns};
  for (const int32_t key : keys) {
    for (int32_t i = 0; i < kNumOrdinals; ++i) {
      const Tokens fact = {key, kOrdinalBase + i, DrawValue(random)};
      scene.statements.push_back({kSet, fact[0], fact[1], fact[2], kEnd});
      if (key == keys[0]) scene.answer.insert(scene.answer.end(), fact.begin(), fact.end());
    }
  }
  return scene;
}

Scene Tracking(Random& random, int32_t length) {
  const int32_t chains = std::clamp(length / 512, 1, 16);
  const Tokens keys = DrawKeys(random, chains * (kLinks + 1));
  Scene scene;
  scene.question = {kAsk, keys[0], kAns};
  for (int32_t chain = 0; chain < chains; ++chain) {
    const int32_t* key = keys.data() + int64_t{chain} * (kLinks + 1);
    for (int32_t i = 0; i < kLinks; ++i)
      scene.statements.push_back({kSet, key[i], key[i + 1], kEnd});
    const int32_t first = DrawValue(random);
    const int32_t second = DrawValue(random);
    scene.statements.push_back({kSet, key[kLinks], first, second, kEnd});
    if (chain > 0) continue;
    scene.answer.assign(key, key + kLinks + 1);
    scene.answer.insert(scene.answer.end(), {first, second});
  }
  return scene;
}

// An order-1 Markov chain, its first state uniform; each state has 16 successors, equally likely.
class Filler {
 public:
  Filler() {
    Random random(kFillerSeed);
    for (int32_t& successor : successors_) {
      successor = static_cast<int32_t>(random.Below(kNumFiller));
    }
  }

  Tokens Draw(Random& random, int32_t count) const {
    Tokens tokens;
    int32_t state = 0;
    for (int32_t i = 0; i < count; ++i) {
      state = i == 0 ? static_cast<int32_t>(random.Below(kNumFiller))
                     : successors_[static_cast<size_t>(state) * kNumSuccessors +
                                   random.Below(kNumSuccessors)];
      tokens.push_back(kFillerBase + state);
    }
    return tokens;
  }

 private:
  std::array<int32_t, size_t{kNumFiller} * kNumSuccessors> successors_;
};

// BOS, the statements in random order at random places of filler, the question: `length` tokens.
Tokens MakePrompt(const Scene& scene, int32_t length, Random& random) {
  static const Filler filler_source;
  std::vector<int32_t> order(scene.statements.size());
  std::iota(order.begin(), order.end(), 0);
  Shuffle(order, random);
  int32_t num_filler = length - 1 - static_cast<int32_t>(scene.question.size());
  for (const Tokens& statement : scene.statements) {
    num_filler -= static_cast<int32_t>(statement.size());
  }
  Tokens cuts(scene.statements.size());
  for (int32_t& cut : cuts) {
    cut = static_cast<int32_t>(random.Below(static_cast<uint32_t>(num_filler) + 1));
  }
  std::sort(cuts.begin(), cuts.end());
  const Tokens filler = filler_source.Draw(random, num_filler);
  Tokens prompt = {kBos};
  int32_t begin = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    prompt.insert(prompt.end(), filler.begin() + begin, filler.begin() + cuts[i]);
    const Tokens& statement = scene.statements[static_cast<size_t>(order[i])];
    prompt.insert(prompt.end(), statement.begin(), statement.end());
    begin = cuts[i];
  }
  prompt.insert(prompt.end(), filler.begin() + begin, filler.end());
  prompt.insert(prompt.end(), scene.question.begin(), scene.question.end());
  return prompt;
}

// One question and answer after the other, about records in the order they were made.
Scene Interview(Random& random, int32_t length) {
  Scene scene;
  for (const Record& r : DrawRecords(random, NumRecords(length))) {
    scene.statements.push_back({kSet, r.key, r.first, r.second, kEnd});
    const Tokens turn = {kAsk, r.key, kAns, r.key, r.first, r.second, kEnd};
    if (static_cast<int32_t>(scene.question.size() + turn.size()) <= length / 3) {
      scene.question.insert(scene.question.end(), turn.begin(), turn.end());
    }
  }
  return scene;
}

absl::Status CheckSize(std::string_view name, int32_t tokens, uint64_t seed) {
  if (tokens >= 256 && tokens < 1 << 20 && seed < 1 << 24) return absl::OkStatus();
  return InvalidArgument("%s: a context of 256 .. 2^20 - 1 tokens, and a seed below 2^24", name);
}

// The draws of example `index` of the task or document `id`.
Random ExampleRandom(uint64_t id, int32_t length, uint64_t seed, int32_t index) {
  return Random(seed << 40 | id << 36 | static_cast<uint64_t>(length) << 16 |
                static_cast<uint64_t>(index));
}

using SceneMaker = Scene (*)(Random& random, int32_t length);

class TestbedTask final : public EvalTask {
 public:
  TestbedTask(std::string name, uint64_t id, SceneMaker make)
      : name_(std::move(name)), id_(id), make_(make) {}

  std::string name() const override { return name_; }
  absl::StatusOr<TaskSample> Sample(int32_t context, uint64_t seed, int32_t index) const override {
    SPIN_RETURN_IF_ERROR(CheckSize(name_, context, seed));
    if (index >= 1 << 16) return InvalidArgument("%s: an index below 2^16", name_);
    Random random = ExampleRandom(id_, context, seed, index);
    Scene scene = make_(random, context);
    TaskSample sample;
    sample.prompt = MakePrompt(scene, context, random);
    sample.max_new = static_cast<int32_t>(scene.answer.size());
    sample.score = [answer = std::move(scene.answer)](std::span<const int32_t> said) {
      return std::equal(said.begin(), said.end(), answer.begin(), answer.end()) ? 1.0 : 0.0;
    };
    return sample;
  }

 private:
  const std::string name_;
  const uint64_t id_;
  const SceneMaker make_;
};

}  // namespace

bool SpeaksTestbed(const ModelFolder& folder) {
  return folder.tokenizer == nullptr && folder.config.vocab_size == kTestbedVocab;
}

std::vector<std::unique_ptr<EvalTask>> MakeTestbedTasks() {
  std::vector<std::unique_ptr<EvalTask>> tasks;
  tasks.push_back(std::make_unique<TestbedTask>("needle", 0, &Needle));
  tasks.push_back(std::make_unique<TestbedTask>("multi_key", 1, &MultiKey));
  tasks.push_back(std::make_unique<TestbedTask>("multi_value", 2, &MultiValue));
  tasks.push_back(std::make_unique<TestbedTask>("multi_query", 3, &MultiQuery));
  tasks.push_back(std::make_unique<TestbedTask>("tracking", 4, &Tracking));
  return tasks;
}

absl::StatusOr<Tokens> MakeTestbedDocument(int32_t tokens, uint64_t seed) {
  SPIN_RETURN_IF_ERROR(CheckSize("a document of the testbed", tokens, seed));
  Random random = ExampleRandom(kDocumentId, tokens, seed, 0);
  return MakePrompt(Interview(random, tokens), tokens, random);
}

}  // namespace spin::eval
