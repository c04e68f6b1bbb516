#include "tools/bench/lengths.h"

#include <absl/strings/str_format.h>
#include <absl/strings/str_split.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

namespace spin {
namespace {

constexpr int kMaxLength = 1'000'000;
constexpr int kSteps = 2048;  // of the tabulated curve

template <typename T>
std::optional<T> ToNumber(std::string_view text) {
  T value{};
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end) return std::nullopt;
  return value;
}

absl::Status ParseBounds(std::string_view text, LengthSpec& spec) {
  const size_t dash = text.find('-');
  const auto low = ToNumber<int>(text.substr(0, dash));
  const auto high = dash == text.npos ? low : ToNumber<int>(text.substr(dash + 1));
  if (!low || !high || *low < 1 || *high < *low || *high > kMaxLength) {
    return InvalidArgument("'%s' is not a length from 1 to %d, nor LOW-HIGH", text, kMaxLength);
  }
  spec.low = *low;
  spec.high = *high;
  return absl::OkStatus();
}

// Lengths are rounded: the curve reaches half a token beyond its bounds.
double First(const LengthSpec& spec) {
  return spec.low - 0.5;
}
double Last(const LengthSpec& spec) {
  return spec.high + 0.5;
}

// The curve at kSteps + 1 points between its ends, with its greatest value 1.
std::vector<double> Curve(const LengthSpec& spec, double center, double width) {
  const bool log = spec.shape == LengthSpec::Shape::kLognormal;
  std::vector<double> density(kSteps + 1);
  double top = -INFINITY;
  for (int i = 0; i <= kSteps; ++i) {
    const double x = std::lerp(First(spec), Last(spec), static_cast<double>(i) / kSteps);
    const double z = ((log ? std::log(x) : x) - center) / width;
    density[static_cast<size_t>(i)] = -z * z / 2 - (log ? std::log(x) : 0);
    top = std::max(top, density[static_cast<size_t>(i)]);
  }
  for (double& value : density) value = std::exp(value - top);
  return density;
}

double MeanOf(const LengthSpec& spec, const std::vector<double>& density) {
  double weight = 0, sum = 0;
  for (size_t i = 0; i < density.size(); ++i) {
    const double w = density[i] * (i == 0 || i == kSteps ? 0.5 : 1);
    weight += w;
    sum += w * static_cast<double>(i);
  }
  return std::lerp(First(spec), Last(spec), sum / weight / kSteps);
}

// Cutting a curve at its bounds moves its mean; the centre is moved until the mean is the one that
// was asked for. It grows with the centre, so bisection finds it.
std::vector<double> CurveWithMean(const LengthSpec& spec) {
  const bool log = spec.shape == LengthSpec::Shape::kLognormal;
  const double ratio = spec.stddev / spec.mean;
  const double width = log ? std::sqrt(std::log1p(ratio * ratio)) : spec.stddev;
  const double first = log ? std::log(First(spec)) : First(spec);
  const double last = log ? std::log(Last(spec)) : Last(spec);
  // Far outside, the cut curve is an exponential of scale width^2 / distance at one bound.
  const double reach = 100 * (last - first) + 100 * width * width / (last - first);
  double below = first - reach, above = last + reach;
  for (int round = 0; round < 60; ++round) {
    const double center = (below + above) / 2;
    (MeanOf(spec, Curve(spec, center, width)) < spec.mean ? below : above) = center;
  }
  return Curve(spec, (below + above) / 2, width);
}

int ScaledLength(double length, double factor) {
  return static_cast<int>(std::clamp<double>(std::round(length * factor), 1, kMaxLength));
}

}  // namespace

LengthSpec LengthSpec::Scaled(double factor) const {
  LengthSpec scaled(shape, ScaledLength(low, factor), ScaledLength(high, factor), mean * factor,
                    stddev * factor);
  if (shape != Shape::kUniform && scaled.low < scaled.high) {
    scaled.mean = std::clamp<double>(scaled.mean, scaled.low, scaled.high);
  }
  return scaled;
}

absl::StatusOr<LengthSpec> ParseLengths(std::string_view text) {
  LengthSpec spec(1);
  const size_t colon = text.find(':');
  if (colon == text.npos) {
    SPIN_RETURN_IF_ERROR(ParseBounds(text, spec));
    return spec;
  }
  const std::string_view shape = text.substr(0, colon);
  if (shape == "normal") {
    spec.shape = LengthSpec::Shape::kNormal;
  } else if (shape == "lognormal") {
    spec.shape = LengthSpec::Shape::kLognormal;
  } else {
    return InvalidArgument("'%s' is neither normal nor lognormal", shape);
  }
  const std::vector<std::string> parts = absl::StrSplit(std::string(text.substr(colon + 1)), ',');
  SPIN_RETURN_IF_ERROR(ParseBounds(parts[0], spec));
  spec.stddev = (spec.high - spec.low) / 4.0;
  for (size_t i = 1; i < parts.size(); ++i) {
    const std::string_view part = parts[i];
    const std::string_view name = part.substr(0, part.find('='));
    const bool known = (name == "mean" || name == "std") && name.size() < part.size();
    const auto value = known ? ToNumber<double>(part.substr(name.size() + 1)) : std::nullopt;
    if (!value || !(*value > 0 && *value <= kMaxLength)) {
      return InvalidArgument("'%s' is neither mean=M nor std=S", part);
    }
    (name == "mean" ? spec.mean : spec.stddev) = *value;
  }
  if (!(spec.mean > spec.low && spec.mean < spec.high)) {
    return InvalidArgument("'%s' needs mean=M between its bounds", text);
  }
  return spec;
}

std::string ToString(const LengthSpec& spec) {
  if (spec.fixed()) return absl::StrFormat("%d", spec.low);
  if (spec.shape == LengthSpec::Shape::kUniform)
    return absl::StrFormat("%d-%d", spec.low, spec.high);
  return absl::StrFormat("%s:%d-%d,mean=%g,std=%g",
                         spec.shape == LengthSpec::Shape::kNormal ? "normal" : "lognormal",
                         spec.low, spec.high, spec.mean, spec.stddev);
}

LengthSampler::LengthSampler(const LengthSpec& spec) : low_(spec.low), high_(spec.high) {
  if (spec.fixed() || spec.shape == LengthSpec::Shape::kUniform) return;
  const std::vector<double> density = CurveWithMean(spec);
  cumulative_.push_back(0);
  for (size_t i = 1; i < density.size(); ++i) {
    cumulative_.push_back(cumulative_.back() + (density[i - 1] + density[i]) / 2);
  }
}

int LengthSampler::Draw(Random& random) const {
  if (cumulative_.empty()) return static_cast<int>(random.Between(low_, high_));
  const double share = static_cast<double>(random.NextU64() >> 11) * 0x1p-53;
  const double target = share * cumulative_.back();
  const auto above = std::upper_bound(cumulative_.begin() + 1, cumulative_.end() - 1, target);
  const double step = *above - *(above - 1);
  const double within = step > 0 ? (target - *(above - 1)) / step : 0;
  const double position = static_cast<double>(above - 1 - cumulative_.begin()) + within;
  const double length = std::lerp(low_ - 0.5, high_ + 0.5, position / kSteps);
  return std::clamp(static_cast<int>(std::lround(length)), low_, high_);
}

}  // namespace spin
