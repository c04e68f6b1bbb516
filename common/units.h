// Bytes: literals, and the text form used in configuration and logs ("60GiB", "512MiB").
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "common/status.h"

namespace spin {

inline constexpr int64_t kKiB = int64_t{1} << 10;
inline constexpr int64_t kMiB = int64_t{1} << 20;
inline constexpr int64_t kGiB = int64_t{1} << 30;

// "512", "512B", "64KiB", "1.5GiB", "10MB" (decimal). Refuses negative, empty and overflowing text.
absl::StatusOr<int64_t> ParseBytes(std::string_view text);

// "1.50 GiB", "512 B": three significant figures, for people.
std::string FormatBytes(int64_t bytes);

}  // namespace spin
