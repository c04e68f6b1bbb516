#include "common/metrics.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <string_view>

#include "common/check.h"

namespace spin {
namespace {

enum FamilyType : int { kCounter = 0, kGauge = 1, kHistogram = 2 };

const char* TypeName(int type) {
  return type == kCounter ? "counter" : type == kGauge ? "gauge" : "histogram";
}

// [a-zA-Z_:][a-zA-Z0-9_:]*
bool IsMetricName(std::string_view name) {
  const auto ok = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == ':' ||
           (c >= '0' && c <= '9');
  };
  return !name.empty() && !(name[0] >= '0' && name[0] <= '9') &&
         std::all_of(name.begin(), name.end(), ok);
}

void AppendNumber(std::string& out, double value) {
  if (std::isnan(value)) {
    out += "NaN";
  } else if (std::isinf(value)) {
    out += value > 0 ? "+Inf" : "-Inf";
  } else {
    char text[32];
    const auto end = std::to_chars(text, text + sizeof(text), value);  // shortest that reads back
    out.append(text, end.ptr);
  }
}

// The text format escapes backslash and newline everywhere, and the double quote in label values.
void AppendEscaped(std::string& out, std::string_view text, bool quotes) {
  for (const char c : text) {
    if (c == '\\') {
      out += "\\\\";
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '"' && quotes) {
      out += "\\\"";
    } else {
      out += c;
    }
  }
}

void AppendLabels(std::string& out, const MetricsRegistry::Labels& labels, std::string_view le) {
  if (labels.empty() && le.empty()) return;
  out += '{';
  const char* separator = "";
  for (const auto& [key, value] : labels) {
    out += separator;
    out += key;
    out += "=\"";
    AppendEscaped(out, value, true);
    out += '"';
    separator = ",";
  }
  if (!le.empty()) {
    out += separator;
    out += "le=\"";
    out += le;
    out += '"';
  }
  out += '}';
}

void AppendSample(std::string& out, const std::string& name, const MetricsRegistry::Labels& labels,
                  std::string_view le, double value) {
  out += name;
  AppendLabels(out, labels, le);
  out += ' ';
  AppendNumber(out, value);
  out += '\n';
}

void AppendHistogram(std::string& out, const std::string& name,
                     const MetricsRegistry::Labels& labels, const Histogram& histogram) {
  // The count is the sum of the buckets that were read, so that one scrape never contradicts
  // itself.
  uint64_t cumulative = 0;
  for (std::size_t i = 0; i <= histogram.bounds().size(); ++i) {
    cumulative += histogram.bucket(i);
    std::string le;
    AppendNumber(le, i < histogram.bounds().size() ? histogram.bounds()[i] : INFINITY);
    AppendSample(out, name + "_bucket", labels, le, static_cast<double>(cumulative));
  }
  AppendSample(out, name + "_sum", labels, "", histogram.sum());
  AppendSample(out, name + "_count", labels, "", static_cast<double>(cumulative));
}

}  // namespace

Histogram::Histogram(std::vector<double> upper_bounds)
    : bounds_(std::move(upper_bounds)),
      buckets_(std::make_unique<std::atomic<uint64_t>[]>(bounds_.size() + 1)) {
  SPIN_CHECK(std::is_sorted(bounds_.begin(), bounds_.end()));
}

void Histogram::Observe(double value) {
  const auto i = std::lower_bound(bounds_.begin(), bounds_.end(), value) - bounds_.begin();
  buckets_[static_cast<std::size_t>(i)].fetch_add(1, std::memory_order_relaxed);
  count_.fetch_add(1, std::memory_order_relaxed);
  sum_.fetch_add(value, std::memory_order_relaxed);
}

// Exactly one of the four is set.
struct MetricsRegistry::Series {
  Labels labels;
  std::unique_ptr<Counter> counter;
  std::unique_ptr<Gauge> gauge;
  std::unique_ptr<Histogram> histogram;
  std::function<double()> read;
};

struct MetricsRegistry::Family {
  std::string name;
  std::string help;
  int type = kCounter;
  std::vector<std::unique_ptr<Series>> series;

