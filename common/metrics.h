// Counters, gauges and histograms. No I/O: PrometheusText renders them all.
//
// Registration is for start-up; updates are lock-free and for any thread; references stay valid as long as the
// registry.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace spin {

class Counter {
 public:
  void Add(uint64_t n = 1) { value_.fetch_add(n, std::memory_order_relaxed); }
  uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

class Gauge {
 public:
  void Set(double value) { value_.store(value, std::memory_order_relaxed); }
  double value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<double> value_{0};
};

class Histogram {
 public:
  explicit Histogram(std::vector<double> upper_bounds);  // ascending; +Inf is implied
  void Observe(double value);
  uint64_t count() const { return count_.load(std::memory_order_relaxed); }
  double sum() const { return sum_.load(std::memory_order_relaxed); }
  const std::vector<double>& bounds() const { return bounds_; }
  uint64_t bucket(std::size_t i) const { return buckets_[i].load(std::memory_order_relaxed); }

 private:
  std::vector<double> bounds_;
  std::unique_ptr<std::atomic<uint64_t>[]> buckets_;  // [bounds + 1], not cumulative
  std::atomic<uint64_t> count_{0};
  std::atomic<double> sum_{0};
};

class MetricsRegistry {
 public:
  using Labels = std::vector<std::pair<std::string, std::string>>;

  // Labels that every series carries (model_name, engine). Before the first Add.
  void SetCommonLabels(Labels labels);

  // One series of the family `name` (the name is given as exported, with its prefix). Series of one family share
  // `help`.
  Counter& AddCounter(const std::string& name, const std::string& help, Labels labels = {});
  Gauge& AddGauge(const std::string& name, const std::string& help, Labels labels = {});
  Histogram& AddHistogram(const std::string& name, const std::string& help,
                          std::vector<double> bounds, Labels labels = {});
  // A counter or gauge whose value is read when rendering (e.g. counters that kernels keep).
  void AddCallback(const std::string& name, const std::string& help, bool is_counter,
                   std::function<double()> read, Labels labels = {});
  // `alias` exports the same series as `name` under a second name.
  void AddAlias(const std::string& alias, const std::string& name);

  // Prometheus text format 0.0.4. Any thread.
  std::string PrometheusText() const;

 private:
  struct Series;
  struct Family;
  Family& FamilyOf(const std::string& name, const std::string& help, int type);

  mutable std::mutex mutex_;  // guards families_ and aliases_ (structure, not values)
  Labels common_;
  std::vector<std::shared_ptr<Family>> families_;
  std::vector<std::pair<std::string, std::string>> aliases_;
};

}  // namespace spin
