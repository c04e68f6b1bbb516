// The id of a token: an index into the model's vocabulary.
#pragma once

#include <cstdint>

namespace spin {

using TokenId = int32_t;

}  // namespace spin
