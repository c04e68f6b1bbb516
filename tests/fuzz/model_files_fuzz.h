// Bodies shared by the libFuzzer entries (safetensors_fuzz.cc, model_config_fuzz.cc) and the smoke
// test (model_files_fuzz_test.cc). Each returns whether the file was taken and aborts when a
// promise of the parser's header does not hold.
#pragma once

#include <string_view>

namespace spin {

bool FuzzSafetensors(std::string_view data);
bool FuzzModelConfig(std::string_view data);

}  // namespace spin
