// Documents: token sequences of one length to measure on.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/status.h"
#include "models/model_folder.h"

namespace spin::eval {

struct DocumentOptions {
  std::string text;  // pieces of it, evenly spread; empty: what DocumentLanguage says
  int32_t count = 4;
  int32_t tokens = 2048;  // of each, special tokens at its begin included
  uint64_t seed = 1;
};

// What documents without a text are made of, for people: prose; for a model without tokenizer the testbed's language,
// if it has its vocabulary, else random token ids.
std::string_view DocumentLanguage(const ModelFolder& folder);

// InvalidArgument: the text is too short, or the model cannot read it.
absl::StatusOr<std::vector<std::vector<int32_t>>> MakeDocuments(const ModelFolder& folder,
                                                                const DocumentOptions& options);

}  // namespace spin::eval
