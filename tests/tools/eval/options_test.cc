// The command line: what it sets, what it leaves to spind, what it refuses.
#include "tools/eval/options.h"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

namespace spin::eval {
namespace {

std::string Refusal(const std::vector<std::string>& args) {
  const auto options = ParseOptions(args);
  return options.ok() ? "accepted" : MessageOf(options.status());
}

TEST_CASE("flags take a value behind a space or an equals sign; others go to spind") {
  const std::vector<std::string> args = {
      "--model",   "M",        "--budgets=512,128", "--context", "4096",
      "--measure", "kl,tasks", "--controls=none",   "--set",     "backend.device=cpu",
      "--tasks",   "vt,cwe"};
  const auto options = ParseOptions(args);
  REQUIRE(options.ok());
  CHECK(options->budgets == std::vector<int32_t>{128, 512});
  CHECK_FALSE(options->own_budget);
  CHECK(options->context == 4096);
  CHECK((options->kl && options->tasks && !options->recall && !options->greedy));
  CHECK_FALSE((options->exact || options->window || options->oracle));
  CHECK(options->task_names == std::vector<std::string>{"vt", "cwe"});
  CHECK(options->server == std::vector<std::string>{"--model", "M", "--set", "backend.device=cpu"});
  const auto own = ParseOptions(std::vector<std::string>{"--model", "M", "--budgets", "64,auto"});
  REQUIRE(own.ok());
  CHECK(own->own_budget);
  CHECK(own->budgets == std::vector<int32_t>{64});
}

TEST_CASE("what makes no sense is refused by flag") {
  CHECK(Refusal({"--context", "many"}).find("--context") != std::string::npos);
  CHECK(Refusal({"--budgets", "0"}).find("--budgets") != std::string::npos);
  CHECK(Refusal({"--budgets", ","}).find("--budgets") != std::string::npos);
  CHECK(Refusal({"--measure", "speed"}).find("greedy") != std::string::npos);
  CHECK(Refusal({"--measure", "none"}).find("nothing") != std::string::npos);
  CHECK(Refusal({"--seed"}).find("needs a value") != std::string::npos);
  CHECK(Refusal({"--per-layer=1"}).find("no value") != std::string::npos);
  CHECK(Refusal({"--context", "128"}).find("--forced") != std::string::npos);
  CHECK(Refusal({"--recall-steps", "300"}).find("--recall-steps") != std::string::npos);
  CHECK(Refusal({}) == "accepted");
}

TEST_CASE("the help names every flag, algorithm and task") {
  const std::string help = HelpText();
  for (const std::string word :
       {"--measure", "--budgets", "--per-layer", "quest", "niah_multikey_3", "tracking", "--set"}) {
    CHECK(help.find(word) != std::string::npos);
  }
}

}  // namespace
}  // namespace spin::eval
