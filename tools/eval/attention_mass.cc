#include "tools/eval/attention_mass.h"

#include <algorithm>
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

// One query over the tokens of its KV head; `weights` has room for them.
void AddPageMass(const float* query, const float* keys, int32_t num_tokens,
                 const KvGeometry& geometry, std::vector<float>& weights, float* mass) {
  const float scale = 1.0f / std::sqrt(static_cast<float>(geometry.head_dim));
  float top = -INFINITY;
  for (int32_t t = 0; t < num_tokens; ++t) {
    weights[static_cast<size_t>(t)] =
        scale * Dot(query, keys + int64_t{t} * geometry.head_dim, geometry.head_dim);
    top = std::max(top, weights[static_cast<size_t>(t)]);
  }
  double total = 0;
  for (int32_t t = 0; t < num_tokens; ++t) {
    weights[static_cast<size_t>(t)] = std::exp(weights[static_cast<size_t>(t)] - top);
    total += weights[static_cast<size_t>(t)];
  }
  for (int32_t t = 0; t < num_tokens; ++t) {
    mass[t / geometry.page_tokens] += static_cast<float>(weights[static_cast<size_t>(t)] / total);
  }
}

}  // namespace

std::vector<float> PageMass(const LayerView& view, const KvGeometry& geometry) {
  const int32_t pages = view.num_pages(geometry.page_tokens);
  const int64_t head_keys = pages * geometry.plane_elements();
  std::vector<float> mass(static_cast<size_t>(geometry.num_q_heads) * pages, 0.0f);
  std::vector<float> weights(static_cast<size_t>(view.position) + 1);
  for (int32_t head = 0; head < geometry.num_q_heads; ++head) {
    AddPageMass(view.queries.data() + int64_t{head} * geometry.head_dim,
                view.keys.data() + head / geometry.group() * head_keys, view.position + 1, geometry,
                weights, mass.data() + int64_t{head} * pages);
  }
  return mass;
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

}  // namespace spin::eval
