// Prefill attention of long segments, which cuDNN computes where it is, between short ones, which it does not. Staging
// is filled by hand in the layout of the GPU: what no query may see is NaN.
#include "kernels/cuda/cudnn_attention.h"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "common/random.h"
#include "common/status.h"
#include "tests/twin/twin_testing.h"

namespace spin::testing {
namespace {

struct Case {
  const char* name;
  int32_t num_q_heads, num_kv_heads, head_dim, page_tokens;
  std::vector<PrefillSegment> segments;
  int32_t capacity;  // tokens of staging
  int64_t pieces;    // that cuDNN takes
  int32_t step;      // rows between those that are compared
  float key_scale = 1;
};

constexpr float kUntouched = 3.0f;
constexpr int32_t kGuardRows = 300;  // behind the tile, in what is read and in what is written

class Tile {
 public:
  Tile(const Case& c, uint64_t seed)
      : c_(c),
        d_(c.head_dim),
        n_(c.segments.back().token_begin + c.segments.back().num_tokens),
        row_((c.num_q_heads + 2 * c.num_kv_heads) * d_),
        out_row_(c.num_q_heads * d_),
        qkv_(DType::kBf16, (n_ + kGuardRows) * row_),
        staging_(DType::kBf16, 2 * c.num_kv_heads * c.capacity * d_),
        out_(DType::kBf16, (n_ + kGuardRows) * out_row_) {
    Random random(seed);
    const float nan = std::numeric_limits<float>::quiet_NaN();
    qkv_.Fill(nan);
    staging_.Fill(nan);
    out_.Fill(kUntouched);
    for (int64_t i = 0; i < n_; ++i) {
      for (int64_t j = 0; j < out_row_; ++j) {  // keys and values of the row are in staging
        qkv_.Set(i * row_ + j, 2 * (2 * random.Uniform() - 1));
      }
    }
    for (const PrefillSegment& s : c.segments) {
      for (int64_t h = 0; h < c.num_kv_heads; ++h) {
        for (int64_t t = s.kv_begin; t < s.kv_begin + s.kv_tokens; ++t) {
          for (int64_t j = 0; j < d_; ++j) {
            staging_.Set(Key(h, t) + j, c.key_scale * (2 * random.Uniform() - 1));
            staging_.Set(Value(h, t) + j, 2 * random.Uniform() - 1);
          }
        }
      }
      for (int32_t i = 0; i < s.num_tokens; ++i) {
        kv_begin_.push_back(s.kv_begin);
        kv_index_.push_back(s.kv_begin + s.kv_tokens - s.num_tokens + i);
      }
    }
  }

  void Run() {
    const ElementsOnDevice qkv(qkv_), staging(staging_), out(out_);
    const OnDevice<int32_t> kv_begin(kv_begin_), kv_index(kv_index_);
    const KvGeometry geometry = {.num_layers = 1,
                                 .num_kv_heads = c_.num_kv_heads,
                                 .num_q_heads = c_.num_q_heads,
                                 .head_dim = c_.head_dim,
                                 .page_tokens = c_.page_tokens,
                                 .max_rows = 1,
                                 .max_extents = 1,
                                 .dtype = DType::kBf16};
    Gpu::Get().ops().PrefillAttention(
        {.qkv = qkv.data(),
         .kv_begin = kv_begin.data(),
         .kv_index = kv_index.data(),
         .n = static_cast<int32_t>(n_),
         .geometry = geometry,
         .staging = {.pages = staging.data(), .num_pages = c_.capacity / c_.page_tokens},
         .out = out.data(),
         .segments = c_.segments.data(),
         .num_segments = static_cast<int32_t>(c_.segments.size())},
        Gpu::Get().stream());
    Gpu::Get().Finish();
    out_ = out.Read();
  }

  // Errors relative to the largest output, against float64: of the device, and of a plain implementation that keeps
  // probabilities and outputs in bf16.
  struct Errors {
    double device = 0, plain = 0;
  };
  Errors Compare() const {
    Errors worst;
    double scale = 1e-30;
    std::vector<double> exact(static_cast<size_t>(d_));
    std::vector<float> plain(static_cast<size_t>(d_));
    for (int64_t i = 0; i < n_; i += c_.step) {
      for (int64_t h = 0; h < c_.num_q_heads; ++h) {
        Attend(i, h, exact, plain);
        for (int64_t j = 0; j < d_; ++j) {
          const double want = exact[static_cast<size_t>(j)];
          Raise(worst.device, std::abs(out_[i * out_row_ + h * d_ + j] - want));
          Raise(worst.plain, std::abs(plain[static_cast<size_t>(j)] - want));
          Raise(scale, std::abs(want));
        }
      }
    }
    return {worst.device / scale, worst.plain / scale};
  }

  int64_t CountNotFinite() const {
    int64_t count = 0;
    for (int64_t i = 0; i < n_ * out_row_; ++i) count += !std::isfinite(out_[i]);
    return count;
  }
  int64_t CountTouchedBehind() const {
    int64_t count = 0;
    for (int64_t i = n_ * out_row_; i < out_.size(); ++i) count += out_[i] != kUntouched;
    return count;
  }

