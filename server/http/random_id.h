// Ids for answers and requests: 32 hexadecimal digits that do not repeat, in this process or in its next life.
#pragma once

#include <string>
#include <string_view>

namespace spin {

// `prefix` + 32 digits. Any thread. Seeded by the machine's entropy once: ids are names, not part of any result.
std::string MakeRandomId(std::string_view prefix);

// The client's x-request-id where it is sane (1 to 128 letters, digits, '-', '_', '.', ':'), else a new one.
std::string RequestIdFor(std::string_view from_client);

}  // namespace spin
