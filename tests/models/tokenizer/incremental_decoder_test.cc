// Goal: pieces are whole characters, add up to Decode, and never show a part of a stop string.
// Method: fixed cases, and random tokens over random bytes, checked against Decode and a plain
// search of the text.
#include "models/tokenizer/incremental_decoder.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "common/random.h"
#include "models/tokenizer/utf8.h"

namespace spin {
namespace {

// Each token is a byte string; id 0 is special.
class FakeTokenizer final : public Tokenizer {
 public:
  explicit FakeTokenizer(std::vector<std::string> tokens) : tokens_(std::move(tokens)) {}

  std::vector<TokenId> Encode(std::string_view, bool) const override { return {}; }
  std::string Decode(std::span<const TokenId> ids, bool skip_special_tokens) const override {
    std::string bytes;
    for (const TokenId id : ids) {
      if (!skip_special_tokens || !IsSpecial(id)) bytes += TokenBytes(id);
    }
    std::string text;
    AppendUtf8Lossy(bytes, &text);
    return text;
  }
  std::string_view TokenBytes(TokenId id) const override {
    return id >= 0 && id < vocab_size() ? std::string_view(tokens_[id]) : std::string_view();
  }
  bool IsSpecial(TokenId id) const override { return id == 0; }
  std::optional<TokenId> FindToken(std::string_view) const override { return std::nullopt; }
  int vocab_size() const override { return static_cast<int>(tokens_.size()); }

