// Exact attention by page against a plain computation, and the selections that are made from it.
#include "tools/eval/attention_mass.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <vector>

#include "common/random.h"

namespace spin::eval {
namespace {

constexpr KvGeometry kGeometry = {.num_layers = 1,
                                  .num_kv_heads = 2,
                                  .num_q_heads = 4,
                                  .head_dim = 64,
                                  .page_tokens = 8,
                                  .max_rows = 1,
                                  .max_extents = 1};
constexpr int32_t kPosition = 20;  // three pages, the last one of five tokens

LayerView RandomView() {
  LayerView view;
  view.position = kPosition;
  Random random(5);
  view.queries.resize(4 * 64);
  view.keys.resize(2 * 3 * 8 * 64);
  for (float& value : view.queries) value = 4 * random.Uniform() - 2;
  for (float& value : view.keys) value = random.Uniform() - 0.5f;
  return view;
}

TEST_CASE("page mass is the softmax over all tokens, summed by page") {
  const LayerView view = RandomView();
  const std::vector<float> mass = PageMass(view, kGeometry);
  REQUIRE(mass.size() == 12);
  for (size_t head = 0; head < 4; ++head) {
    double pages[3] = {};
    double total = 0;
    for (size_t t = 0; t <= kPosition; ++t) {
      double dot = 0;
      for (size_t c = 0; c < 64; ++c) {
        dot += static_cast<double>(view.queries[head * 64 + c]) *
               view.keys[(head / 2 * 24 + t) * 64 + c];
      }
      pages[t / 8] += std::exp(dot / 8);
      total += std::exp(dot / 8);
    }
    for (size_t page = 0; page < 3; ++page) {
      CHECK(mass[head * 3 + page] == Approx(pages[page] / total).epsilon(1e-4));
    }
  }
}

TEST_CASE("masks name the tokens of a page that count") {
  const LayerView view = RandomView();
  const std::vector<float> tokens = TokenMass(view, kGeometry);
  REQUIRE(tokens.size() == 4 * (kPosition + 1));
  const std::span<const float> head(tokens.data() + 2 * (kPosition + 1), kPosition + 1);
  const std::vector<float> pages = PageMass(view, kGeometry);
  const std::vector<int32_t> listed = {0, 2};
  CHECK(MaskedMassOf(head, listed, std::vector<uint8_t>{0xff, 0x1f}, 8) ==
        Approx(pages[6] + pages[8]));
  CHECK(MaskedMassOf(head, listed, std::vector<uint8_t>{0x81, 0x02}, 8) ==
        Approx(head[0] + head[7] + head[17]));
}

TEST_CASE("a group's mass is the mean over its query heads") {
  const std::vector<float> mass = {0.5f, 0.25f, 0.25f, 0.1f, 0.8f, 0.1f,
                                   0.2f, 0.2f,  0.6f,  0.4f, 0.0f, 0.6f};
  const std::vector<float> mean = GroupMass(mass, kGeometry, 1);
  REQUIRE(mean.size() == 3);
  CHECK(mean[0] == Approx(0.3f));
  CHECK(mean[1] == Approx(0.1f));
  CHECK(mean[2] == Approx(0.6f));
}

TEST_CASE("the best pages have the most mass, the last page always among them") {
  const std::vector<float> mass = {0.1f, 0.3f, 0.05f, 0.3f, 0.2f, 0.05f};
  CHECK(BestPages(mass, 1) == std::vector<int32_t>{5});
  CHECK(BestPages(mass, 2) == std::vector<int32_t>{1, 5});
  CHECK(BestPages(mass, 4) == std::vector<int32_t>{1, 3, 4, 5});
  CHECK(BestPages(mass, 9) == std::vector<int32_t>{0, 1, 2, 3, 4, 5});
  CHECK(MassOf(mass, BestPages(mass, 2)) == Approx(0.35));
}

TEST_CASE("overlap counts selected pages; of a page under a mask, the share of its tokens") {
  const std::vector<int32_t> selected = {0, 2, 3, 5}, best = {2, 4, 5};
  CHECK(Overlap(selected, best) == Approx(2.0 / 3));
  CHECK(Overlap(best, best) == 1);
  CHECK(Overlap(std::vector<int32_t>{0, 1}, best) == 0);
  // 44 tokens: the last page holds four of them.
  const std::vector<uint8_t> masks = {0xff, 0x83, 0xff, 0x0f};
  CHECK(MaskedOverlap(selected, masks, best, 44, 8) == Approx((3.0 / 8 + 1) / 3));
  CHECK(MaskedOverlap(best, std::vector<uint8_t>{0xff, 0xff, 0x0f}, best, 44, 8) == 1);
  CHECK(MaskedOverlap(std::vector<int32_t>{0, 1}, masks, best, 44, 8) == 0);
}

TEST_CASE("a window is the first page and the last ones") {
  CHECK(WindowPages(6, 1) == std::vector<int32_t>{5});
  CHECK(WindowPages(6, 3) == std::vector<int32_t>{0, 4, 5});
  CHECK(WindowPages(6, 6) == std::vector<int32_t>{0, 1, 2, 3, 4, 5});
  CHECK(WindowPages(2, 9) == std::vector<int32_t>{0, 1});
  CHECK(WindowPages(1, 1) == std::vector<int32_t>{0});
}

}  // namespace
}  // namespace spin::eval
