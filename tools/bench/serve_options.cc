#include "tools/bench/serve_options.h"

#include <absl/strings/str_format.h>
#include <absl/strings/str_split.h>

#include <charconv>
#include <cstdlib>
#include <functional>
#include <string_view>

namespace spin {
namespace {

// One flag. A switch has no `value_name` and gets "".
struct Flag {
  std::string name;
  std::string value_name;
  std::string help;
  std::function<absl::Status(ServeOptions&, const std::string&)> set;
};

template <typename T>
absl::Status ParseNumber(std::string_view text, double low, double high, T& out) {
  T value{};
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  const double number = static_cast<double>(value);
  if (error != std::errc() || stop != end || !(number >= low && number <= high)) {
    return InvalidArgument("'%s' is not a number from %g to %g", text, low, high);
  }
  out = value;
  return absl::OkStatus();
}

Flag Text(const char* name, const char* value_name, const char* help,
          std::string ServeOptions::*field) {
  return {name, value_name, help, [field](ServeOptions& options, const std::string& value) {
            options.*field = value;
            return absl::OkStatus();
          }};
}

Flag Switch(const char* name, const char* help, bool ServeOptions::*field) {
  return {name, "", help, [field](ServeOptions& options, const std::string&) {
            options.*field = true;
            return absl::OkStatus();
          }};
}

template <typename T>
Flag Number(const char* name, const char* help, T ServeOptions::*field, double low, double high) {
  return {name, "N", help, [=](ServeOptions& options, const std::string& value) {
            return ParseNumber(value, low, high, options.*field);
          }};
}

absl::Status SetPercentiles(ServeOptions& options, const std::string& value) {
  options.percentiles.clear();
  for (const std::string& part : std::vector<std::string>(absl::StrSplit(value, ','))) {
    double percentile = 0;
    SPIN_RETURN_IF_ERROR(ParseNumber(part, 0, 100, percentile));
    options.percentiles.push_back(percentile);
  }
  return absl::OkStatus();
}

struct Section {
  std::string title;
  std::vector<Flag> flags;
};

using O = ServeOptions;

std::vector<Section> MakeSections() {
  constexpr double kMillion = 1e6;
  return {
      {"Server",
       {Text("url", "URL", "where the server listens [http://127.0.0.1:8000]", &O::url),
        Text("model", "NAME", "model to ask for [the first of /v1/models]", &O::model),
        Switch("chat", "use /v1/chat/completions instead of /v1/completions", &O::chat),
        Text("api-key", "KEY", "bearer token [the environment's OPENAI_API_KEY]", &O::api_key),
        Text("extra-body", "JSON", "object merged into every request, e.g. '{\"top_p\": 0.9}'",
             &O::extra_body),
        Number("wait", "seconds to wait for the server to answer [0]", &O::wait_s, 0, kMillion),
        Number("timeout", "seconds without a byte after which a request failed [600]",
               &O::timeout_s, 0.01, kMillion)}},
      {"Load",
       {Number("num-prompts", "requests in all [32]", &O::num_prompts, 1, kMillion),
        Number("concurrency",
               "closed loop: clients, each sends when its last answer ended [4];\n"
               "open loop: most requests in flight [no limit]",
               &O::concurrency, 1, 65536),
        Number("request-rate", "open loop: requests a second, Poisson arrivals [closed loop]",
               &O::request_rate, 1e-6, kMillion),
        Number("num-warmups", "requests before the measurement [1]", &O::num_warmups, 0,
               kMillion)}},
      {"Prompts",
       {Number("input-len", "tokens of a prompt; of words, so about, without --token-ids [256]",
               &O::input_len, 1, kMillion),
        Number("output-len", "max_tokens of a request [64]", &O::output_len, 1, kMillion),
        Number("prefix-len", "of the input, tokens that all prompts share [0]", &O::prefix_len, 0,
               kMillion),
        Number("range-ratio", "spread of both lengths: uniform in length * [1 - R, 1 + R] [0]",
               &O::range_ratio, 0, 0.999),
        Switch("token-ids", "send random token ids: exact lengths (/v1/completions only)",
               &O::token_ids),
        Number("max-token-id", "random ids lie below this [10000]", &O::max_token_id, 2000, 1e9),
        Switch("ignore-eos", "generate output-len tokens whatever the model says", &O::ignore_eos),
        Number("temperature", "[0]", &O::temperature, 0, 100),
        Number("seed", "of prompts and arrivals [0]", &O::seed, 0, 1e18)}},
      {"Report",
       {{"percentiles", "LIST", "[50,90,99]", SetPercentiles},
        Text("output-json", "FILE", "write the result in the shape of `vllm bench serve`",
             &O::output_json),
        Switch("save-detailed", "with figures of every request in the JSON", &O::save_detailed)}},
  };
}

const Flag* FindFlag(const std::vector<Section>& sections, const std::string& name) {
  for (const Section& section : sections) {
    for (const Flag& flag : section.flags) {
      if (flag.name == name) return &flag;
    }
  }
  return nullptr;
}

absl::Status CheckTogether(const ServeOptions& options) {
  if (options.chat && options.token_ids) {
    return InvalidArgument("--token-ids goes with /v1/completions: leave out --chat");
  }
  if (options.prefix_len > options.input_len) {
    return InvalidArgument("--prefix-len %d is longer than --input-len %d", options.prefix_len,
                           options.input_len);
  }
  if (options.save_detailed && options.output_json.empty()) {
    return InvalidArgument("--save-detailed needs --output-json FILE");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ServeOptions> ParseServeOptions(std::span<const std::string> args) {
  const std::vector<Section> sections = MakeSections();
  ServeOptions options;
  if (const char* key = std::getenv("OPENAI_API_KEY")) options.api_key = key;
  for (size_t i = 0; i < args.size(); ++i) {
    const std::string& arg = args[i];
    const size_t equals = arg.find('=');
    const Flag* flag = nullptr;
    if (arg.starts_with("--"))
      flag = FindFlag(sections, arg.substr(2, equals == arg.npos ? arg.npos : equals - 2));
    if (flag == nullptr) {
      return InvalidArgument("unknown argument '%s' (spin_bench serve --help lists what there is)",
                             arg);
    }
    std::string value;
    if (flag->value_name.empty()) {
      if (equals != arg.npos) return InvalidArgument("--%s takes no value", flag->name);
    } else if (equals != arg.npos) {
      value = arg.substr(equals + 1);
    } else if (i + 1 < args.size()) {
      value = args[++i];
    } else {
      return InvalidArgument("--%s needs a value (%s)", flag->name, flag->value_name);
    }
    if (const absl::Status status = flag->set(options, value); !status.ok()) {
      return Annotate(status, "--" + flag->name);
    }
  }
  SPIN_RETURN_IF_ERROR(CheckTogether(options));
  return options;
}

std::string ServeHelp() {
  std::string text =
      "usage: spin_bench serve [flags]\n\n"
      "Sends streaming requests to an OpenAI-compatible server and reports latency and "
      "throughput.\n\n"
      "  TTFT  from sending a request to its first text      TPOT  (E2E - TTFT) / (output tokens - "
      "1)\n"
      "  ITL   between two events of the stream              E2E   from sending to the last "
      "text\n\n"
      "Examples:\n"
      "  spin_bench serve                                          # 4 clients, 256 tokens in, 64 "
      "out\n"
      "  spin_bench serve --concurrency 16 --num-prompts 128 --input-len 1024 --output-len 128 "
      "--ignore-eos\n"
      "  spin_bench serve --request-rate 2 --num-prompts 200       # Poisson arrivals, 2 a second\n"
      "  spin_bench serve --token-ids --input-len 4096 --output-json result.json\n";
  for (const Section& section : MakeSections()) {
    text += absl::StrFormat("\n%s:\n", section.title);
    for (const Flag& flag : section.flags) {
      const std::string left = absl::StrFormat("--%s %s", flag.name, flag.value_name);
      const std::vector<std::string> lines = absl::StrSplit(flag.help, '\n');
      for (size_t i = 0; i < lines.size(); ++i) {
        text += absl::StrFormat("  %-20s %s\n", i == 0 ? left : "", lines[i]);
      }
    }
  }
  return text;
}

}  // namespace spin
