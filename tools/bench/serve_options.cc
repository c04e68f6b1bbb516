#include "tools/bench/serve_options.h"

#include <absl/strings/str_format.h>
#include <absl/strings/str_split.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <limits>
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

Flag Lengths(const char* name, const char* help, LengthSpec ServeOptions::*field) {
  return {name, "LEN", help, [=](ServeOptions& options, const std::string& value) -> absl::Status {
            SPIN_ASSIGN_OR_RETURN(options.*field, ParseLengths(value));
            return absl::OkStatus();
          }};
}

// "ttft:2000" or "ttft:2000,tpot:50".
absl::Status AddObjectives(ServeOptions& options, const std::string& value) {
  for (const std::string& part : std::vector<std::string>(absl::StrSplit(value, ','))) {
    const size_t colon = std::min(part.find(':'), part.size());
    Objective objective{.metric = part.substr(0, colon), .limit_ms = 0};
    if (objective.metric != "ttft" && objective.metric != "tpot" && objective.metric != "e2el") {
      return InvalidArgument("'%s' is not ttft:MS, tpot:MS or e2el:MS", part);
    }
    SPIN_RETURN_IF_ERROR(
        ParseNumber(std::string_view(part).substr(std::min(colon + 1, part.size())), 0, 1e9,
                    objective.limit_ms));
    options.goodput.push_back(std::move(objective));
  }
  return absl::OkStatus();
}

absl::Status AddMetadata(ServeOptions& options, const std::string& value) {
  const size_t equals = value.find('=');
  if (equals == value.npos || equals == 0) return InvalidArgument("'%s' is not KEY=VALUE", value);
  options.metadata.emplace_back(value.substr(0, equals), value.substr(equals + 1));
  return absl::OkStatus();
}

// The lengths of two long-context benchmarks, as curves: their texts are not needed to load a
// server with their shape.
struct Preset {
  const char* name;
  const char* input_len;
  const char* output_len;
};
constexpr Preset kPresets[] = {
    {"longbench-v2", "lognormal:32000-120000,mean=55000", "lognormal:500-15000,mean=5000"},
    {"longgenbench", "normal:16000-19000,mean=18000", "lognormal:7000-32000,mean=12000"},
};

absl::Status SetPreset(ServeOptions& options, const std::string& value) {
  for (const Preset& preset : kPresets) {
    if (value != preset.name) continue;
    SPIN_ASSIGN_OR_RETURN(options.input_len, ParseLengths(preset.input_len));
    SPIN_ASSIGN_OR_RETURN(options.output_len, ParseLengths(preset.output_len));
    options.ignore_eos = true;
    return absl::OkStatus();
  }
  return InvalidArgument("'%s' is neither longbench-v2 nor longgenbench", value);
}

struct Section {
  std::string title;
  std::vector<Flag> flags;
};

using O = ServeOptions;
constexpr double kMillion = 1e6;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

Section ServerFlags() {
  return {"Server",
          {Text("url", "URL", "where the server listens [http://127.0.0.1:8000]", &O::url),
           Text("grpc", "HOST:PORT", "speak spin.v1.Inference/Generate instead of HTTP", &O::grpc),
           Text("model", "NAME", "model to ask for [the server's first]", &O::model),
           Switch("chat", "use /v1/chat/completions instead of /v1/completions", &O::chat),
           Text("api-key", "KEY", "bearer token [the environment's OPENAI_API_KEY]", &O::api_key),
           Text("extra-body", "JSON", "object merged into every request, e.g. '{\"top_p\": 0.9}'",
                &O::extra_body),
           Number("wait", "seconds to wait for the server to answer [0]", &O::wait_s, 0, kMillion),
           Number("timeout", "seconds without a byte after which a request failed [600]",
                  &O::timeout_s, 0.01, kMillion)}};
}

Section LoadFlags() {
  return {
      "Load",
      {Number("num-prompts", "requests in all [32]", &O::num_prompts, 1, kMillion),
       Number("concurrency",
              "closed loop: clients, each sends when its last answer ended [4];\n"
              "open loop: most requests in flight [no limit]",
              &O::concurrency, 1, 65536),
       Number("request-rate",
              "open loop: requests a second, at random times; inf: all at once\n"
              "[closed loop]",
              &O::request_rate, 1e-6, kInfinity),
       Number("burstiness",
              "shape of the Gamma distribution of the gaps: 1 is a Poisson process,\n"
              "less comes in bursts, more is steadier [1]",
              &O::burstiness, 1e-3, kMillion),
       Number("num-warmups", "requests before the measurement [1]", &O::num_warmups, 0, kMillion)}};
}

