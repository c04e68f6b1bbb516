// Budgets become pools: nothing over the budget, nothing wasted, errors that say what would do.
#include "memory/memory_plan.h"

#include <catch2/catch.hpp>

#include "common/units.h"

namespace spin {
namespace {

using Catch::Matchers::Contains;

KvGeometry Llama8B(int32_t summary_elements) {
  return {.num_layers = 32,
          .num_kv_heads = 8,
          .num_q_heads = 32,
          .head_dim = 128,
          .page_tokens = 16,
          .max_rows = 64,
          .max_extents = 256,
          .summary_elements = summary_elements};
}

TEST_CASE("an extent of an 8B model is 2 MiB") {
  CHECK(Llama8B(0).extent_bytes() == 2 * kMiB);
}

TEST_CASE("the pools fill the budget to less than one extent") {
  for (const int64_t hbm : {int64_t{200} * kMiB, 3 * kGiB + 12345, 60 * kGiB}) {
    for (const int64_t host : {int64_t{0}, kGiB, 64 * kGiB}) {
      for (const int32_t summary : {0, 256}) {
        const KvGeometry g = Llama8B(summary);
        const auto plan = PlanMemory(g, hbm, host);
        if (!plan.ok()) continue;
        INFO(hbm << " " << host << " " << summary);
        CHECK(plan->hbm_bytes() <= hbm);
        CHECK(plan->hbm_bytes() == HbmBytes(g, plan->num_slot_extents, plan->num_host_extents));
        CHECK(HbmBytes(g, plan->num_slot_extents + 1, plan->num_host_extents) > hbm);
        CHECK(plan->host_bytes <= host);
        CHECK(host - plan->host_bytes < g.extent_bytes());
        CHECK(plan->num_meta_segments == plan->num_host_extents);
        CHECK(plan->num_summary_extents ==
              (summary > 0 ? plan->num_slot_extents + plan->num_host_extents : 0));
      }
    }
  }
}

TEST_CASE("a budget that is too small names the key and the least that would do") {
  const KvGeometry g = Llama8B(256);
  const auto plan = PlanMemory(g, 10 * kMiB, 0);
  REQUIRE(plan.status().code() == absl::StatusCode::kResourceExhausted);
  const int64_t least = HbmBytes(g, g.num_layers, 0);
  CHECK_THAT(MessageOf(plan.status()), Contains("memory.hbm_budget"));
  CHECK_THAT(MessageOf(plan.status()), Contains(std::to_string(least)));
  CHECK_FALSE(PlanMemory(g, least - 1, 0).ok());
  REQUIRE(PlanMemory(g, least, 0).ok());
  CHECK(PlanMemory(g, least, 0)->num_slot_extents == g.num_layers);
}

TEST_CASE("a host pool below one extent a layer is refused, none at all is not") {
  const KvGeometry g = Llama8B(0);
  const auto plan = PlanMemory(g, kGiB, g.num_layers * g.extent_bytes() - 1);
  REQUIRE_FALSE(plan.ok());
  CHECK_THAT(MessageOf(plan.status()), Contains("memory.host_pool"));
  CHECK(PlanMemory(g, kGiB, g.num_layers * g.extent_bytes()).ok());
  CHECK(PlanMemory(g, kGiB, 0)->host_tokens() == 0);
}

TEST_CASE("no pool outgrows what the directories can name") {
  KvGeometry g = Llama8B(0);
  g.max_rows = 1;
  g.max_extents = 2;
  const MemoryPlan plan = PlanMemory(g, 60 * kGiB, 60 * kGiB).value();
  CHECK(plan.num_slot_extents == 64);
  CHECK(plan.num_host_extents == 64);
  CHECK(plan.resident_tokens() == 1024);
}

TEST_CASE("metadata of Llama-3.1-70B at 128K x 32 with pages of 8 stays below 1.5 GB") {
  const KvGeometry g = {.num_layers = 80,
                        .num_kv_heads = 8,
                        .num_q_heads = 64,
                        .head_dim = 128,
                        .page_tokens = 8,
                        .max_rows = 32,
                        .max_extents = 256};
  const int64_t host_extents = int64_t{32} * 80 * 256;
  const int64_t slots = 80;
  const int64_t metadata = HbmBytes(g, slots, host_extents) - slots * g.extent_bytes();
  CHECK(metadata < 1'500'000'000);
  CHECK(metadata > 1'300'000'000);
}

TEST_CASE("bases of keys are part of the budget: one a row and layer") {
  KvGeometry g = Llama8B(128 + 160);
  const int64_t without = HbmBytes(g, 100, 50);
  CHECK_THAT(PlanMemory(g, 8 * kGiB, 0)->ToText(), !Contains("bases of keys"));
  g.key_rank = 160;
  CHECK(HbmBytes(g, 100, 50) - without == int64_t{64} * 32 * 1024 * 160 * 2);
  const MemoryPlan plan = PlanMemory(g, 8 * kGiB, 0).value();
  CHECK(plan.hbm_bytes() == HbmBytes(g, plan.num_slot_extents, 0));
  CHECK_THAT(plan.ToText(),
             Contains("bases of keys") && Contains("64 rows x 32 layers of rank 160"));
}

TEST_CASE("a page's factor is cut into a piece a head, of whole runs of 8 elements") {
  const auto piece = [](int32_t heads, int32_t rank) {
    return KvGeometry{.num_kv_heads = heads, .page_tokens = 8, .key_rank = rank}.key_piece();
  };
  CHECK(piece(8, 160) == 160);
  CHECK(piece(1, 16) == 128);
  CHECK(piece(3, 160) == 432);  // 426.7
  CHECK(piece(2, 0) == 0);
}

TEST_CASE("the printed plan names both budgets and each pool") {
  const std::string text = PlanMemory(Llama8B(256), 4 * kGiB, 8 * kGiB)->ToText();
  for (const char* word : {"memory.hbm_budget", "memory.host_pool", "slots", "summaries",
                           "meta segments", "directories", "extents of 2.00 MiB"}) {
    CHECK_THAT(text, Contains(word));
  }
  CHECK_THAT(PlanMemory(Llama8B(0), 4 * kGiB, 0)->ToText(), Contains("off"));
}

}  // namespace
}  // namespace spin
