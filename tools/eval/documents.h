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
  std::string text;  // pieces of this text, evenly spread over it; empty: made-up prose
  int32_t count = 4;
  int32_t tokens = 2048;  // of each, special tokens at its begin included
  uint64_t seed = 1;
};

// For a model without tokenizer the documents are random token ids. InvalidArgument: the text is too short.
absl::StatusOr<std::vector<std::vector<int32_t>>> MakeDocuments(const ModelFolder& folder,
                                                                const DocumentOptions& options);

}  // namespace spin::eval
