#include "models/tokenizer/pretokenizer_json.h"

#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "models/tokenizer/json_fields.h"

namespace spin {
namespace {

constexpr int kMaxDepth = 8;
constexpr int kMaxSteps = 64;

struct Builder {
  Pretokenizer result;
  int num_steps = 0;
  bool has_byte_level = false;
};

absl::StatusOr<Pretokenizer::Behavior> ParseBehavior(const std::string& name) {
  if (name == "Isolated") return Pretokenizer::Behavior::kIsolated;
  if (name == "Removed") return Pretokenizer::Behavior::kRemoved;
  if (name == "MergedWithPrevious") return Pretokenizer::Behavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return Pretokenizer::Behavior::kMergedWithNext;
  if (name == "Contiguous") return Pretokenizer::Behavior::kContiguous;
  return InvalidArgument("Split has the unknown behavior \"%s\"", name);
}

absl::Status AddSplit(const nlohmann::json& json, Builder* builder) {
  SPIN_ASSIGN_OR_RETURN(const nlohmann::json* pattern, ObjectField(json, "pattern"));
  SPIN_ASSIGN_OR_RETURN(const std::string behavior_name, StringField(json, "behavior"));
  SPIN_ASSIGN_OR_RETURN(const Pretokenizer::Behavior behavior, ParseBehavior(behavior_name));
  SPIN_ASSIGN_OR_RETURN(const bool invert, BoolField(json, "invert", false));
  const bool is_regex = FieldOrNull(*pattern, "Regex") != nullptr;
  SPIN_ASSIGN_OR_RETURN(const std::string text,
                        StringField(*pattern, is_regex ? "Regex" : "String"));
  SPIN_ASSIGN_OR_RETURN(Regex regex, is_regex ? Regex::Compile(text) : Regex::Literal(text));
  builder->result.AddSplit(std::move(regex), behavior, invert);
  return absl::OkStatus();
}

absl::Status AddByteLevel(const nlohmann::json& json, Builder* builder) {
  SPIN_ASSIGN_OR_RETURN(const bool add_prefix_space, BoolField(json, "add_prefix_space", true));
  SPIN_ASSIGN_OR_RETURN(const bool use_regex, BoolField(json, "use_regex", true));
  builder->has_byte_level = true;
  return builder->result.AddByteLevel(add_prefix_space, use_regex);
}

absl::Status Add(const nlohmann::json& json, int depth, Builder* builder) {
  SPIN_ASSIGN_OR_RETURN(const std::string type, StringField(json, "type"));
  if (depth > kMaxDepth) return InvalidArgument("Sequences are nested deeper than %d", kMaxDepth);
  if (type == "Sequence") {
    SPIN_ASSIGN_OR_RETURN(const nlohmann::json* list, ArrayField(json, "pretokenizers"));
    for (const nlohmann::json& item : *list) SPIN_RETURN_IF_ERROR(Add(item, depth + 1, builder));
    return absl::OkStatus();
  }
  if (builder->has_byte_level)
    return InvalidArgument("%s comes after ByteLevel, which must be the last", type);
  if (++builder->num_steps > kMaxSteps)
    return InvalidArgument("there are more than %d steps", kMaxSteps);
  if (type == "Split") return AddSplit(json, builder);
  if (type == "ByteLevel") return AddByteLevel(json, builder);
  if (type == "Digits") {
    SPIN_ASSIGN_OR_RETURN(const bool individual_digits,
                          BoolField(json, "individual_digits", false));
    builder->result.AddDigits(individual_digits);
    return absl::OkStatus();
  }
  return InvalidArgument("type \"%s\" is not supported (known: Split, Digits, ByteLevel, Sequence)",
                         type);
}

}  // namespace

absl::StatusOr<Pretokenizer> ParsePretokenizer(const nlohmann::json& json) {
  Builder builder;
  SPIN_RETURN_IF_ERROR(Add(json, 0, &builder));
  if (!builder.has_byte_level)
    return InvalidArgument("there is no ByteLevel; only byte-level BPE is supported");
  return std::move(builder.result);
}

}  // namespace spin
