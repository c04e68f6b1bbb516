#include "server/openai/common_request.h"

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "server/error_mapping.h"
#include "server/openai/parse_helpers.h"
#include "server/sparse_request.h"

namespace spin {
namespace {

constexpr int64_t kMaxInt32 = std::numeric_limits<int32_t>::max();

absl::Status ReadInt32(const Json& body, std::string_view name, int64_t min, int64_t max,
                       std::optional<int32_t>& out) {
  std::optional<int64_t> value;
  SPIN_RETURN_IF_ERROR(ReadInt(body, name, min, max, value));
  if (value.has_value()) out = static_cast<int32_t>(*value);
  return absl::OkStatus();
}

template <typename T, typename U>
void Assign(const std::optional<U>& value, T& out) {
  if (value.has_value()) out = static_cast<T>(*value);
}

absl::Status ReadDistribution(const Json& body, const SamplingDefaults& defaults,
                              SamplingParams& sampling) {
  std::optional<double> temperature = defaults.temperature;
  std::optional<double> top_p = defaults.top_p;
  std::optional<double> min_p = defaults.min_p;
  std::optional<double> repetition = defaults.repetition_penalty;
  std::optional<double> presence;
  std::optional<double> frequency;
  std::optional<int32_t> top_k = defaults.top_k;
  SPIN_RETURN_IF_ERROR(ReadNumber(body, "temperature", kTemperatureRange, temperature));
  SPIN_RETURN_IF_ERROR(ReadNumber(body, "top_p", kTopPRange, top_p));
  SPIN_RETURN_IF_ERROR(ReadInt32(body, "top_k", -1, kMaxInt32, top_k));
  SPIN_RETURN_IF_ERROR(ReadNumber(body, "min_p", kMinPRange, min_p));
  SPIN_RETURN_IF_ERROR(ReadNumber(body, "presence_penalty", kPenaltyRange, presence));
  SPIN_RETURN_IF_ERROR(ReadNumber(body, "frequency_penalty", kPenaltyRange, frequency));
  SPIN_RETURN_IF_ERROR(ReadNumber(body, "repetition_penalty", kRepetitionPenaltyRange, repetition));
  Assign(temperature, sampling.temperature);
  Assign(top_p, sampling.top_p);
  Assign(top_k, sampling.top_k);
  Assign(min_p, sampling.min_p);
  Assign(presence, sampling.presence_penalty);
  Assign(frequency, sampling.frequency_penalty);
  Assign(repetition, sampling.repetition_penalty);
  return absl::OkStatus();
}

absl::Status ReadSeed(const Json& body, SamplingParams& sampling) {
  const Json* seed = FindMember(body, "seed");
  if (seed != nullptr && seed->is_number_unsigned()) {
    sampling.seed = seed->get<uint64_t>();
    return absl::OkStatus();
  }
  std::optional<int64_t> value;
  SPIN_RETURN_IF_ERROR(ReadInt(body, "seed", std::numeric_limits<int64_t>::min(),
                               std::numeric_limits<int64_t>::max(), value));
  if (value.has_value()) sampling.seed = static_cast<uint64_t>(*value);
  return absl::OkStatus();
}

absl::Status ReadLogitBias(const Json& body, int32_t vocab_size, SamplingParams& sampling) {
  const Json* bias = FindMember(body, "logit_bias");
  if (bias == nullptr) return absl::OkStatus();
  if (!bias->is_object()) {
    return BadParam("logit_bias",
                    "Invalid 'logit_bias': it must be an object of token id to bias.");
  }
  for (const auto& [key, value] : bias->items()) {
    const bool is_number =
        !key.empty() && key.size() <= 9 &&
        std::all_of(key.begin(), key.end(), [](char c) { return c >= '0' && c <= '9'; });
    if (!is_number || std::stoi(key) >= vocab_size) {
      return BadParam("logit_bias", "Invalid 'logit_bias': '%s' is no token id (0 to %d).", key,
                      vocab_size - 1);
    }
    if (!value.is_number() || !kLogitBiasRange.Contains(value.get<double>())) {
      return BadParam("logit_bias", "Invalid 'logit_bias': the bias of %s must be %g to %g.", key,
                      kLogitBiasRange.min, kLogitBiasRange.max);
    }
    sampling.logit_bias.emplace_back(std::stoi(key), value.get<float>());
  }
  return absl::OkStatus();
}

absl::Status ReadStops(const Json& body, int32_t vocab_size, SamplingParams& sampling) {
  const Json* stop = FindMember(body, "stop");
  if (stop != nullptr && !stop->is_string() && !stop->is_array()) {
    return BadParam("stop", "Invalid 'stop': it must be a string or a list of strings.");
  }
  if (stop != nullptr) {
    const Json list = stop->is_array() ? *stop : Json::array({*stop});
    if (list.size() > kMaxStopStrings) {
      return BadParam("stop", "Invalid 'stop': %d strings, but at most %d are allowed.",
                      list.size(), kMaxStopStrings);
    }
    for (const Json& item : list) {
      const bool good = item.is_string() && !item.get_ref<const std::string&>().empty() &&
                        item.get_ref<const std::string&>().size() <= kMaxStopStringBytes;
      if (!good) {
        return BadParam("stop", "Invalid 'stop': each must be a string of 1 to %d bytes.",
                        kMaxStopStringBytes);
      }
      sampling.stop.push_back(item.get<std::string>());
    }
  }
  const Json* ids = FindMember(body, "stop_token_ids");
  if (ids == nullptr) return absl::OkStatus();
  return ReadTokenIds(*ids, "stop_token_ids", vocab_size, sampling.stop_token_ids);
}

absl::Status ReadLimits(const Json& body, bool allow_zero, SamplingParams& sampling) {
  const int64_t min = allow_zero ? 0 : 1;
  std::optional<int32_t> value;
  SPIN_RETURN_IF_ERROR(ReadInt32(body, "max_tokens", min, kMaxInt32, value));
  SPIN_RETURN_IF_ERROR(ReadInt32(body, "max_completion_tokens", min, kMaxInt32, value));
  sampling.max_tokens = value;
  std::optional<int32_t> min_tokens;
  SPIN_RETURN_IF_ERROR(ReadInt32(body, "min_tokens", 0, kMaxInt32, min_tokens));
  Assign(min_tokens, sampling.min_tokens);
  if (sampling.max_tokens.has_value() && sampling.min_tokens > *sampling.max_tokens) {
    return BadParam("min_tokens", "Invalid 'min_tokens': %d is more than max_tokens (%d).",
                    sampling.min_tokens, *sampling.max_tokens);
  }
  std::optional<int32_t> n;
  SPIN_RETURN_IF_ERROR(ReadInt32(body, "n", 1, kMaxN, n));
  Assign(n, sampling.n);
  std::optional<int32_t> best_of;
  SPIN_RETURN_IF_ERROR(ReadInt32(body, "best_of", 1, kMaxN, best_of));
  if (best_of.has_value() && *best_of != sampling.n) {
    return UnsupportedParam("best_of",
                            "Unsupported parameter: 'best_of' other than 'n' is not supported.");
  }
  return absl::OkStatus();
}

absl::Status ReadStreaming(const Json& body, CommonRequest& request) {
  SPIN_RETURN_IF_ERROR(ReadBool(body, "stream", request.stream));
  const Json* options = FindMember(body, "stream_options");
  if (options == nullptr) return absl::OkStatus();
  if (!options->is_object()) {
    return BadParam("stream_options", "Invalid 'stream_options': it must be an object.");
  }
  if (!request.stream) {
    return BadParam("stream_options",
                    "The 'stream_options' parameter is only allowed when 'stream' is enabled.");
  }
  SPIN_RETURN_IF_ERROR(ReadBool(*options, "include_usage", request.include_usage));
  return ReadBool(*options, "continuous_usage_stats", request.continuous_usage_stats);
}

absl::Status ReadSparseMembers(const Json& object, const ModelInfo& model, SparseRequest& sparse) {
  std::string algorithm;
  SPIN_RETURN_IF_ERROR(ReadBool(object, "exact", sparse.exact));
  SPIN_RETURN_IF_ERROR(ReadInt32(object, "budget_tokens", 1, kMaxInt32, sparse.budget_tokens));
  SPIN_RETURN_IF_ERROR(ReadString(object, "algorithm", algorithm));
  return CheckSparse(algorithm, model, sparse);
}

absl::Status ReadSparse(const Json& body, const ModelInfo& model, SparseRequest& sparse) {
  const Json* member = FindMember(body, "sparse");
  if (member == nullptr) return absl::OkStatus();
  if (!member->is_object()) {
    return BadParam("sparse", "Invalid 'sparse': it must be an object.");
  }
  const absl::Status status = ReadSparseMembers(*member, model, sparse);
  return status.ok() ? status : WithParam(status, "sparse", "");
}

absl::Status RefuseUnsupported(const Json& body) {
  SPIN_RETURN_IF_ERROR(RefuseMembers(
      body, {"audio", "guided_json", "guided_regex", "guided_choice", "guided_grammar",
             "structured_outputs", "kv_transfer_params", "cache_salt", "logits_processors"}));
  bool beam_search = false;
  SPIN_RETURN_IF_ERROR(ReadBool(body, "use_beam_search", beam_search));
  if (beam_search) {
    return UnsupportedParam("use_beam_search",
                            "Unsupported parameter: beam search is not supported.");
  }
  const Json* format = FindMember(body, "response_format");
  if (format == nullptr) return absl::OkStatus();
  std::string type;
  if (format->is_object()) SPIN_RETURN_IF_ERROR(ReadString(*format, "type", type));
  if (type == "text") return absl::OkStatus();
  if (type == "json_object" || type == "json_schema") {
    return UnsupportedParam("response_format",
                            absl::StrFormat("Unsupported parameter: 'response_format' of type '%s' "
                                            "is not supported by this server.",
                                            type));
  }
  return BadParam("response_format", "Invalid 'response_format': its type must be 'text'.");
}

}  // namespace

absl::StatusOr<CommonRequest> ParseCommonRequest(const Json& body, const ModelInfo& model,
                                                 bool allow_zero_max_tokens) {
  CommonRequest request;
  SamplingParams& sampling = request.sampling;
  SPIN_RETURN_IF_ERROR(ReadString(body, "model", request.model));
  SPIN_RETURN_IF_ERROR(CheckModelName(request.model, model));
  SPIN_RETURN_IF_ERROR(RefuseUnsupported(body));
  SPIN_RETURN_IF_ERROR(ReadStreaming(body, request));
  SPIN_RETURN_IF_ERROR(ReadDistribution(body, model.defaults, sampling));
  SPIN_RETURN_IF_ERROR(ReadSeed(body, sampling));
  SPIN_RETURN_IF_ERROR(ReadLogitBias(body, model.vocab_size, sampling));
  SPIN_RETURN_IF_ERROR(ReadStops(body, model.vocab_size, sampling));
  SPIN_RETURN_IF_ERROR(ReadLimits(body, allow_zero_max_tokens, sampling));
  SPIN_RETURN_IF_ERROR(ReadSparse(body, model, request.sparse));
  SPIN_RETURN_IF_ERROR(ReadBool(body, "ignore_eos", sampling.ignore_eos));
  SPIN_RETURN_IF_ERROR(ReadBool(body, "skip_special_tokens", sampling.skip_special_tokens));
  SPIN_RETURN_IF_ERROR(
      ReadBool(body, "include_stop_str_in_output", sampling.include_stop_str_in_output));
  SPIN_RETURN_IF_ERROR(
      ReadInt32(body, "prompt_logprobs", 0, kMaxLogprobs, sampling.prompt_logprobs));
  if (sampling.prompt_logprobs.has_value() && request.stream) {
    return BadParam("prompt_logprobs", "'prompt_logprobs' is not available with 'stream'.");
  }
  SPIN_RETURN_IF_ERROR(ReadBool(body, "return_token_ids", request.return_token_ids));
  SPIN_RETURN_IF_ERROR(ReadBool(body, "spin_usage", request.spin_usage));
  if (request.spin_usage && request.stream) request.include_usage = true;
  std::optional<int32_t> priority;
  SPIN_RETURN_IF_ERROR(
      ReadInt32(body, "priority", std::numeric_limits<int32_t>::min(), kMaxInt32, priority));
  Assign(priority, request.priority);
  SPIN_RETURN_IF_ERROR(
      ReadInt32(body, "truncate_prompt_tokens", -1, kMaxInt32, request.truncate_prompt_tokens));
  if (request.truncate_prompt_tokens == 0) {
    return BadParam("truncate_prompt_tokens",
                    "Invalid 'truncate_prompt_tokens': it must be -1 or at least 1.");
  }
  return request;
}

absl::Status CheckModelName(const std::string& name, const ModelInfo& model) {
  const auto& names = model.served_names;
  if (name.empty() || std::find(names.begin(), names.end(), name) != names.end()) {
    return absl::OkStatus();
  }
  return WithParam(NotFound("The model '%s' does not exist. This server has: %s.", name,
                            names.empty() ? std::string("none") : names.front()),
                   "model", "model_not_found");
}

}  // namespace spin