 private:
  // NaN wins, and fails every comparison.
  static void Raise(double& worst, double value) {
    if (!(value <= worst)) worst = value;
  }
  int64_t Key(int64_t head, int64_t token) const { return (2 * head * c_.capacity + token) * d_; }
  int64_t Value(int64_t head, int64_t token) const { return Key(head, token) + c_.capacity * d_; }

  void Attend(int64_t i, int64_t head, std::vector<double>& exact,
              std::vector<float>& plain) const {
    const int64_t kv_head = head / (c_.num_q_heads / c_.num_kv_heads);
    const int64_t begin = kv_begin_[static_cast<size_t>(i)];
    const int64_t keys = kv_index_[static_cast<size_t>(i)] - begin + 1;
    std::vector<double> scores(static_cast<size_t>(keys));
    double largest = -std::numeric_limits<double>::infinity();
    for (int64_t t = 0; t < keys; ++t) {
      double dot = 0;
      for (int64_t j = 0; j < d_; ++j) {
        dot += double{qkv_[i * row_ + head * d_ + j]} * staging_[Key(kv_head, begin + t) + j];
      }
      scores[static_cast<size_t>(t)] = dot / std::sqrt(static_cast<double>(d_));
      largest = std::max(largest, scores[static_cast<size_t>(t)]);
    }
    double sum = 0;
    std::fill(exact.begin(), exact.end(), 0);
    std::fill(plain.begin(), plain.end(), 0.0f);
    for (int64_t t = 0; t < keys; ++t) {
      const double weight = std::exp(scores[static_cast<size_t>(t)] - largest);
      const float rounded = Bf16ToFloat(FloatToBf16(static_cast<float>(weight)));
      sum += weight;
      for (int64_t j = 0; j < d_; ++j) {
        const float value = staging_[Value(kv_head, begin + t) + j];
        exact[static_cast<size_t>(j)] += weight * value;
        plain[static_cast<size_t>(j)] += rounded * value;
      }
    }
    for (double& x : exact) x /= sum;
    for (float& x : plain) x = Bf16ToFloat(FloatToBf16(x / static_cast<float>(sum)));
  }

  const Case& c_;
  int64_t d_, n_, row_, out_row_;
  Elements qkv_, staging_, out_;
  std::vector<int32_t> kv_begin_, kv_index_;
};

// {token_begin, num_tokens, kv_begin, kv_tokens}
const std::vector<Case> kCases = {
    {"one piece, NaN right behind its keys", 4, 2, 128, 16, {{0, 512, 0, 512}}, 1024, 1, 1},
    {"one piece in full staging", 4, 2, 128, 16, {{0, 512, 0, 512}}, 512, 1, 1},
    {"a prefix of whole steps", 4, 1, 64, 32, {{0, 1024, 256, 1536}}, 2048, 1, 3},
    {"a prefix within a step: what leads to the next is portable",
     6,
     2,
     64,
     8,
     {{0, 1100, 64, 1400}},
     1600,
     1,
     3},
    {"several pieces and a rest", 3, 3, 128, 16, {{0, 1900, 128, 1900}}, 2304, 2, 7},
    {"long and short sequences",
     8,
     1,
     128,
     64,
     {{0, 40, 0, 40}, {40, 600, 64, 600}, {640, 1, 704, 500}, {641, 530, 1216, 1042}},
     2304,
     2,
     5},
    {"large scores", 4, 4, 64, 16, {{0, 600, 0, 856}}, 1024, 1, 3, 30},
    {"Qwen3-8B, the second tile of a prompt", 32, 8, 128, 16, {{0, 2048, 1024, 4096}}, 8192, 1, 97},
};

}  // namespace

TEST_CASE("prefill attention through cuDNN") {
  static const absl::Status loads = cuda::CudnnAttention::Load(0).status();
  for (const Case& c : kCases) {
    DYNAMIC_SECTION(c.name) {
      const int64_t before = cuda::CudnnAttention::PiecesRun();
      Tile tile(c, 11);
      tile.Run();
      if (loads.ok()) {
        CHECK(cuda::CudnnAttention::PiecesRun() - before == c.pieces);
      } else {
        WARN("cuDNN is not used here, the portable kernel is tested: " << MessageOf(loads));
      }
      CHECK(tile.CountNotFinite() == 0);
      CHECK(tile.CountTouchedBehind() == 0);
      const Tile::Errors errors = tile.Compare();
      INFO("error " << errors.device << ", of a plain implementation in bf16 " << errors.plain);
      CHECK(errors.device <= 2 * errors.plain);
    }
  }
}

// The lengths are read from device memory: the second run must not see the first's.
TEST_CASE("one plan serves other lengths of keys") {
  const std::vector<Case> cases = {
      {"short", 4, 2, 128, 16, {{0, 512, 0, 512}}, 2048, 1, 5},
      {"long", 4, 2, 128, 16, {{0, 512, 0, 2048}}, 2048, 1, 5},
      {"short behind another sequence", 4, 2, 128, 16, {{0, 512, 1024, 768}}, 2048, 1, 5},
  };
  for (const Case& c : cases) {
    INFO(c.name);
    Tile tile(c, 12);
    tile.Run();
    const Tile::Errors errors = tile.Compare();
    CHECK(errors.device <= 2 * errors.plain);
  }
}

}  // namespace spin::testing
