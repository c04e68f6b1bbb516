// A Hugging Face model folder without its weights: configuration, sampling defaults, tokenizer,
// chat template.
#pragma once

#include <memory>
#include <string>

#include "common/status.h"
#include "models/generation_config.h"
#include "models/model_config.h"
#include "models/tokenizer/chat_template.h"
#include "models/tokenizer/tokenizer.h"

namespace spin {

struct ModelFolder {
  std::string path;
  ModelConfig config;
  GenerationConfig generation;                  // empty where the folder has none
  std::unique_ptr<Tokenizer> tokenizer;         // null where the folder has none: token ids only
  std::unique_ptr<ChatTemplate> chat_template;  // null where the folder has none
  std::string bos_token, eos_token;             // text, for chat templates

  // generation_config.json's, else config.json's.
  const std::vector<int32_t>& eos_token_ids() const {
    return generation.eos_token_ids.empty() ? config.eos_token_ids : generation.eos_token_ids;
  }
};

// Errors name the file. A file that exists and is corrupt is an error, also where its absence would
// be fine.
absl::StatusOr<ModelFolder> ReadModelFolder(const std::string& path);

}  // namespace spin
