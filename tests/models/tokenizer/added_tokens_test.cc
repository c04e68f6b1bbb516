// Goal: added tokens are found where Hugging Face finds them, and take the white space that they
// ask for.
#include "models/tokenizer/added_tokens.h"

#include <catch2/catch.hpp>
#include <string>

namespace spin {
namespace {

// "text|<id text>|text"
std::string Parts(const AddedTokens& tokens, std::string_view text, bool normalized = false) {
  std::vector<TextPart> parts;
  tokens.Split(text, normalized, &parts);
  std::string out;
  for (const TextPart& part : parts) {
    if (!out.empty()) out += "|";
    out += part.id < 0 ? std::string(part.text)
                       : "<" + std::to_string(part.id) + " " + std::string(part.text) + ">";
  }
  return out;
}

AddedTokens Make(std::vector<AddedToken> tokens, Normalizer::Kind kind = Normalizer::Kind::kNone) {
  return AddedTokens(std::move(tokens), Normalizer(kind));
}

TEST_CASE("The leftmost, then the longest token wins") {
  const AddedTokens tokens =
      Make({{.content = "<a", .id = 1}, {.content = "<ab>", .id = 2}, {.content = "b>", .id = 3}});
  CHECK(Parts(tokens, "") == "");
  CHECK(Parts(tokens, "x") == "x");
  CHECK(Parts(tokens, "<ab>") == "<2 <ab>>");
  CHECK(Parts(tokens, "x<abb>y") == "x|<1 <a>|b|<3 b>>|y");
  CHECK(Parts(tokens, "x<ac<ab>") == "x|<1 <a>|c|<2 <ab>>");
  CHECK(Parts(tokens, "<<a<") == "<|<1 <a>|<");
}

TEST_CASE("White space goes to the token that strips it") {
  const AddedTokens tokens =
      Make({{.content = "L", .id = 1, .lstrip = true}, {.content = "R", .id = 2, .rstrip = true}});
  CHECK(Parts(tokens, "a \n L b") == "a|<1  \n L>| b");
  CHECK(Parts(tokens, "a R \t b") == "a |<2 R \t >|b");
  CHECK(Parts(tokens, "R \xC2\xA0 L") == "<2 R \xC2\xA0 >|<1 L>");
  CHECK(Parts(tokens, "  L") == "<1   L>");
}

TEST_CASE("A single word is no part of a word") {
  const AddedTokens tokens = Make({{.content = "word", .id = 1, .single_word = true}});
  CHECK(Parts(tokens, "a word.") == "a |<1 word>|.");
  CHECK(Parts(tokens, "words sword") == "words sword");
  CHECK(Parts(tokens, "\xC3\xA9word word\xCC\x81 _word word1") ==
        "\xC3\xA9word word\xCC\x81 _word word1");
  CHECK(Parts(tokens, "\xE2\x80\x94word") == "\xE2\x80\x94|<1 word>");
}

TEST_CASE("Normalised tokens are looked for apart, in their normal form") {
  const AddedTokens tokens =
      Make({{.content = "\xE2\x84\xAB", .id = 1, .normalized = true}, {.content = "x", .id = 2}},
           Normalizer::Kind::kNfc);
  CHECK(Parts(tokens, "x\xC3\x85", false) == "<2 x>|\xC3\x85");
  CHECK(Parts(tokens, "x\xC3\x85", true) == "x|<1 \xC3\x85>");
}

TEST_CASE("Tokens without content are ignored") {
  CHECK(Make({{.content = "", .id = 1}}).tokens().empty());
}

}  // namespace
}  // namespace spin
