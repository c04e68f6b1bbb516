// The body shared by the libFuzzer entry (tokenizer_libfuzzer.cc) and the smoke test
// (tokenizer_fuzz_test.cc).
#pragma once

#include <string_view>

namespace spin {

// Takes `data` for a tokenizer.json; when it loads, encodes and decodes with it. Returns whether it
// loaded. Aborts when a promise of tokenizer.h does not hold.
bool FuzzTokenizerJson(std::string_view data);

}  // namespace spin
