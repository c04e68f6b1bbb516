#include "server/command_line.h"

#include <cstdlib>
#include <optional>
#include <utility>

namespace spin {
namespace {

struct Flag {
  std::string_view name;
  bool CommandLine::*target;
};

constexpr Flag kFlags[] = {{"--help", &CommandLine::help},
                           {"-h", &CommandLine::help},
                           {"--help-config", &CommandLine::help_config},
                           {"--print-config", &CommandLine::print_config},
                           {"--check-config", &CommandLine::check_config},
                           {"--version", &CommandLine::version}};

absl::Status TakeOption(CommandLine& line, const std::string& name, const std::string& value) {
  if (name == "--model") {
    line.sources.assignments.push_back({"model.path", value, name});
  } else if (name == "--config") {
    line.sources.file = value;
  } else if (name == "--ready-file") {
    line.ready_file = value;
  } else if (name == "--set") {
    const std::size_t equals = value.find('=');
    if (equals == std::string::npos)
      return InvalidArgument("--set %s: write --set KEY=VALUE", value);
    line.sources.assignments.push_back({value.substr(0, equals), value.substr(equals + 1), name});
  } else {
    return InvalidArgument("unknown argument '%s' (spind --help lists all)", name);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<CommandLine> ParseCommandLine(const std::vector<std::string>& args) {
  CommandLine line;
  line.sources.environment = [](const std::string& name) { return std::getenv(name.c_str()); };
  for (std::size_t i = 0; i < args.size(); ++i) {
    const std::string& arg = args[i];
    bool known = false;
    for (const Flag& flag : kFlags) {
      if (arg != flag.name) continue;
      line.*flag.target = true;
      known = true;
    }
    if (known) continue;
    const std::size_t equals = arg.find('=');
    const std::string name = arg.substr(0, equals);
    if (!name.starts_with("--")) {
      return InvalidArgument("unexpected argument '%s' (spind --help lists all)", arg);
    }
    if (equals != std::string::npos) {
      SPIN_RETURN_IF_ERROR(TakeOption(line, name, arg.substr(equals + 1)));
      continue;
    }
    const std::string value = i + 1 < args.size() ? args[i + 1] : "";
    SPIN_RETURN_IF_ERROR(TakeOption(line, name, value));
    if (i + 1 == args.size()) return InvalidArgument("%s needs a value", name);
    ++i;
  }
  return line;
}

std::string CommandLineHelp() {
  return R"(spind: serves a Qwen3 or Llama-3.1 model over OpenAI-compatible HTTP and gRPC.

usage: spind --model FOLDER [options]

  --model FOLDER       Hugging Face folder (config.json, safetensors, tokenizer.json)
  --config FILE        configuration in YAML
  --set KEY=VALUE      one configuration key, e.g. --set sparse.algorithm=quest; may be repeated
  --ready-file FILE    write {"http": port, "grpc": port, "pid": n} to FILE when ready
  --check-config       check everything, print the memory plan, do not serve
  --print-config       print the configuration with where each value came from
  --help-config        all configuration keys
  --version            the version

Then, for example:
  curl http://127.0.0.1:8000/v1/chat/completions -H 'Content-Type: application/json' \
    -d '{"messages": [{"role": "user", "content": "Hello"}]}'

The first SIGTERM or Ctrl-C lets running requests finish, the second stops at once.
)";
}

}  // namespace spin
