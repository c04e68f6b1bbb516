// RetroInfer's Index against double precision and straight from the rule (kernels/cluster_params.h; arXiv 2505.02922):
// clusters, order and records of prefill and of decode. The rest of a step is in retroinfer_step_test.cc.
#include <algorithm>
#include <cmath>
#include <set>

#include "tests/kernels/retro_world.h"

namespace spin {
namespace {

using testing::Keys;
using testing::RetroWorld;

struct Segment {
  int32_t begin = 0, end = 0;
};

std::vector<Segment> PrefillSegments(int32_t prompt) {
  std::vector<Segment> segments;
  const int32_t indexed = prompt < 64 ? 0 : (prompt - 64) / 512 * 512;
  for (int32_t begin = 0; begin < indexed; begin += 8192) {
    segments.push_back({begin, std::min(begin + 8192, indexed)});
  }
  return segments;
}

void CheckMeans(const RetroWorld& x, int32_t row, int32_t head, const RetroWorld::Record& record,
                const std::vector<int32_t>& tokens) {
  const double rounding = x.shape.dtype == DType::kF32 ? 1e-4 : 1.0 / 256;
  bool right = true;
  for (int32_t c = 0; c < x.geometry().head_dim; ++c) {
    const auto i = static_cast<size_t>(c);
    double key = 0, value = 0;
    for (const int32_t t : tokens) {
      key += double{x.Key(row, head, t)[i]} / static_cast<double>(tokens.size());
      value += double{x.Value(row, head, t)[i]} / static_cast<double>(tokens.size());
    }
    right = right && std::abs(double{record.centroid[i]} - key) <= rounding * std::abs(key) + 1e-5;
    right = right && std::abs(double{record.mean[i]} - value) <= rounding * std::abs(value) + 1e-5;
  }
  CHECK(right);
}

// Everything that the rule says about the first `length` tokens of a stream; returns how many of the clustered tokens
// are not in the cluster that the reference puts them in.
double CheckIndex(const RetroWorld& x, int32_t row, int32_t head, int32_t length,
                  const std::vector<Segment>& segments, bool with_reference = true) {
  const std::vector<int32_t> tokens = x.Places(row, head, length);
  const int32_t indexed = segments.empty() ? 0 : segments.back().end;
  for (int32_t place = 0; place < std::min(8, length); ++place) CHECK(tokens[place] == place);
  bool in_order = true;
  for (int32_t place = indexed; place < length; ++place) in_order &= tokens[place] == place;
  CHECK(in_order);
  double others = 0;
  for (const Segment& segment : segments) {
    std::vector<int32_t> reference;
    if (with_reference) reference = x.ReferenceClusters(row, head, segment.begin, segment.end);
    const int32_t first = segment.begin == 0 ? 8 : segment.begin;
    int32_t place = first;
    std::set<int32_t> seen;
    bool right = true;
    for (int32_t c = 0; c < (segment.end - segment.begin) / 16; ++c) {
      const RetroWorld::Record record = x.RecordOf(row, head, segment.begin / 16 + c);
      REQUIRE(record.run.begin == place);
      REQUIRE(record.run.size >= 0);
      REQUIRE(place + record.run.size <= segment.end);
      const std::vector<int32_t> members(tokens.begin() + place,
                                         tokens.begin() + place + record.run.size);
      right = right && std::is_sorted(members.begin(), members.end());
      seen.insert(members.begin(), members.end());
      if (!members.empty()) CheckMeans(x, row, head, record, members);
      for (const int32_t t : members) {
        right = right && t >= first && t < segment.end;
        if (!right) break;
        if (with_reference) others += reference[static_cast<size_t>(t - first)] != c;
      }
      place += record.run.size;
    }
    CHECK(right);
    REQUIRE(place == segment.end);
    REQUIRE(static_cast<int32_t>(seen.size()) == segment.end - first);
  }
  if (length > indexed && indexed / 512 < x.geometry().max_extents) {  // nothing behind the index
    CHECK(std::isnan(x.RecordOf(row, head, indexed / 16).centroid[0]));
  }
  return others;
}

TEST_CASE("a prompt's tokens are stored by cluster, and its records are their means") {
  RetroWorld::Shape shape;
  shape.dtype = GENERATE(DType::kF32, DType::kBf16);
  shape.d = GENERATE(64, 128);
  const int32_t prompt = GENERATE(63, 64, 575, 576, 577, 1100, 1663, 1664);
  INFO("prompt " << prompt << ", d " << shape.d);
  const RetroWorld x(shape, prompt, prompt + 1);
  for (int32_t row = 0; row < 2; ++row) {
    for (int32_t head = 0; head < shape.kv_heads; ++head) {
      // Near ties may fall otherwise, and then others with them.
      CHECK(CheckIndex(x, row, head, prompt, PrefillSegments(prompt)) <= 0.01 * prompt);
    }
  }
}

TEST_CASE("clusters are the same whatever the instruction set, near ties apart") {
  RetroWorld::Shape shape;
  shape.dtype = GENERATE(DType::kF32, DType::kBf16);
  testing::ForEachIsa([&](cpu::Isa) {
    const RetroWorld x(shape, 1100, 1101);
    CHECK(CheckIndex(x, 0, 1, 1100, PrefillSegments(1100)) <= 11);
  });
}

TEST_CASE("equal keys are one cluster, the lowest of equals; others have no tokens") {
  RetroWorld::Shape shape;
  shape.dtype = GENERATE(DType::kF32, DType::kBf16);
  shape.keys = GENERATE(Keys::kThree, Keys::kOne);
  const int32_t prompt = 1200;
  RetroWorld x(shape, prompt, 1800);
  std::vector<Segment> segments = PrefillSegments(prompt);
  const auto check = [&](int32_t length) {
    for (int32_t row = 0; row < 2; ++row) {
      CHECK(CheckIndex(x, row, 0, length, segments) == 0);
      int32_t largest = 0, empty = 0;
      for (int32_t c = 0; c < segments.back().end / 16; ++c) {
        largest = std::max(largest, x.RecordOf(row, 0, c).run.size);
        empty += x.RecordOf(row, 0, c).run.size == 0;
      }
      CHECK(largest > 150);
      CHECK(empty >= segments.back().end / 16 - 3 * static_cast<int32_t>(segments.size()));
    }
  };
  check(prompt);
  for (int32_t t = prompt; t < 1700; ++t) x.Step(t);
  segments.push_back({1024, 1536});
  check(1700);
}

TEST_CASE("a long prompt is clustered by segments of 8,192 tokens") {
  RetroWorld::Shape shape = {.dtype = DType::kBf16, .kv_heads = 1, .group = 1};
  const int32_t prompt = GENERATE(8192 + 63, 8192 + 64, 8192 + 576, 8192 + 1100);
  INFO("prompt " << prompt);
  const RetroWorld x(shape, prompt, prompt + 1);
  const std::vector<Segment> segments = PrefillSegments(prompt);
  CHECK(segments.size() == (prompt < 8192 + 576 ? 1 : 2));
  CheckIndex(x, 0, 0, prompt, segments, false);
  CheckIndex(x, 1, 0, prompt, segments, false);
  if (segments.size() < 2) return;
  // The second segment, by the reference.
  const std::vector<int32_t> reference = x.ReferenceClusters(0, 0, 8192, segments[1].end);
  const std::vector<int32_t> tokens = x.Places(0, 0, prompt);
  int32_t others = 0;
  for (int32_t c = 512; c < segments[1].end / 16; ++c) {
    const ClusterRun run = x.RecordOf(0, 0, c).run;
    for (int32_t place = run.begin; place < run.begin + run.size; ++place) {
      others += reference[static_cast<size_t>(tokens[place] - 8192)] != c - 512;
    }
  }
  CHECK(others <= 10);
}

TEST_CASE("decode steps cluster an extent once it is 64 tokens behind, in slots and on the host") {
  RetroWorld::Shape shape;
  shape.dtype = GENERATE(DType::kF32, DType::kBf16);
  shape.slots = GENERATE(2, 20, 80);  // of the extent: no page is resident, some, all
  const int32_t prompt = GENERATE(1, 500, 640);
  const int32_t total = 1700;
  INFO("prompt " << prompt << ", slots " << shape.slots);
  RetroWorld x(shape, prompt, total);
  std::vector<Segment> segments = PrefillSegments(prompt);
  for (int32_t t = prompt; t < total; ++t) {
    x.Step(t);
    if ((t + 1 - 64) % 512 == 511) {
      CheckIndex(x, t % 2, 0, t + 1, segments, false);  // not one step too early
    }
    if (t + 1 < 576 || (t + 1 - 64) % 512 != 0) continue;
    segments.push_back({t + 1 - 64 - 512, t + 1 - 64});
    for (int32_t row = 0; row < 2; ++row) {
      for (int32_t head = 0; head < shape.kv_heads; ++head) {
        CHECK(CheckIndex(x, row, head, t + 1, segments) <= 10);
      }
    }
  }
  CHECK(segments.back().end == 1536);
}

}  // namespace
}  // namespace spin
