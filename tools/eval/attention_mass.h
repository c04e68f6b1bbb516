// Exact attention by page, and the best pages a selection of that size could have: what a Select is measured against.
//
// Plain arithmetic on a LayerView; any thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/kv_layout.h"
#include "tools/eval/page_reader.h"

namespace spin::eval {

// Share of each query head's softmax(q.k / sqrt(d)), over all tokens, that falls on each token place: [Hq][tokens],
// rows that sum to 1. A place is where a token is stored, whatever its position: keys are rotated before they are
// stored.
std::vector<float> TokenMass(const LayerView& view, const KvGeometry& geometry);

// The same by page: [Hq][pages].
std::vector<float> SumByPage(std::span<const float> token_mass, const KvGeometry& geometry);
std::vector<float> PageMass(const LayerView& view, const KvGeometry& geometry);

// Mean of `mass` over the query heads of one KV head: [pages].
std::vector<float> GroupMass(std::span<const float> mass, const KvGeometry& geometry,
                             int32_t kv_head);

// The last page and the `count` - 1 others with the most mass, ascending; ties go to the lower id. All pages where
// there are no more. No selection of `count` pages with the last among them has more mean mass over the group.
// REQUIRES: count >= 1.
std::vector<int32_t> BestPages(std::span<const float> group_mass, int32_t count);

// The first page and the last `count` - 1: attention sink and sliding window (StreamingLLM, arXiv 2309.17453).
std::vector<int32_t> WindowPages(int32_t num_pages, int32_t count);

// Mass of the listed pages.
double MassOf(std::span<const float> mass, std::span<const int32_t> pages);

// Mass, by token, of the tokens of the listed pages that their masks name (bit t: token t of the page).
double MaskedMassOf(std::span<const float> token_mass, std::span<const int32_t> pages,
                    std::span<const uint8_t> masks, int32_t page_tokens);

// Share of the pages `best` that are among `selected`, both ascending.
double Overlap(std::span<const int32_t> selected, std::span<const int32_t> best);

// The same where of a selected page only the tokens that its mask names were: it counts as their share of the tokens
// that it holds, which are `tokens` in all pages of the sequence.
double MaskedOverlap(std::span<const int32_t> selected, std::span<const uint8_t> masks,
                     std::span<const int32_t> best, int64_t tokens, int32_t page_tokens);

}  // namespace spin::eval
