// What is run at start without rows leaves no trace: requests find everything captured, and the tokens that they would
// have had without.
#include <catch2/catch.hpp>

#include <algorithm>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "models/batch_sizes.h"
#include "tests/models/ladder.h"
#include "tests/testing/capturing_device.h"

namespace spin::testing {
namespace {

std::vector<std::vector<int32_t>> Prompts(int32_t count) {
  std::vector<std::vector<int32_t>> prompts;
  for (int32_t i = 0; i < count; ++i) {
    prompts.push_back(RandomPrompt(600 + 311 * i, static_cast<uint64_t>(i)));
  }
  return prompts;
}

ModelRunnerOptions Capturing(const std::string& algorithm) {
  ModelRunnerOptions options = SmallRunner(kLlama);
  options.sparse = Sparse(algorithm, 128);
  options.captures_steps = true;
  options.poison_free_pages = true;
  return options;
}

const std::map<uint64_t, int>& Replays(ModelRunner& runner) {
  return static_cast<CapturingDevice&>(runner.device()).replays();
}

bool SameBytes(const void* a, const void* b, int64_t bytes) {
  return bytes == 0 || std::memcmp(a, b, static_cast<size_t>(bytes)) == 0;
}

TEST_CASE("tokens of a warmed-up executor are those of one that is not") {
  const std::string algorithm = GENERATE(as<std::string>{}, "dense", "quest", "shadowkv",
                                         "low-rank keys", "seer", "retroinfer");
  const RetrieveOverlap overlap =
      GENERATE(RetrieveOverlap::kNever, RetrieveOverlap::kReadyFirst, RetrieveOverlap::kRowGroups);
  const bool starved = GENERATE(false, true);
  INFO(algorithm << ", overlap " << static_cast<int>(overlap) << ", starved " << starved);
  ModelRunnerOptions options = Capturing(algorithm);
  if (starved) options = Starved(options);
  options.overlap = overlap;
  constexpr int32_t kSteps = 9;
  options.captures_steps = false;  // nor are its batches rounded up
  const Generations expected = Run(options, Prompts(3), kSteps);
  options.captures_steps = options.warm_up = true;
  CHECK(Difference(Run(options, Prompts(3), kSteps), expected) == "");
}

TEST_CASE("a step without rows changes no table, page, summary or count") {
  const std::string algorithm = GENERATE(as<std::string>{}, "dense", "quest", "shadowkv",
                                         "low-rank keys", "seer", "retroinfer");
  INFO(algorithm);
  ModelRunnerOptions options = Capturing(algorithm);
  ModelRunner fresh(options);
  options.warm_up = true;
  ModelRunner warm(options);
  const KvTables a = fresh.Snapshot(), b = warm.Snapshot();
  const KvGeometry& g = fresh.geometry();
  const MemoryPlan& plan = fresh.plan();
  const int64_t places = int64_t{g.max_rows} * g.num_layers;
  const int64_t directory_bytes = places * g.max_extents * 4;
  CHECK(SameBytes(a.slot_dir, b.slot_dir, directory_bytes));
  CHECK(SameBytes(a.host_dir, b.host_dir, directory_bytes));
  CHECK(SameBytes(a.summary_dir, b.summary_dir, directory_bytes));
  CHECK(SameBytes(a.meta_dir, b.meta_dir, directory_bytes));
  CHECK(SameBytes(a.num_slots, b.num_slots, places * 4));
  CHECK(SameBytes(a.meta, b.meta, plan.meta_bytes));
  const int64_t slots = int64_t{plan.num_slot_extents} * g.pages_per_extent();
  CHECK(SameBytes(a.slot_owner, b.slot_owner, slots * 4));
  CHECK(SameBytes(a.slot_age, b.slot_age, slots));
  CHECK(SameBytes(a.slots, b.slots, plan.slot_bytes));
  CHECK(SameBytes(a.host_pages, b.host_pages, plan.host_bytes));
  CHECK(SameBytes(a.summaries, b.summaries, plan.summary_bytes));
  CHECK(SameBytes(a.key_basis, b.key_basis, plan.key_basis_bytes));

  const RowId row = warm.Start(RandomPrompt(100, 1), 200)[0];
  warm.Step({row});
  for (int32_t other = 0; other < g.max_rows; ++other) {
    if (other == row.value) continue;
    CHECK(warm.counters(RowId{other}).hits == 0);
    CHECK(warm.counters(RowId{other}).misses == 0);
  }
}

TEST_CASE("no request meets a step that was not captured at start") {
  if (TestDevice() != "cpu") return;  // the CPU counts
  const RetrieveOverlap overlap =
      GENERATE(RetrieveOverlap::kNever, RetrieveOverlap::kReadyFirst, RetrieveOverlap::kRowGroups);
  ModelRunnerOptions options = Starved(Capturing("quest"));
  options.overlap = overlap;
  options.max_batch = 12;
  options.warm_up = true;
  ModelRunner runner(options);
  const std::map<uint64_t, int> warm = Replays(runner);
  CHECK(warm.size() == 2 * 5);  // of two passes in flight: 1, 2, 4, 8 and 12 places
  for (const auto& [key, calls] : warm) CHECK(calls == 2);  // as it is, then captured

  constexpr int32_t kMost = 12;
  std::vector<RowId> rows;
  for (int32_t i = 0; i < kMost; ++i) {
    rows.push_back(runner.Start(RandomPrompt(40 + 9 * i, static_cast<uint64_t>(i)), 300)[0]);
    for (int step = 0; step < 2; ++step) runner.Step(rows);
  }
  CHECK(Replays(runner).size() == warm.size());
  for (const auto& [key, calls] : Replays(runner)) CHECK(calls > 2);
}

TEST_CASE("where nothing is captured, nothing is run at start") {
  ModelRunnerOptions options = SmallRunner(kLlama);
  options.device = "cpu";
  ModelRunner runner(options);
  CHECK(runner.executor().WarmUp() == 0);
}

TEST_CASE("sizes that are met at start are those that requests come to") {
  for (const int32_t max_batch : {1, 3, 8, 12, 64, 100, 256}) {
    INFO(max_batch);
    const std::vector<int32_t> sizes = WarmBatches(max_batch);
    CHECK(std::is_sorted(sizes.begin(), sizes.end()));
    for (int32_t n = 1; n <= max_batch; ++n) {
      const int32_t bucket = BatchBucket(n, max_batch);
      CHECK(bucket >= n);
      CHECK(std::count(sizes.begin(), sizes.end(), bucket) == 1);
    }
    CHECK(sizes.back() == max_batch);
  }
  CHECK(WarmBatches(4096).back() == 256);
  CHECK(WarmBatches(300).back() == 256);
  CHECK(WarmTiles(8192) ==
        std::vector<int32_t>{128, 256, 1024, 2048, 3072, 4096, 5120, 6144, 7168, 8192});
  CHECK(WarmTiles(1500) == std::vector<int32_t>{128, 256, 1024, 1500});
  CHECK(WarmTiles(16) == std::vector<int32_t>{16});
}

}  // namespace
}  // namespace spin::testing
