#include "tools/trace/record_command.h"

#include <absl/strings/numbers.h>
#include <absl/strings/str_join.h>
#include <absl/strings/str_split.h>

#include <chrono>
#include <cstdio>
#include <string_view>
#include <utility>
#include <vector>

#include "common/mapped_file.h"
#include "tools/bench/server_flags.h"
#include "tools/trace/record_trace.h"

namespace spin::trace {
namespace {

struct Arguments {
  std::vector<std::string> texts;
  std::string output;
  RecordOptions options;
  std::vector<std::string> server;
};

absl::StatusOr<Arguments> Parse(std::span<const std::string> args) {
  Arguments parsed;
  for (const std::string& arg : args) {
    const auto is = [&](std::string_view name) { return arg.rfind(name, 0) == 0; };
    const std::string value = arg.substr(arg.find('=') + 1);
    bool valid = true;
    if (is("--text=")) {
      parsed.texts = absl::StrSplit(value, ',', absl::SkipEmpty());
    } else if (is("--output=")) {
      parsed.output = value;
    } else if (is("--prompt-tokens=")) {
      valid = absl::SimpleAtoi(value, &parsed.options.prompt_tokens) &&
              parsed.options.prompt_tokens >= 1;
    } else if (is("--steps=")) {
      valid = absl::SimpleAtoi(value, &parsed.options.num_steps) && parsed.options.num_steps >= 1;
    } else {
      parsed.server.push_back(arg);
    }
    if (!valid) return InvalidArgument("%s: cannot read it", arg);
  }
  if (parsed.texts.empty() || parsed.output.empty()) {
    return InvalidArgument("record needs --text=FILE and --output=TRACE");
  }
  return parsed;
}

absl::StatusOr<std::vector<int32_t>> Tokens(const std::vector<std::string>& paths,
                                            const ModelFolder& folder) {
  if (folder.tokenizer == nullptr) return InvalidArgument("%s has no tokenizer", folder.path);
  std::string text;
  for (const std::string& path : paths) {
    SPIN_ASSIGN_OR_RETURN(const std::string part, ReadTextFile(path));
    text += part;
  }
  return folder.tokenizer->Encode(text, true);
}

std::string FileNames(const std::vector<std::string>& paths) {
  return absl::StrJoin(paths, ", ", [](std::string* out, const std::string& path) {
    out->append(path.substr(path.rfind('/') + 1));
  });
}

void Report(const Recording& recording, int64_t bytes, double seconds, const std::string& output) {
  const TraceHeader& header = recording.trace.header();
  std::printf(
      "%s: %d steps after %d tokens, %d layers, %d KV heads, %d pages of %d tokens a step; %d "
      "bytes; %.1f s\n"
      "the model on the text after the prompt: %.3f nats a token\n",
      output.c_str(), header.num_steps, header.prompt_tokens, header.num_layers,
      header.num_kv_heads, header.budget_pages, header.page_tokens, static_cast<int>(bytes),
      seconds, recording.nats_per_token);
  if (recording.num_slots == 0) return;
  const auto hits = static_cast<double>(recording.counters.hits);
  const auto misses = static_cast<double>(recording.counters.misses);
  std::printf("Tiered with %d slots a stream: %.0f hits, %.0f misses (%.2f %% hits)\n",
              recording.num_slots, hits, misses, 100 * hits / (hits + misses));
}

}  // namespace

absl::Status RunRecord(std::span<const std::string> args) {
  SPIN_ASSIGN_OR_RETURN(Arguments arguments, Parse(args));
  SPIN_ASSIGN_OR_RETURN(const ServerConfig config, bench::ConfigFromFlags(arguments.server));
  SPIN_ASSIGN_OR_RETURN(ModelPlan plan, PlanModel(config));
  SPIN_ASSIGN_OR_RETURN(std::vector<int32_t> tokens, Tokens(arguments.texts, plan.folder));
  const size_t wanted =
      static_cast<size_t>(arguments.options.prompt_tokens) + arguments.options.num_steps;
  if (tokens.size() > wanted + 1) tokens.resize(wanted + 1);
  arguments.options.source = FileNames(arguments.texts);
  const auto begin = std::chrono::steady_clock::now();
  SPIN_ASSIGN_OR_RETURN(const Recording recording,
                        RecordTrace(config, std::move(plan), tokens, arguments.options));
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
  SPIN_RETURN_IF_ERROR(recording.trace.WriteFile(arguments.output));
  Report(recording, static_cast<int64_t>(recording.trace.Encode().size()), taken.count(),
         arguments.output);
  return absl::OkStatus();
}

}  // namespace spin::trace
