// Recorded selections on the GPU and on the CPU: ids and counts agree exactly, and nothing else is written.
#include "tests/twin/twin_testing.h"

namespace spin {
namespace {

using testing::Gpu;
using testing::OnDevice;
using testing::RowsOnDevice;
using testing::StepRows;

// Ascending pages with gaps of one to three.
std::vector<int32_t> RandomRecord(int32_t entries, int32_t max_recorded,
                                  std::vector<int32_t>& counts, Random& random) {
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < entries; ++i) {
    counts.push_back(1 + static_cast<int32_t>(random.Below(static_cast<uint32_t>(max_recorded))));
    int32_t page = -1;
    for (int32_t k = 0; k < max_recorded; ++k) {
      page += 1 + static_cast<int32_t>(random.Below(3));
      ids.push_back(k < counts.back() ? page : -1000000);
    }
  }
  return ids;
}

void CheckReplays(int32_t scale, int32_t max_recorded, int32_t rounds) {
  constexpr int32_t kSteps = 11, kLayers = 3, kHeads = 2, kPlaces = 5;
  Random random(17);
  KvGeometry g = testing::SmallGeometry(DType::kBf16, 64, 16);
  g.num_layers = 7;
  std::vector<int32_t> counts;
  const std::vector<int32_t> record =
      RandomRecord(kSteps * kLayers * kHeads, max_recorded, counts, random);
  const OnDevice<int32_t> gpu_record(record), gpu_counts(counts);
  for (int32_t round = 0; round < rounds; ++round) {
    StepRows step({2, 0, 3}, g.max_rows);
    std::vector<int32_t> phase(static_cast<size_t>(g.max_rows));
    for (size_t row = 0; row < phase.size(); ++row) {
      // Behind all that the record can select.
      const int32_t pages = (3 * max_recorded + 1 + static_cast<int32_t>(random.Below(9))) * scale;
      step.position[row] = 16 * pages + static_cast<int32_t>(random.Below(16));
      phase[row] = static_cast<int32_t>(random.Below(100));
    }
    const int32_t streams = kPlaces * g.num_kv_heads;
    const int32_t max_selected = scale * max_recorded + 2;
    std::vector<int32_t> ids(static_cast<size_t>(streams * max_selected), -7);
    std::vector<int32_t> count(static_cast<size_t>(streams), -8);
    const OnDevice<int32_t> gpu_phase(phase), gpu_ids(ids), gpu_count(count);
    const RowsOnDevice rows(step, kPlaces);
    ReplaySelectionParams p = {.decode = rows.view(),
                               .layer = round % g.num_layers,
                               .geometry = g,
                               .recorded = gpu_record.data(),
                               .recorded_count = gpu_counts.data(),
                               .num_steps = kSteps,
                               .num_layers = kLayers,
                               .num_heads = kHeads,
                               .max_recorded = max_recorded,
                               .phase = gpu_phase.data(),
                               .pages_per_recorded = scale,
                               .ids = gpu_ids.data(),
                               .count = gpu_count.data(),
                               .max_selected = max_selected};
    Gpu::Get().ops().ReplaySelection(p, Gpu::Get().stream());
    p.decode = step.view();
    p.recorded = record.data();
    p.recorded_count = counts.data();
    p.phase = phase.data();
    p.ids = ids.data();
    p.count = count.data();
    ThreadPool pool(2);
    cpu::ReplaySelection(p, pool);
    REQUIRE(gpu_count.Read() == count);
    REQUIRE(gpu_ids.Read() == ids);
  }
}

TEST_CASE("recorded selections agree") {
  const int32_t scale = GENERATE(1, 3, 4);
  const int32_t max_recorded = GENERATE(1, 32, 200);
  CheckReplays(scale, max_recorded, 30);
}

TEST_CASE("a short recorded selection", "[small]") {
  CheckReplays(4, 32, 2);
}

}  // namespace
}  // namespace spin
