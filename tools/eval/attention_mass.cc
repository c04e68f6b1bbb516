#include "tools/eval/attention_mass.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

#include "common/check.h"

namespace spin::eval {
namespace {

// n is a multiple of 8 (heads of 64 or 128); eight sums, so that a compiler may use vectors.
float Dot(const float* a, const float* b, int32_t n) {
  float sums[8] = {};
  for (int32_t i = 0; i < n; i += 8) {
    for (int32_t j = 0; j < 8; ++j) sums[j] += a[i + j] * b[i + j];
  }
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

// One query over the tokens of its KV head.
void HeadMass(const float* query, const float* keys, const KvGeometry& geometry,
              std::span<float> mass) {
  const float scale = 1.0f / std::sqrt(static_cast<float>(geometry.head_dim));
  float top = -INFINITY;
  for (float& share : mass) {
    share = scale * Dot(query, keys, geometry.head_dim);
    keys += geometry.head_dim;
    top = std::max(top, share);
  }
  double total = 0;
  for (float& share : mass) {
    share = std::exp(share - top);
    total += share;
  }
  for (float& share : mass) share = static_cast<float>(share / total);
}

}  // namespace

std::vector<float> TokenMass(const LayerView& view, const KvGeometry& geometry) {
  const int64_t head_keys = view.num_pages(geometry.page_tokens) * geometry.plane_elements();
  const auto tokens = static_cast<size_t>(view.position) + 1;
  std::vector<float> mass(static_cast<size_t>(geometry.num_q_heads) * tokens);
  for (int32_t head = 0; head < geometry.num_q_heads; ++head) {
    HeadMass(view.queries.data() + int64_t{head} * geometry.head_dim,
             view.keys.data() + head / geometry.group() * head_keys, geometry,
             {mass.data() + static_cast<size_t>(head) * tokens, tokens});
  }
  return mass;
}

std::vector<float> SumByPage(std::span<const float> token_mass, const KvGeometry& geometry) {
  const size_t tokens = token_mass.size() / static_cast<size_t>(geometry.num_q_heads);
  const auto page_tokens = static_cast<size_t>(geometry.page_tokens);
  const size_t pages = (tokens + page_tokens - 1) / page_tokens;
  std::vector<float> mass(static_cast<size_t>(geometry.num_q_heads) * pages, 0.0f);
  for (size_t i = 0; i < token_mass.size(); ++i) {
    mass[i / tokens * pages + i % tokens / page_tokens] += token_mass[i];
  }
  return mass;
}

std::vector<float> PageMass(const LayerView& view, const KvGeometry& geometry) {
  return SumByPage(TokenMass(view, geometry), geometry);
}

std::vector<float> GroupMass(std::span<const float> mass, const KvGeometry& geometry,
                             int32_t kv_head) {
  const size_t pages = mass.size() / static_cast<size_t>(geometry.num_q_heads);
  std::vector<float> mean(pages, 0.0f);
  for (int32_t i = 0; i < geometry.group(); ++i) {
    const auto head = static_cast<size_t>(kv_head * geometry.group() + i);
    for (size_t page = 0; page < pages; ++page) {
      mean[page] += mass[head * pages + page] / static_cast<float>(geometry.group());
    }
  }
  return mean;
}

std::vector<int32_t> BestPages(std::span<const float> group_mass, int32_t count) {
  SPIN_CHECK_GE(count, 1);
  const auto pages = static_cast<int32_t>(group_mass.size());
  count = std::min(count, pages);
  std::vector<int32_t> order(static_cast<size_t>(pages) - 1);
  std::iota(order.begin(), order.end(), 0);
  std::partial_sort(order.begin(), order.begin() + (count - 1), order.end(),
                    [&](int32_t a, int32_t b) {
                      const float left = group_mass[static_cast<size_t>(a)];
                      const float right = group_mass[static_cast<size_t>(b)];
                      return left != right ? left > right : a < b;
                    });
  order.resize(static_cast<size_t>(count) - 1);
  std::sort(order.begin(), order.end());
  order.push_back(pages - 1);
  return order;
}

std::vector<int32_t> WindowPages(int32_t num_pages, int32_t count) {
  SPIN_CHECK_GE(count, 1);
  count = std::min(count, num_pages);
  std::vector<int32_t> pages;
  const int32_t window = count > 1 ? count - 1 : 1;
  if (window < count) pages.push_back(0);
  for (int32_t page = num_pages - window; page < num_pages; ++page) pages.push_back(page);
  return pages;
}

double MassOf(std::span<const float> mass, std::span<const int32_t> pages) {
  double sum = 0;
  for (const int32_t page : pages) sum += mass[static_cast<size_t>(page)];
  return sum;
}

double MaskedMassOf(std::span<const float> token_mass, std::span<const int32_t> pages,
                    std::span<const uint8_t> masks, int32_t page_tokens) {
  double sum = 0;
  for (size_t i = 0; i < pages.size(); ++i) {
    for (int32_t t = 0; t < page_tokens; ++t) {
      if ((masks[i] >> t & 1) == 0) continue;
      sum += token_mass[static_cast<size_t>(pages[i] * page_tokens + t)];
    }
  }
  return sum;
}

double Overlap(std::span<const int32_t> selected, std::span<const int32_t> best) {
  const auto both = std::ranges::count_if(
      best, [&](int32_t page) { return std::ranges::binary_search(selected, page); });
  return static_cast<double>(both) / static_cast<double>(best.size());
}

double MaskedOverlap(std::span<const int32_t> selected, std::span<const uint8_t> masks,
                     std::span<const int32_t> best, int64_t tokens, int32_t page_tokens) {
  double pages = 0;
  for (const int32_t page : best) {
    const auto at = std::ranges::lower_bound(selected, page);
    if (at == selected.end() || *at != page) continue;
    const int64_t holds = std::min<int64_t>(page_tokens, tokens - int64_t{page} * page_tokens);
    const auto mask = masks[static_cast<size_t>(at - selected.begin())];
    pages += std::popcount(mask) / static_cast<double>(holds);
  }
  return pages / static_cast<double>(best.size());
}

}  // namespace spin::eval
