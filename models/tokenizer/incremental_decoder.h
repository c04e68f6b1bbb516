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
    std::vector<std::string> stop;  // stop strings, none empty
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
  void AppendToken(TokenId token);
  Piece Release(bool at_end);

  const Tokenizer* tokenizer_;
  Options options_;
  std::string pending_;  // bytes decoded and not yet released
  bool stopped_ = false;
};

}  // namespace spin
