// Goal: no safetensors file, no file of gates and no config.json, however broken, crashes; it is taken or refused
// with a message. Method: seeded mutations of small valid files.
#include <catch2/catch.hpp>

#include <string>

#include "tests/fuzz/model_files_fuzz.h"
#include "tests/fuzz/mutants.h"
#include "tests/models/checkpoint_files.h"
#include "tests/models/seer_gates_file.h"

namespace spin {
namespace {

void RunMutants(const std::string& good, bool (*body)(std::string_view)) {
  REQUIRE(body(good));
  testing::RunMutants([&](Random& random) { return testing::MutateBytes(good, random); }, body,
                      100);
}

TEST_CASE("Thousands of broken safetensors files are taken or refused, never a crash") {
  RunMutants(testing::SmallSafetensors(), &FuzzSafetensors);
}

TEST_CASE("Thousands of broken config.json files are taken or refused, never a crash") {
  RunMutants(testing::SmallConfig().dump(), &FuzzModelConfig);
}

TEST_CASE("Thousands of broken files of gates are taken or refused, never a crash") {
  RunMutants(testing::MakeSeerGates(kFuzzGatesModel).Bytes(), &FuzzSeerGates);
}

}  // namespace
}  // namespace spin
