#include "server/command_line.h"

#include <catch2/catch.hpp>

namespace spin {
namespace {

using Assignments = std::vector<Assignment>;

TEST_CASE("flags and options are read in both spellings and in order") {
  const auto line =
      ParseCommandLine({"--model", "/m", "--config=a.yaml", "--set", "log.level=debug",
                        "--set=model.served_name=a=b", "--ready-file", "r", "--print-config"});
  REQUIRE(line.ok());
  CHECK(line->sources.file == "a.yaml");
  CHECK(line->sources.assignments == Assignments{{"model.path", "/m", "--model"},
                                                 {"log.level", "debug", "--set"},
                                                 {"model.served_name", "a=b", "--set"}});
  CHECK(line->ready_file == "r");
  CHECK(line->print_config);
  CHECK_FALSE(line->check_config);
  CHECK_FALSE(line->help);
}

TEST_CASE("nothing at all is a command line, and each flag sets its own field") {
  const auto empty = ParseCommandLine({});
  REQUIRE(empty.ok());
  CHECK_FALSE(empty->sources.file.has_value());
  CHECK(empty->sources.assignments.empty());
  CHECK(ParseCommandLine({"-h"})->help);
  CHECK(ParseCommandLine({"--help"})->help);
  CHECK(ParseCommandLine({"--help-config"})->help_config);
  CHECK(ParseCommandLine({"--check-config"})->check_config);
  CHECK(ParseCommandLine({"--version"})->version);
}

TEST_CASE("mistakes name the argument") {
  const auto refusal = [](const std::vector<std::string>& args) {
    const auto line = ParseCommandLine(args);
    REQUIRE_FALSE(line.ok());
    return MessageOf(line.status());
  };
  CHECK(refusal({"--modle", "x"}).find("'--modle'") != std::string::npos);
  CHECK(refusal({"--modle=x"}).find("'--modle'") != std::string::npos);
  CHECK(refusal({"serve"}).find("'serve'") != std::string::npos);
  CHECK(refusal({"-m"}).find("'-m'") != std::string::npos);
  CHECK(refusal({"--model"}) == "--model needs a value");
  CHECK(refusal({"--ready-file"}) == "--ready-file needs a value");
  CHECK(refusal({"--set"}).find("--set") != std::string::npos);
  CHECK(refusal({"--set", "log.level"}).find("KEY=VALUE") != std::string::npos);
}

TEST_CASE("the help names every option") {
  const std::string help = CommandLineHelp();
  for (const char* option : {"--model", "--config", "--set", "--ready-file", "--check-config",
                             "--print-config", "--help-config", "--version"}) {
    CHECK(help.find(option) != std::string::npos);
  }
}

}  // namespace
}  // namespace spin
