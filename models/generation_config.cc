#include "models/generation_config.h"

#include <limits>

#include "models/json_reader.h"

namespace spin {

absl::StatusOr<GenerationConfig> ParseGenerationConfig(std::string_view json) {
  SPIN_ASSIGN_OR_RETURN(const Json object, ParseJsonObject(json, "generation_config.json"));
  const JsonReader reader(object, "generation_config.json");
  GenerationConfig config;
  constexpr double kAny = std::numeric_limits<double>::max();
  SPIN_ASSIGN_OR_RETURN(config.temperature, reader.Number("temperature", -kAny, kAny));
  SPIN_ASSIGN_OR_RETURN(config.top_p, reader.Number("top_p", -kAny, kAny));
  SPIN_ASSIGN_OR_RETURN(config.min_p, reader.Number("min_p", -kAny, kAny));
  SPIN_ASSIGN_OR_RETURN(config.repetition_penalty,
                        reader.Number("repetition_penalty", -kAny, kAny));
  SPIN_ASSIGN_OR_RETURN(const auto top_k, reader.Int("top_k", -1, 1 << 24));
  if (top_k.has_value()) config.top_k = static_cast<int32_t>(*top_k);
  SPIN_ASSIGN_OR_RETURN(config.eos_token_ids, reader.IntList("eos_token_id"));
  return config;
}

}  // namespace spin
