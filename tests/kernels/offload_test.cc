// Staging pages reach slots and host pages: the right bytes, all of them, and nothing of what lies
// behind the tokens.
#include <cmath>

#include "tests/kernels/kv_testing.h"

namespace spin {
namespace {

using testing::Elements;
using testing::KvWorld;

// Checks page p of a pool against staging: tokens equal, NaN behind them as before.
void CheckPage(const KvWorld& w, const std::vector<uint8_t>& bytes, int64_t index,
               const Elements& staging, int64_t staging_page, int32_t valid) {
  const KvGeometry& g = w.geometry;
  int64_t wrong = 0;
  for (int32_t t = 0; t < g.page_tokens; ++t) {
    for (int32_t c = 0; c < g.head_dim; ++c) {
      for (const int64_t offset : {g.KeyOffset(t) + c, g.ValueOffset(t) + c}) {
        const float value = w.At(bytes, index, offset);
        const bool right = t < valid ? value == staging[staging_page * g.page_elements() + offset]
                                     : std::isnan(value);
        wrong += right ? 0 : 1;
      }
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("offload places the pages of Resident and Tiered rows in one batch") {
  const auto dtype = GENERATE(DType::kF32, DType::kBf16);
  const int32_t d = GENERATE(64, 128);
  const int32_t page_tokens = GENERATE(8, 16, 64);
  KvWorld w(testing::SmallGeometry(dtype, d, page_tokens));
  const KvGeometry& g = w.geometry;
  const int32_t layer = 1;
  const int32_t resident_tokens = 2 * page_tokens + 3, tiered_tokens = 530, small_tokens = 5;
  const int32_t budget = 3;
  w.AddRow(0, Placement::kResident, resident_tokens);
  w.AddRow(1, Placement::kTiered, tiered_tokens, budget);
  w.AddRow(2, Placement::kTiered, small_tokens, budget);
  const int32_t tiered_pages = CeilDiv(tiered_tokens, page_tokens);
  const std::vector<PrefillSlice> slices = {
      {.row = 0, .num_tokens = resident_tokens, .page_begin = 1},
      {.row = 1,
       .num_tokens = tiered_tokens - page_tokens,
       .page_begin = 4,
       .prefix_tokens = page_tokens},
      {.row = 2, .num_tokens = small_tokens, .page_begin = 4 + tiered_pages}};
  const int32_t pages = 5 + tiered_pages;
  Random random(4);
  Elements staging = w.MakeStaging(pages, slices, random);
  const OffloadParams p{.slices = slices.data(),
                        .num_slices = 3,
                        .layer = layer,
                        .tables = w.tables,
                        .staging = {staging.data(), pages}};
  cpu::Offload(p, w.pool);
  cpu::Offload(p, w.pool);  // a second prefill of the rows replaces the first

  for (int32_t head = 0; head < g.num_kv_heads; ++head) {
    for (const PrefillSlice& s : slices) {
      const int32_t tokens = s.prefix_tokens + s.num_tokens;
      const int32_t n = CeilDiv(tokens, page_tokens);
      for (int32_t page = 0; page < n; ++page) {
        const int64_t from = int64_t{head} * pages + s.page_begin + page;
        const int32_t valid = std::min(page_tokens, tokens - page * page_tokens);
        if (s.row == 0) {
          CheckPage(w, w.slots, w.Index(w.slot_dir, 0, layer, head, page), staging, from, valid);
          continue;
        }
        CheckPage(w, w.host, w.Index(w.host_dir, s.row, layer, head, page), staging, from, valid);
        const int32_t local = page - (n - std::min(n, budget));
        const int32_t meta =
            w.meta[static_cast<size_t>(w.Index(w.meta_dir, s.row, layer, head, page))];
        CHECK(meta == (local >= 0 ? local : kAbsent));
        if (local < 0) continue;
        const int64_t slot = w.Index(w.slot_dir, s.row, layer, head, local);
        CHECK(w.slot_owner[static_cast<size_t>(slot)] == page);
        CHECK(int{w.slot_age[static_cast<size_t>(slot)]} == 0);
        CheckPage(w, w.slots, slot, staging, from, valid);
      }
      for (int32_t j = n; s.row != 0 && j < budget; ++j) {
        CHECK(w.slot_owner[static_cast<size_t>(w.Index(w.slot_dir, s.row, layer, head, j))] ==
              kAbsent);
      }
    }
  }
  // Nothing else was written: NaN bytes elsewhere.
  int64_t written = 0;
  for (size_t i = 0; i < w.slots.size(); i += g.page_bytes()) {
    written +=
        static_cast<int64_t>(std::any_of(w.slots.begin() + i, w.slots.begin() + i + g.page_bytes(),
                                         [](uint8_t b) { return b != 0xff; }));
  }
  CHECK(written == g.num_kv_heads * (3 + std::min(tiered_pages, budget) +
                                     std::min(budget, CeilDiv(5, page_tokens))));
}

}  // namespace
}  // namespace spin
