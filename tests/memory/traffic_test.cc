// What steps read and prefills write, computed from lengths: by hand. For each algorithm, and against its kernels:
// tests/models/traffic_test.cc.
#include "memory/traffic.h"

#include <catch2/catch.hpp>

namespace spin {
namespace {

// A token of a head is 2 * 64 bf16, 256 bytes; a summary 128 of them, as many bytes.
constexpr KvGeometry kGeometry = {.num_layers = 2,
                                  .num_kv_heads = 2,
                                  .num_q_heads = 4,
                                  .head_dim = 64,
                                  .page_tokens = 16,
                                  .max_rows = 8,
                                  .max_extents = 16,
                                  .summary_elements = 128};
constexpr LayerDemand kWhole = {};
constexpr LayerDemand kSparse = {
    .whole_context = false,
    .fixed_pages = 2,
    .selectable_pages = 10,
    .summaries = {.cover = SummaryCover::kBegunPages, .scored_elements = 128}};

TEST_CASE("a step reads the pages it selects, the tail as far as it is filled, and all summaries") {
  const LayerDemand layers[] = {kWhole, kSparse};
  const Traffic traffic(kGeometry, layers);
  // 1000 tokens are 63 pages, the tail holds 8 of 16. 12 pages are selected.
  const StepReads reads = traffic.Reads(1000);
  CHECK(reads.attended_tokens == 1000 + (12 * 16 - 8));
  CHECK(reads.attention_bytes == reads.attended_tokens * 2 * 256);
  CHECK(reads.summary_bytes == 63 * 2 * 256);  // of one layer
  CHECK(reads.estimate_bytes == 0);
  CHECK(traffic.Reads(192).attended_tokens == 2 * 192);
  CHECK(traffic.Reads(193).attended_tokens == 193 + 11 * 16 + 1);
  CHECK(traffic.Reads(1).attended_tokens == 2);
}

TEST_CASE("a budget of its own changes what is attended to, not what is scored") {
  const LayerDemand layers[] = {kWhole, kSparse};
  const Traffic traffic(kGeometry, layers);
  CHECK(traffic.Reads(1000, 4).attended_tokens == 1000 + (4 * 16 - 8));
  CHECK(traffic.Reads(1000, 63).attended_tokens == 2 * 1000);
  CHECK(traffic.Reads(1000, 4).summary_bytes == traffic.Reads(1000).summary_bytes);
}

TEST_CASE("of a summary as much counts as scoring reads, and no page that it leaves out") {
  LayerDemand part = kSparse;
  part.summaries.scored_elements = 64;
  part.summaries.unscored_last = 5;
  const LayerDemand layers[] = {kWhole, part};
  const Traffic traffic(kGeometry, layers);
  CHECK(traffic.Reads(1000).summary_bytes == (63 - 5) * 2 * 128);
  CHECK(traffic.Reads(80).summary_bytes == 0);
  CHECK(traffic.Reads(81).summary_bytes == 2 * 128);
}

// What tokens [from, to) write to summaries under this rule, in both layers together.
int64_t IndexBytes(SummaryCover cover, int64_t from, int64_t to) {
  LayerDemand demand = kSparse;
  demand.summaries.cover = cover;
  const LayerDemand layers[] = {demand, demand};
  return Traffic(kGeometry, layers).Writes({.from = from, .to = to}).index_bytes;
}

TEST_CASE("summaries are written when their rule says so, by a prefill or step by step") {
  constexpr int64_t kBytes = 2 * 2 * 256;  // of two layers, two heads
  using enum SummaryCover;
  CHECK(IndexBytes(kBegunPages, 0, 1000) == 63 * kBytes);
  CHECK(IndexBytes(kBegunPages, 1000, 1001) == kBytes);  // the page's bounds take the new key
  CHECK(IndexBytes(kBegunPages, 1007, 1008) == kBytes);
  CHECK(IndexBytes(kBegunPages, 1008, 1009) == kBytes);
  CHECK(IndexBytes(kCompletePages, 0, 1000) == 62 * kBytes);
  CHECK(IndexBytes(kCompletePages, 1000, 1001) == 0);
  CHECK(IndexBytes(kCompletePages, 1007, 1008) == kBytes);
  CHECK(IndexBytes(kCompletePages, 1008, 1009) == 0);
  constexpr int64_t kClusters = 32 * 2 * 2 * (256 + 8);  // mean key and value, begin and size
  CHECK(IndexBytes(kSettledExtents, 0, 1000) == kClusters);
  CHECK(IndexBytes(kSettledExtents, 1022, 1023) == 0);
  CHECK(IndexBytes(kSettledExtents, 1023, 1024) == kClusters);
}

TEST_CASE(
    "a layer that needs the whole context is indexed, too; without summaries there is nothing") {
  LayerDemand whole = kWhole;
  whole.summaries = kSparse.summaries;
  const LayerDemand layers[] = {whole, kSparse};
  CHECK(Traffic(kGeometry, layers).Writes({.from = 0, .to = 64}).index_bytes == 2 * 4 * 2 * 256);
  KvGeometry dense = kGeometry;
  dense.summary_elements = 0;
  const LayerDemand all[] = {kWhole, kWhole};
  CHECK(Traffic(dense, all).Writes({.from = 0, .to = 64}).index_bytes == 0);
}

TEST_CASE("keys and values of Tiered rows go to the host, again where a step changes their order") {
  const LayerDemand layers[] = {kSparse, kSparse};
  constexpr int64_t kToken = 2 * 2 * 256;  // of two layers, two heads
  const Traffic traffic(kGeometry, layers);
  CHECK(traffic.Writes({.from = 0, .to = 700}).offload_bytes == 0);
  CHECK(traffic.Writes({.from = 0, .to = 700, .tiered = true}).offload_bytes == 700 * kToken);
  CHECK(traffic.Writes({.from = 700, .to = 701, .tiered = true}).offload_bytes == kToken);
  KvGeometry clusters = kGeometry;
  clusters.unsettled_tokens = 64;
  const Traffic moving(clusters, layers);
  CHECK(moving.Writes({.from = 0, .to = 700, .tiered = true}).offload_bytes == 700 * kToken);
  CHECK(moving.Writes({.from = 574, .to = 575, .tiered = true}).offload_bytes == kToken);
  CHECK(moving.Writes({.from = 575, .to = 576, .tiered = true}).offload_bytes == 513 * kToken);
  CHECK(moving.Writes({.from = 575, .to = 576}).offload_bytes == 0);
}

TEST_CASE("factors of keys and their basis are written for prompts that are long enough") {
  KvGeometry g = kGeometry;
  g.key_rank = 32;  // 16 tokens of a page: 256 elements a head
  g.summary_elements = 64 + 256;
  LayerDemand demand = kSparse;
  demand.summaries.cover = SummaryCover::kCompletePages;
  const LayerDemand layers[] = {demand, demand};
  const Traffic traffic(g, layers);
  const auto bytes = [&](int64_t from, int64_t to, int64_t prompt) {
    return traffic.Writes({.from = from, .to = to, .prefill_tokens = prompt}).index_bytes;
  };
  CHECK(bytes(0, 127, 127) == 7 * 4 * 64 * 2);  // keys have 128 dimensions
  CHECK(bytes(0, 128, 128) == 8 * 4 * 320 * 2 + 2 * 128 * 32 * 2);
  CHECK(bytes(143, 144, 127) == 4 * 64 * 2);
  CHECK(bytes(143, 144, 128) == 4 * 320 * 2);
}

}  // namespace
}  // namespace spin
