// Recorded selections: each id from the definition, nothing else written.
#include "tests/kernels/kv_testing.h"

namespace spin {
namespace {

using testing::StepRows;

struct Record {
  Record(int32_t steps, int32_t layers, int32_t heads, int32_t max_pages, uint64_t seed)
      : num_steps(steps), num_layers(layers), num_heads(heads), max_recorded(max_pages) {
    Random random(seed);
    for (int32_t i = 0; i < steps * layers * heads; ++i) {
      count.push_back(1 + static_cast<int32_t>(random.Below(static_cast<uint32_t>(max_pages))));
      int32_t page = -1;
      for (int32_t k = 0; k < max_pages; ++k) {
        page += 1 + static_cast<int32_t>(random.Below(3));
        ids.push_back(k < count.back() ? page : -1000000);
      }
    }
  }
  int32_t num_steps, num_layers, num_heads, max_recorded;
  std::vector<int32_t> ids, count;
};

TEST_CASE("recorded selections take the place of Select's") {
  const int32_t scale = GENERATE(1, 2, 4);
  const int32_t page_tokens = GENERATE(8, 16);
  const Record record(7, 3, 2, 6, 31);
  KvGeometry g = testing::SmallGeometry(DType::kBf16, 64, page_tokens);
  g.num_layers = 5;
  // The last recorded page is 17 at most: three rows whose sequences reach beyond it.
  StepRows step({3, 0, 2}, g.max_rows);
  step.position = {18 * scale * page_tokens + 5, -1, 1200, 18 * scale * page_tokens - 1};
  const std::vector<int32_t> phase = {6, -1, 3, 1000};
  const int32_t max_selected = 6 * scale + 1;
  ThreadPool pool(2);
  for (int32_t layer = 0; layer < g.num_layers; ++layer) {
    std::vector<int32_t> ids(static_cast<size_t>(4 * 3 * max_selected), -7);
    std::vector<int32_t> count(4 * 3, -8);
    std::vector<int32_t> want_ids = ids, want_count = count;
    cpu::ReplaySelection({.decode = step.view(),
                          .layer = layer,
                          .geometry = g,
                          .recorded = record.ids.data(),
                          .recorded_count = record.count.data(),
                          .num_steps = record.num_steps,
                          .num_layers = record.num_layers,
                          .num_heads = record.num_heads,
                          .max_recorded = record.max_recorded,
                          .phase = phase.data(),
                          .pages_per_recorded = scale,
                          .ids = ids.data(),
                          .count = count.data(),
                          .max_selected = max_selected},
                         pool);
    for (size_t place = 0; place < 3; ++place) {
      const auto row = static_cast<size_t>(step.rows[place]);
      const int32_t tail = step.position[row] / page_tokens;
      for (size_t head = 0; head < 3; ++head) {
        const int32_t at = (step.position[row] + phase[row]) % 7;
        const size_t entry =
            (static_cast<size_t>(at) * 3 + static_cast<size_t>(layer) % 3) * 2 + head % 2;
        std::vector<int32_t> want;
        for (int32_t k = 0; k + 1 < record.count[entry]; ++k) {
          for (int32_t j = 0; j < scale; ++j) {
            want.push_back(record.ids[entry * 6 + static_cast<size_t>(k)] * scale + j);
          }
        }
        for (int32_t j = scale; j-- > 0;) want.push_back(tail - j);
        REQUIRE(std::is_sorted(want.begin(), want.end()));
        std::copy(want.begin(), want.end(),
                  want_ids.begin() + static_cast<int64_t>(place * 3 + head) * max_selected);
        want_count[place * 3 + head] = static_cast<int32_t>(want.size());
      }
    }
    REQUIRE(count == want_count);
    REQUIRE(ids == want_ids);
  }
}

}  // namespace
}  // namespace spin