 private:
  std::vector<std::string> tokens_;
};

std::vector<TokenId> AllFrom(const FakeTokenizer& tokenizer, TokenId first) {
  std::vector<TokenId> ids;
  for (TokenId id = first; id < tokenizer.vocab_size(); ++id) ids.push_back(id);
  return ids;
}

struct Run {
  std::vector<std::string> pieces;  // one per token, then Flush
  std::string text;
  std::optional<std::string> stop;
};

Run Decode(const FakeTokenizer& tokenizer, std::span<const TokenId> ids,
           IncrementalDecoder::Options options) {
  IncrementalDecoder decoder(&tokenizer, std::move(options));
  Run run;
  for (const TokenId id : ids) {
    IncrementalDecoder::Piece piece = decoder.Push(id);
    if (run.stop.has_value()) {
      CHECK(piece.text.empty());
      CHECK_FALSE(piece.stop_match.has_value());
    }
    if (piece.stop_match.has_value()) run.stop = piece.stop_match;
    run.pieces.push_back(piece.text);
  }
  run.pieces.push_back(decoder.Flush());
  for (const std::string& piece : run.pieces) {
    CHECK(IsValidUtf8(piece));
    run.text += piece;
  }
  return run;
}

// Pieces of tokens 1, 2, ... in order, joined by "|".
std::string Pieces(std::vector<std::string> tokens, std::vector<std::string> stop,
                   bool include_stop = false) {
  tokens.insert(tokens.begin(), "<special>");
  const FakeTokenizer tokenizer(std::move(tokens));
  const Run run = Decode(tokenizer, AllFrom(tokenizer, 1),
                         {.stop = std::move(stop), .include_stop_in_output = include_stop});
  std::string out;
  for (const std::string& piece : run.pieces) out += piece + "|";
  return out + (run.stop.has_value() ? "stop " + *run.stop : "");
}

TEST_CASE("A character that tokens cut is held until it is whole") {
  CHECK(Pieces({"a\xF0\x9F", "\x98",
                "\x80"
                "b"},
               {}) ==
        "a||\xF0\x9F\x98\x80"
        "b||");
  CHECK(Pieces({"a\xE4\xB8"}, {}) == "a|\xEF\xBF\xBD|");
  CHECK(Pieces({"\xE4\xB8", "x"}, {}) == "|\xEF\xBF\xBDx||");
}

TEST_CASE("The start of a stop string is held until it is decided") {
  CHECK(Pieces({"ab", "c<", "/", "s", "x"}, {"</s>"}) == "ab|c|||</sx||");
  CHECK(Pieces({"ab", "c<", "/s", ">x"}, {"</s>"}) == "ab|c||||stop </s>");
  CHECK(Pieces({"ab", "c<", "/s", ">x"}, {"</s>"}, true) == "ab|c||</s>||stop </s>");
  CHECK(Pieces({"hello", "\n", "\n", "x"}, {"\n\n"}) == "hello|||||stop \n\n");
  CHECK(Pieces({"END"}, {"END"}) == "||stop END");
  CHECK(Pieces({"EN"}, {"END"}) == "|EN|");
  CHECK(Pieces({"aab"}, {"ab"}) == "a||stop ab");
}

TEST_CASE(
    "The stop string that is complete first ends the text, the longest of those that end "
    "together") {
  CHECK(Pieces({"xabcd"}, {"abcd", "bc"}) == "xa||stop bc");
  CHECK(Pieces({"x", "a", "b", "c", "d"}, {"abcd", "bc"}) == "x|||a|||stop bc");
  CHECK(Pieces({"xabc"}, {"c", "bc"}) ==
        "x"
        "a||stop bc");
  CHECK(Pieces({"x", "ab", "c"}, {"c", "bc"}) == "x|a|||stop bc");
}

TEST_CASE("A stop string may span characters that tokens cut") {
  CHECK(Pieces({"a\xC3", "\xA9\xE2", "\x82",
                "\xAC"
                "b"},
               {"\xC3\xA9\xE2\x82\xAC"}) == "a|||||stop \xC3\xA9\xE2\x82\xAC");
  CHECK(Pieces({"\xC3", "\xA9x"}, {"\xC3\xA9\xE2\x82\xAC"}) == "|\xC3\xA9x||");
}

TEST_CASE("Special tokens are left out on request") {
  const FakeTokenizer tokenizer({"<special>", "a", "b"});
  const std::vector<TokenId> ids = {1, 0, 2, 99, -1};
  CHECK(Decode(tokenizer, ids, {.stop = {}}).text == "ab");
  CHECK(Decode(tokenizer, ids, {.stop = {}, .skip_special_tokens = false}).text == "a<special>b");
  CHECK(Decode(tokenizer, ids, {.stop = {"ab"}}).stop == "ab");
  CHECK_FALSE(
      Decode(tokenizer, ids, {.stop = {"ab"}, .skip_special_tokens = false}).stop.has_value());
}

TEST_CASE("Without a tokenizer every piece is empty") {
  IncrementalDecoder decoder(nullptr, {.stop = {"x"}});
  CHECK(decoder.Push(5).text.empty());
  CHECK(decoder.Flush().empty());
}

TEST_CASE(
    "Empty stop strings are ignored, and a stop string that is not UTF-8 matches its repair") {
  CHECK(Pieces({"ab"}, {""}) == "ab||");
  CHECK(Pieces({"a\xFF", "b"}, {"\xFF"}) == "a|||stop \xEF\xBF\xBD");
}

// Where a plain reader of the whole text stops: the first stop string to end, the longest of those.
std::string Expected(const std::string& text, const std::vector<std::string>& stops,
                     bool include_stop) {
  for (std::size_t end = 1; end <= text.size(); ++end) {
    std::size_t longest = 0;
    for (const std::string& stop : stops) {
      if (std::string_view(text).substr(0, end).ends_with(stop))
        longest = std::max(longest, stop.size());
    }
    if (longest > 0) return text.substr(0, include_stop ? end : end - longest);
  }
  return text;
}

TEST_CASE("Random tokens of random bytes add up to Decode, cut at the stop string") {
  const uint64_t seed = GENERATE(range(1, 1500));
  INFO("seed " << seed);
  Random random(seed);
  static const std::vector<std::string> kUnits = {
      "a",    "b",        "ab",       "\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x98\x80",
      "\xFF", "\xE2\x82", "\xF0\x9F", "\x80",     "\xED\xA0\x80", "<",
      "/"};
  const auto some = [&](uint32_t least, uint32_t most) {
    std::string out;
    for (int64_t n = random.Between(least, most); n > 0; --n)
      out += kUnits[random.Below(kUnits.size())];
    return out;
  };
  const std::string bytes = some(0, 40);
  std::vector<std::string> tokens = {"<special>"};
  for (std::size_t at = 0; at < bytes.size();) {
    const std::size_t n = std::min<std::size_t>(1 + random.Below(5), bytes.size() - at);
    tokens.push_back(bytes.substr(at, n));
    at += n;
  }
  const FakeTokenizer tokenizer(tokens);
  std::vector<TokenId> ids = AllFrom(tokenizer, 1);
  for (uint32_t n = random.Below(3); n > 0; --n)
    ids.insert(ids.begin() + random.Below(ids.size() + 1), 0);
  const bool skip = random.Below(2) == 0;
  const bool include_stop = random.Below(2) == 0;
  std::vector<std::string> stops;
  for (uint32_t n = random.Below(4); n > 0; --n) {
    std::string stop;
    AppendUtf8Lossy(some(1, 4), &stop);
    stops.push_back(stop);
  }
  const Run run =
      Decode(tokenizer, ids,
             {.stop = stops, .include_stop_in_output = include_stop, .skip_special_tokens = skip});
  CHECK(run.text == Expected(tokenizer.Decode(ids, skip), stops, include_stop));
}

TEST_CASE("What is held back stays shorter than the longest stop string and a character") {
  const FakeTokenizer tokenizer({"<special>", "a", "\xE2"});
  const std::string stop = std::string(50, 'a') + "b";
  IncrementalDecoder decoder(&tokenizer, {.stop = {stop}});
  std::size_t pushed = 0;
  std::size_t sent = 0;
  for (int i = 0; i < 1000; ++i) {
    ++pushed;
    sent += decoder.Push(1).text.size();
    CHECK(pushed - sent < stop.size());
  }
}

}  // namespace
}  // namespace spin
