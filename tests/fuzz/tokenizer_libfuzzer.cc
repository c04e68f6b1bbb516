// The libFuzzer entry; tests/fuzz/BUILD.bazel says how to build it.
#include <cstddef>
#include <cstdint>

#include "tests/fuzz/tokenizer_fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  spin::FuzzTokenizerJson({reinterpret_cast<const char*>(data), size});
  return 0;
}