  Series& AddSeries(const Labels& common, Labels labels) {
    labels.insert(labels.begin(), common.begin(), common.end());
    for (const auto& other : series) SPIN_CHECK(other->labels != labels);
    series.push_back(std::make_unique<Series>());
    series.back()->labels = std::move(labels);
    return *series.back();
  }

  void AppendTo(std::string& out, const std::string& exported_name) const {
    out += "# HELP " + exported_name + " ";
    AppendEscaped(out, help, false);
    out += "\n# TYPE " + exported_name + " " + TypeName(type) + "\n";
    for (const auto& one : series) {
      if (one->histogram != nullptr) {
        AppendHistogram(out, exported_name, one->labels, *one->histogram);
        continue;
      }
      const double value = one->counter != nullptr ? static_cast<double>(one->counter->value())
                           : one->gauge != nullptr ? one->gauge->value()
                                                   : one->read();
      AppendSample(out, exported_name, one->labels, "", value);
    }
  }
};

void MetricsRegistry::SetCommonLabels(Labels labels) {
  const std::lock_guard lock(mutex_);
  SPIN_CHECK(families_.empty());
  common_ = std::move(labels);
}

MetricsRegistry::Family& MetricsRegistry::FamilyOf(const std::string& name, const std::string& help,
                                                   int type) {
  SPIN_CHECK(IsMetricName(name));
  for (const auto& family : families_) {
    if (family->name != name) continue;
    SPIN_CHECK_EQ(family->type, type);
    return *family;
  }
  families_.push_back(std::make_shared<Family>());
  families_.back()->name = name;
  families_.back()->help = help;
  families_.back()->type = type;
  return *families_.back();
}

Counter& MetricsRegistry::AddCounter(const std::string& name, const std::string& help,
                                     Labels labels) {
  const std::lock_guard lock(mutex_);
  Series& series = FamilyOf(name, help, kCounter).AddSeries(common_, std::move(labels));
  series.counter = std::make_unique<Counter>();
  return *series.counter;
}

Gauge& MetricsRegistry::AddGauge(const std::string& name, const std::string& help, Labels labels) {
  const std::lock_guard lock(mutex_);
  Series& series = FamilyOf(name, help, kGauge).AddSeries(common_, std::move(labels));
  series.gauge = std::make_unique<Gauge>();
  return *series.gauge;
}

Histogram& MetricsRegistry::AddHistogram(const std::string& name, const std::string& help,
                                         std::vector<double> bounds, Labels labels) {
  const std::lock_guard lock(mutex_);
  Series& series = FamilyOf(name, help, kHistogram).AddSeries(common_, std::move(labels));
  series.histogram = std::make_unique<Histogram>(std::move(bounds));
  return *series.histogram;
}

void MetricsRegistry::AddCallback(const std::string& name, const std::string& help, bool is_counter,
                                  std::function<double()> read, Labels labels) {
  const std::lock_guard lock(mutex_);
  Series& series =
      FamilyOf(name, help, is_counter ? kCounter : kGauge).AddSeries(common_, std::move(labels));
  series.read = std::move(read);
}

void MetricsRegistry::AddAlias(const std::string& alias, const std::string& name) {
  const std::lock_guard lock(mutex_);
  SPIN_CHECK(IsMetricName(alias));
  const auto named = [](const std::string& n) {
    return [&n](const std::shared_ptr<Family>& family) { return family->name == n; };
  };
  SPIN_CHECK(std::any_of(families_.begin(), families_.end(), named(name)));
  SPIN_CHECK(std::none_of(families_.begin(), families_.end(), named(alias)));
  aliases_.emplace_back(alias, name);
}

std::string MetricsRegistry::PrometheusText() const {
  const std::lock_guard lock(mutex_);
  std::string out;
  for (const auto& family : families_) {
    family->AppendTo(out, family->name);
    for (const auto& [alias, name] : aliases_) {
      if (name == family->name) family->AppendTo(out, alias);
    }
  }
  return out;
}

}  // namespace spin
