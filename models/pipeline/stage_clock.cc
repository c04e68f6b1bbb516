#include "models/pipeline/stage_clock.h"

#include "common/check.h"

namespace spin {

StageClock::StageClock(Device* device, int32_t max_laps)
    : device_(*device), stages_(static_cast<std::size_t>(max_laps), Stage::kRest) {
  points_.reserve(static_cast<std::size_t>(max_laps) + 1);
  for (int32_t i = 0; i <= max_laps; ++i) points_.push_back(device_.CreateEvent());
}

void StageClock::Record(Stream& stream) {
  SPIN_CHECK_LT(static_cast<std::size_t>(num_points_), points_.size());
  device_.Record(*points_[static_cast<std::size_t>(num_points_++)], stream);
}

void StageClock::Start(Stream& stream) {
  SPIN_CHECK(!busy());
  Record(stream);
}

void StageClock::Lap(Stage stage, Stream& stream) {
  SPIN_CHECK(busy());
  Record(stream);
  stages_[static_cast<std::size_t>(num_points_ - 2)] = stage;
}

void StageClock::Collect() {
  SPIN_CHECK(busy());
  for (std::size_t i = 1; i < static_cast<std::size_t>(num_points_); ++i) {
    ns_[static_cast<std::size_t>(stages_[i - 1])].fetch_add(
        device_.ElapsedNs(*points_[i - 1], *points_[i]), std::memory_order_relaxed);
  }
  runs_.fetch_add(1, std::memory_order_relaxed);
  num_points_ = 0;
}

StageTimes StageClock::times() const {
  StageTimes times;
  times.runs = runs_.load(std::memory_order_relaxed);
  for (std::size_t i = 0; i < ns_.size(); ++i) times.ns[i] = ns_[i].load(std::memory_order_relaxed);
  return times;
}

}  // namespace spin
