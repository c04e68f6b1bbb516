// How fast one core encodes and decodes with a tokenizer.json.
#pragma once

#include <string>
#include <string_view>

#include "common/status.h"

namespace spin::bench {

struct TokenizerRates {
  double load_ms = 0;         // Tokenizer::Load
  double encode_mb_s = 0;     // 1e6 bytes of text a second, one thread, best of the runs
  double decode_mb_s = 0;     // Decode of the same ids at once
  double increment_mb_s = 0;  // IncrementalDecoder, token by token, with two stop strings
  double bytes_per_token = 0;
};

// A fixed text of 1 MB: English prose, code, numbers, and other scripts in a tenth of it.
std::string TokenizerBenchText();

// Encodes `text` in documents of 8 KiB, for about half a second each way.
absl::StatusOr<TokenizerRates> MeasureTokenizer(const std::string& path, std::string_view text);

}  // namespace spin::bench
