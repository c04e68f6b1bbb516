#include "common/units.h"

#include <array>
#include <charconv>
#include <cmath>
#include <utility>

namespace spin {
namespace {

constexpr std::array<std::pair<std::string_view, double>, 14> kUnits = {{
    {"", 1},
    {"B", 1},
    {"KiB", 1024.0},
    {"MiB", 1048576.0},
    {"GiB", 0x1p30},
    {"TiB", 0x1p40},
    {"K", 1024.0},
    {"M", 1048576.0},
    {"G", 0x1p30},
    {"T", 0x1p40},
    {"KB", 1e3},
    {"MB", 1e6},
    {"GB", 1e9},
    {"TB", 1e12},
}};

}  // namespace

absl::StatusOr<int64_t> ParseBytes(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || !std::isfinite(value) || value < 0) {
    return InvalidArgument("'%s' is not a size; write for example 512MiB or 60GiB", text);
  }
  std::string_view unit(end, text.data() + text.size() - end);
  while (!unit.empty() && unit.front() == ' ') unit.remove_prefix(1);
  for (const auto& [name, factor] : kUnits) {
    if (unit != name) continue;
    const double bytes = value * factor;
    if (bytes > 0x1p60) return InvalidArgument("'%s' is too large", text);
    return static_cast<int64_t>(std::llround(bytes));
  }
  return InvalidArgument("'%s' has an unknown unit; use B, KiB, MiB, GiB or TiB", text);
}

std::string FormatBytes(int64_t bytes) {
  constexpr std::array<const char*, 5> kNames = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (std::abs(value) >= 1024 && unit + 1 < kNames.size()) {
    value /= 1024;
    ++unit;
  }
  if (unit == 0) return absl::StrFormat("%d B", bytes);
  const int digits = std::abs(value) >= 100 ? 0 : std::abs(value) >= 10 ? 1 : 2;
  return absl::StrFormat("%.*f %s", digits, value, kNames[unit]);
}

}  // namespace spin
