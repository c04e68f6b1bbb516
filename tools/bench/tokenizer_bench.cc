#include "tools/bench/tokenizer_bench.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>
#include <vector>

#include "models/tokenizer/incremental_decoder.h"
#include "models/tokenizer/tokenizer.h"

namespace spin::bench {
namespace {

constexpr std::size_t kTextBytes = 1'000'000;
constexpr std::size_t kDocumentBytes = 8192;
constexpr double kSeconds = 0.5;

constexpr std::string_view kProse =
    "The harbour lay quiet under a low sky when the last of the fishing boats came in. Margaret "
    "counted them from the window of the customs house, as she had done every evening for eleven "
    "years: seven hulls, seven lanterns, and the slow knocking of ropes against the masts. \"They "
    "won't sail tomorrow,\" she said, \"not with the glass falling like that.\" Her brother didn't "
    "answer. He'd spread the new survey over the table, 1,284 soundings in fathoms and feet, and "
    "was "
    "checking each figure against the notebooks of 1897 and 1912.\n\nA channel that moves forty "
    "metres "
    "in fifteen years can't be drawn once and forgotten; between the lighthouse (built 1871) and "
    "the "
    "old breakwater, the sand had gone on walking north-east at roughly 2.7 metres a year. What "
    "matters isn't where the bank is, he wrote in the margin, but how quickly we can notice that "
    "it "
    "has gone somewhere else.\n\n";
constexpr std::string_view kCode =
    "static int find_slot(const struct table *t, uint64_t key) {\n"
    "    size_t i = hash64(key) & t->mask;\n"
    "    while (t->keys[i] != EMPTY && t->keys[i] != key) {\n"
    "        i = (i + 1) & t->mask;  /* linear probing */\n"
    "    }\n"
    "    return t->keys[i] == key ? (int)i : -1;\n"
    "}\n\n"
    "def summarise(rows, *, limit=100):\n"
    "    totals = collections.defaultdict(float)\n"
    "    for name, value in rows[:limit]:\n"
    "        totals[name.lower()] += value / 1024.0\n"
    "    return sorted(totals.items(), key=lambda item: -item[1])\n\n"
    "{\"id\": \"req-00417\", \"model\": \"small\", \"usage\": {\"prompt\": 18432, \"total\": "
    "18560}}\n\n";
constexpr std::string_view kScripts =
    "Гавань лежала тихо под низким небом, когда вернулись последние лодки. "
    "当最后一批渔船归来时，港口在低垂的天空下一片宁静。 "
    "最後の漁船が戻ったとき、港は静かだった。 Le café était fermé à l'été; übrigens auch im März. "
    "👍🏽🚢\n\n";

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Megabytes a second of the best run of `once`, which handles `bytes`.
double Rate(double bytes, const std::function<void()>& once) {
  double best = 1e30;
  const double begin = Now();
  do {
    const double t = Now();
    once();
    best = std::min(best, Now() - t);
  } while (Now() - begin < kSeconds);
  return bytes / best / 1e6;
}

// Cut at characters.
std::vector<std::string_view> Documents(std::string_view text) {
  std::vector<std::string_view> documents;
  while (!text.empty()) {
    std::size_t size = std::min(kDocumentBytes, text.size());
    while (size < text.size() && (static_cast<uint8_t>(text[size]) & 0xC0) == 0x80) ++size;
    documents.push_back(text.substr(0, size));
    text.remove_prefix(size);
  }
  return documents;
}

}  // namespace

std::string TokenizerBenchText() {
  std::string text;
  for (int i = 0; text.size() < kTextBytes; ++i) {
    text += kProse;
    text += "No. " + std::to_string(i * 7919 % 100003) + ": ";
    text += kProse;
    text += kCode;
    text += kScripts;
  }
  return text;
}

absl::StatusOr<TokenizerRates> MeasureTokenizer(const std::string& path, std::string_view text) {
  if (text.empty()) return InvalidArgument("there is no text to measure with");
  TokenizerRates rates;
  const double begin = Now();
  SPIN_ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer, Tokenizer::Load(path));
  rates.load_ms = (Now() - begin) * 1e3;
  const double bytes = static_cast<double>(text.size());
  const std::vector<std::string_view> documents = Documents(text);
  std::vector<std::vector<TokenId>> encoded(documents.size());
  rates.encode_mb_s = Rate(bytes, [&] {
    for (std::size_t i = 0; i < documents.size(); ++i) {
      encoded[i] = tokenizer->Encode(documents[i], false);
    }
  });
  std::size_t tokens = 0;
  for (const std::vector<TokenId>& ids : encoded) tokens += ids.size();
  rates.bytes_per_token = bytes / static_cast<double>(tokens);
  std::size_t decoded = 0;
  rates.decode_mb_s = Rate(bytes, [&] {
    for (const std::vector<TokenId>& ids : encoded) decoded += tokenizer->Decode(ids, true).size();
  });
  rates.increment_mb_s = Rate(bytes, [&] {
    for (const std::vector<TokenId>& ids : encoded) {
      IncrementalDecoder decoder(tokenizer.get(), {.stop = {"<|never|>", "\n\nUser:"}});
      for (const TokenId id : ids) decoded += decoder.Push(id).text.size();
      decoded += decoder.Flush().size();
    }
  });
  if (decoded == 0) return Internal("%s decodes every token to nothing", path);
  return rates;
}

}  // namespace spin::bench
