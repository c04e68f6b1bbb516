// Offload on the GPU and on the CPU: tables and whole pools agree bit for bit. The two keep staging differently (pages
// there, planes here), so the test makes one from the other.
#include <algorithm>

#include "tests/twin/twin_testing.h"

namespace spin {
namespace {

using testing::Elements;
using testing::ElementsOnDevice;
using testing::Gpu;
using testing::KvOnDevice;
using testing::KvWorld;
using testing::OnDevice;

// One row's part in an offload; slices come from them.
struct Part {
  int32_t row = 0;
  int32_t tokens = 0;
  int32_t prefix_tokens = 0;  // of them
};

class Twins {
 public:
  explicit Twins(const KvGeometry& g) : world_(g) {}

  void AddRow(int32_t row, Placement where, int32_t tokens, int32_t slot_budget = 0) {
    world_.AddRow(row, where, tokens, slot_budget);
    gpu_ = nullptr;
  }

  // Offloads the parts with pages between them that no slice owns, and compares everything. `ordered`: a head's tokens
  // are stored in an order of its own.
  void Offload(const std::vector<Part>& parts, int32_t layer, uint64_t seed, bool ordered = false) {
    const KvGeometry& g = world_.geometry;
    if (gpu_ == nullptr) gpu_ = std::make_unique<KvOnDevice>(world_);
    std::vector<PrefillSlice> slices;
    int32_t pages = 1, packed = 0;
    for (const Part& part : parts) {
      slices.push_back({.row = part.row,
                        .token_begin = packed,
                        .num_tokens = part.tokens - part.prefix_tokens,
                        .page_begin = pages,
                        .prefix_tokens = part.prefix_tokens});
      packed += part.tokens - part.prefix_tokens;
      pages += CeilDiv(part.tokens, g.page_tokens) + 1;
    }
    Random random(seed);
    Elements staging = world_.MakeStaging(pages, slices, random);
    const ElementsOnDevice planes(testing::PlanesOf(staging, g, pages));
    const OnDevice<PrefillSlice> device_slices(slices);
    const std::vector<int32_t> order = MakeOrder(slices, pages, random);
    const OnDevice<int32_t> device_order(order);
    const auto slots = world_.slots, host = world_.host;
    OffloadParams p{.slices = device_slices.data(),
                    .num_slices = static_cast<int32_t>(slices.size()),
                    .layer = layer,
                    .tables = gpu_->tables,
                    .staging = {planes.data(), pages},
                    .order = ordered ? device_order.data() : nullptr};
    Gpu::Get().ops().Offload(p, Gpu::Get().stream());
    p.slices = slices.data();
    p.tables = world_.tables;
    p.staging = {staging.data(), pages};
    p.order = ordered ? order.data() : nullptr;
    cpu::Offload(p, world_.pool);
    gpu_->CheckEquals(world_);
    const auto tiered = [&](const Part& part) {
      return world_.placement[static_cast<size_t>(part.row)] ==
             static_cast<int32_t>(Placement::kTiered);
    };
    CHECK((world_.slots != slots || world_.host != host) == !parts.empty());
    CHECK((world_.host != host) == std::any_of(parts.begin(), parts.end(), tiered));
  }

 private:
  // Each slice's tokens shuffled, a head at a time; what is in no slice must not be read.
  std::vector<int32_t> MakeOrder(const std::vector<PrefillSlice>& slices, int32_t pages,
                                 Random& random) const {
    const KvGeometry& g = world_.geometry;
    const int64_t places = int64_t{pages} * g.page_tokens;
    std::vector<int32_t> order(static_cast<size_t>(g.num_kv_heads * places), 1 << 30);
    for (const PrefillSlice& slice : slices) {
      const int32_t tokens = slice.prefix_tokens + slice.num_tokens;
      for (int32_t head = 0; head < g.num_kv_heads; ++head) {
        const int32_t first = slice.page_begin * g.page_tokens;
        int32_t* of_head = order.data() + head * places + first;
        std::iota(of_head, of_head + tokens, first);
        for (int32_t i = tokens; i > 1; --i) {
          std::swap(of_head[i - 1], of_head[random.Below(static_cast<uint32_t>(i))]);
        }
      }
    }
    return order;
  }

  KvWorld world_;
  std::unique_ptr<KvOnDevice> gpu_;
};

TEST_CASE("offload: Resident and Tiered rows of odd lengths in one batch, then again") {
  const auto dtype = GENERATE(DType::kF32, DType::kBf16);
  const int32_t d = GENERATE(64, 128);
  const int32_t page_tokens = GENERATE(8, 16, 32, 64);
  Twins twins(testing::SmallGeometry(dtype, d, page_tokens));
  twins.AddRow(0, Placement::kResident, 1100);
  twins.AddRow(1, Placement::kTiered, 1300, 3);
  twins.AddRow(2, Placement::kTiered, 700, 600 / page_tokens);
  twins.AddRow(3, Placement::kTiered, 40, 0);
  twins.Offload({{0, 2 * page_tokens + 3}, {1, 1201, page_tokens}, {2, 5}, {3, 33}}, 1, 30);
  // The rows begin anew, with other pages in their slots; what pages held behind the tokens stays.
  twins.Offload({{2, 699, 512}, {1, 2 * page_tokens}, {0, 1}}, 1, 31);
  twins.Offload({{1, page_tokens + 1}, {2, 600}}, 1, 32);
  twins.Offload({{2, 1}}, 0, 33);
  twins.Offload({}, 0, 34);
}

TEST_CASE("offload: tokens in a given order", "[small]") {
  const auto dtype = GENERATE(DType::kF32, DType::kBf16);
  const int32_t d = GENERATE(64, 128);
  Twins twins(testing::SmallGeometry(dtype, d, 8));
  twins.AddRow(0, Placement::kResident, 1100);
  twins.AddRow(1, Placement::kTiered, 1300, 3);
  twins.AddRow(2, Placement::kTiered, 700, 80);
  twins.Offload({{0, 1099}, {1, 1201, 8}, {2, 5}}, 1, 38, true);
  twins.Offload({{2, 699, 512}, {1, 16}, {0, 1}}, 1, 39, true);
  twins.Offload({}, 0, 40, true);
}

TEST_CASE("offload: more slices than a block has threads", "[small]") {
  KvGeometry g = testing::SmallGeometry(DType::kBf16, 64, 64);
  g.num_layers = 1;
  g.num_kv_heads = 1;
  g.num_q_heads = 3;
  g.max_rows = 601;
  g.max_extents = 1;
  Twins twins(g);
  Random random(35);
  std::vector<Part> parts;
  for (int32_t row = 0; row < g.max_rows; ++row) {
    twins.AddRow(row, row % 3 == 1 ? Placement::kTiered : Placement::kResident, 130, row % 2);
    parts.push_back({row, static_cast<int32_t>(random.Between(1, 130))});
  }
  twins.Offload(parts, 0, 36);
}

TEST_CASE("offload: Qwen3-8B") {
  const int32_t page_tokens = GENERATE(16, 64);
  Twins twins({.num_layers = 1,
               .num_kv_heads = 8,
               .num_q_heads = 32,
               .head_dim = 128,
               .page_tokens = page_tokens,
               .max_rows = 2,
               .max_extents = 9,
               .summary_elements = 256,
               .dtype = DType::kBf16});
  twins.AddRow(0, Placement::kResident, 1500);
  twins.AddRow(1, Placement::kTiered, 4600, 70);
  twins.Offload({{1, 4501}, {0, 1499}}, 0, 37);
}

}  // namespace
}  // namespace spin
