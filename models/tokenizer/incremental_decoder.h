// Turns the token stream of one sequence into text that may be sent: whole UTF-8 characters only,
// and never the start of a stop string that may still be completed.
//
// One sequence owns one decoder; one thread at a time. Concatenated pieces equal Tokenizer::Decode
// of all tokens (cut at the stop string if one was met).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "models/tokenizer/tokenizer.h"

namespace spin {

class IncrementalDecoder {
 public:
  struct Options {
    // Stop strings; empty ones are ignored. The one that is complete first ends the text; of
    // several that end at the same character, the longest. So the result does not depend on how
    // tokens cut the text.
    std::vector<std::string> stop = {};
    bool include_stop_in_output = false;
    bool skip_special_tokens = true;
  };

  // `tokenizer` outlives the decoder; null means token ids only: every piece is empty.
  IncrementalDecoder(const Tokenizer* tokenizer, Options options);

  struct Piece {
    std::string text;  // what may be sent now
    std::optional<std::string>
        stop_match;  // the stop string that ended the text; nothing follows it
  };

  // Takes the next token.
  Piece Push(TokenId token);

  // The rest at the end of the sequence: held-back text; an incomplete character becomes U+FFFD.
  std::string Flush();

 private:
  // Moves whole characters from bytes_ to text_; at the end an incomplete one too, as U+FFFD.
  void TakeCharacters(bool at_end);
  // Takes from text_ what may be sent.
  Piece Release(bool at_end);

  const Tokenizer* tokenizer_;
  Options options_;
  std::string bytes_;  // between calls: the start of a character, at most 3 bytes
  std::string text_;   // between calls: the start of a stop string, shorter than the longest one
  bool stopped_ = false;
};

}  // namespace spin