Section PromptFlags() {
  return {
      "Prompts",
      {Lengths("input-len", "tokens of a prompt; of words, so about, without --token-ids [256]",
               &O::input_len),
       Lengths("output-len", "max_tokens of a request [64]", &O::output_len),
       {"preset", "NAME",
        "lengths of longbench-v2 (32000-120000 in, mean 55000; 500-15000 out,\n"
        "mean 5000) or longgenbench (16000-19000 in, mean 18000; 7000-32000\n"
        "out, mean 12000), with --ignore-eos; other flags go over it",
        SetPreset},
       Number("scale", "multiplies all lengths, the prefix too [1]", &O::scale, 1e-6, 1000),
       Number("max-model-len",
              "most tokens of input and output together: the output is cut to fit,\n"
              "then the input [no limit]",
              &O::max_model_len, 2, 1e9),
       Number("prefix-len", "of the input, tokens that all prompts share [0]", &O::prefix_len, 0,
              kMillion),
       Number("range-ratio", "spread of fixed lengths: uniform in length * [1 - R, 1 + R] [0]",
              &O::range_ratio, 0, 0.999),
       Switch("token-ids",
              "send random token ids: exact lengths, no tokenizer needed\n"
              "(/v1/completions and gRPC)",
              &O::token_ids),
       Number("min-token-id", "lowest random id [1000]", &O::min_token_id, 0, 1e9),
       Number("max-token-id", "random ids lie below this [10000]", &O::max_token_id, 1, 1e9),
       Switch("ignore-eos", "generate output-len tokens whatever the model says", &O::ignore_eos),
       Number("temperature", "[0]", &O::temperature, 0, 100),
       Number("seed", "of prompts, lengths and arrivals [0]", &O::seed, 0, 1e18)}};
}

Section ReportFlags() {
  return {"Report",
          {{"percentiles", "LIST", "[50,90,99]", SetPercentiles},
           {"goodput", "METRIC:MS",
            "count requests within this limit on ttft, tpot or e2el; of several\n"
            "(again, or with commas) all must hold",
            AddObjectives},
           Text("output-json", "FILE", "write the result in the shape of `vllm bench serve`",
                &O::output_json),
           Switch("save-detailed", "with figures of every request in the JSON", &O::save_detailed),
           {"metadata", "KEY=VALUE", "copy into the JSON, e.g. for tools/bench/plot.py --series",
            AddMetadata}}};
}

std::vector<Section> MakeSections() {
  return {ServerFlags(), LoadFlags(), PromptFlags(), ReportFlags()};
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
  if (!options.grpc.empty() && (options.chat || !options.extra_body.empty())) {
    return InvalidArgument("--chat and --extra-body are HTTP's: leave out --grpc");
  }
  if (options.min_token_id >= options.max_token_id) {
    return InvalidArgument("--min-token-id %d is not below --max-token-id %d", options.min_token_id,
                           options.max_token_id);
  }
  if (options.prefix_len > options.input_len.high) {
    return InvalidArgument("--prefix-len %d is longer than --input-len %s", options.prefix_len,
                           ToString(options.input_len));
  }
  if (options.range_ratio > 0 && !options.input_len.fixed() && !options.output_len.fixed()) {
    return InvalidArgument("--range-ratio spreads fixed lengths: --input-len %s is a range",
                           ToString(options.input_len));
  }
  if (options.burstiness != 1 && options.request_rate == 0) {
    return InvalidArgument("--burstiness goes with --request-rate");
  }
  if (options.save_detailed && options.output_json.empty()) {
    return InvalidArgument("--save-detailed needs --output-json FILE");
  }
  return absl::OkStatus();
}

LengthSpec Spread(const LengthSpec& spec, double ratio) {
  if (ratio == 0 || !spec.fixed()) return spec;
  const int low = std::max(1, static_cast<int>(std::ceil(spec.low * (1 - ratio))));
  return LengthSpec::Uniform(low,
                             std::max(low, static_cast<int>(std::floor(spec.low * (1 + ratio)))));
}

// One flag of the command line with its value.
struct Given {
  const Flag* flag;
  std::string value;
};

absl::StatusOr<std::vector<Given>> MatchFlags(std::span<const std::string> args,
                                              const std::vector<Section>& sections) {
  std::vector<Given> given;
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
    given.push_back({flag, std::move(value)});
  }
  return given;
}

constexpr const char* kHelpHead =
    R"(usage: spin_bench serve [flags]

Sends streaming requests to an OpenAI-compatible server (or, with --grpc, to spind's gRPC) and
reports latency and throughput.

  TTFT  from sending a request to its first token    TPOT  (E2EL - TTFT) / (output tokens - 1)
  ITL   between two events of the stream             E2EL  from sending to the last token

Examples:
  spin_bench serve                                # 4 clients, 256 tokens in, 64 out
  spin_bench serve --concurrency 16 --num-prompts 128 --input-len 1024 --output-len 128 --ignore-eos

  # A model without tokenizer (dummy weights): exact lengths in random ids
  spin_bench serve --token-ids --max-token-id 32000 --input-len 4096 --output-len 256 --ignore-eos

  # Arrivals: Poisson at 2 a second; in bursts, at most 64 in flight; all at once
  spin_bench serve --request-rate 2 --num-prompts 200
  spin_bench serve --request-rate 2 --burstiness 0.3 --concurrency 64
  spin_bench serve --request-rate inf --num-prompts 64

  # How many requests a second keep both promises
  spin_bench serve --request-rate 4 --num-prompts 400 --goodput ttft:2000 --goodput tpot:50

  # The lengths of a long-context benchmark, a tenth of them; then a figure of all rates
  for rate in 0.5 1 2; do
    spin_bench serve --preset longbench-v2 --scale 0.1 --token-ids --request-rate $rate \
      --metadata system=quest --output-json quest-$rate.json
  done
  tools/bench/plot.py --series system --output rates.svg quest-*.json

  # The same load through gRPC
  spin_bench serve --grpc 127.0.0.1:8001 --token-ids --input-len 4096 --output-len 256

A length (LEN) is N, or LOW-HIGH (uniform), or normal:LOW-HIGH,mean=M,std=S, or lognormal:...
Normal and lognormal lengths keep within LOW-HIGH and have the mean M; std is a quarter of the
range unless given. The report shows the lengths that were really sent and received.
)";

}  // namespace

LengthSpec ServeOptions::InputLengths() const {
  return Spread(input_len, range_ratio).Scaled(scale);
}

LengthSpec ServeOptions::OutputLengths() const {
  return Spread(output_len, range_ratio).Scaled(scale);
}

int ServeOptions::PrefixLength() const {
  return static_cast<int>(std::lround(prefix_len * scale));
}

absl::StatusOr<ServeOptions> ParseServeOptions(std::span<const std::string> args) {
  const std::vector<Section> sections = MakeSections();
  ServeOptions options;
  if (const char* key = std::getenv("OPENAI_API_KEY")) options.api_key = key;
  SPIN_ASSIGN_OR_RETURN(std::vector<Given> given, MatchFlags(args, sections));
  std::stable_partition(given.begin(), given.end(),
                        [](const Given& one) { return one.flag->name == "preset"; });
  for (const auto& [flag, value] : given) {
    if (const absl::Status status = flag->set(options, value); !status.ok()) {
      return Annotate(status, "--" + flag->name);
    }
  }
  SPIN_RETURN_IF_ERROR(CheckTogether(options));
  return options;
}

std::string ServeHelp() {
  std::string text = kHelpHead;
  for (const Section& section : MakeSections()) {
    text += absl::StrFormat("\n%s:\n", section.title);
    for (const Flag& flag : section.flags) {
      const std::string left = absl::StrFormat("--%s %s", flag.name, flag.value_name);
      const std::vector<std::string> lines = absl::StrSplit(flag.help, '\n');
      for (size_t i = 0; i < lines.size(); ++i) {
        text += absl::StrFormat("  %-22s %s\n", i == 0 ? left : "", lines[i]);
      }
    }
  }
  return text;
}

}  // namespace spin
