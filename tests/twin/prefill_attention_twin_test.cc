// StoreKv and PrefillAttention on the GPU, beside the CPU's and against softmax in double. The arrangement of staging
// is each backend's own, so both sides fill theirs through StoreKv.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "tests/twin/twin_testing.h"

namespace spin {
namespace {

using testing::Elements;
using testing::ElementsOnDevice;
using testing::Gpu;
using testing::OnDevice;
using testing::Poisoned;

struct Heads {
  int32_t q, kv, d;
};

KvGeometry Geometry(Heads heads, int32_t page_tokens, DType dtype) {
  return {.num_layers = 1,
          .num_kv_heads = heads.kv,
          .num_q_heads = heads.q,
          .head_dim = heads.d,
          .page_tokens = page_tokens,
          .max_rows = 1,
          .max_extents = 1,
          .dtype = dtype};
}

// Packed sequences, on the host and on the device; staging is NaN wherever no token has been stored.
struct Batch {
  Batch(const KvGeometry& geometry, const std::vector<int32_t>& lengths, float scale = 1)
      : g(geometry), row((int64_t{g.num_q_heads} + 2 * g.num_kv_heads) * g.head_dim) {
    int32_t page = 1;  // staging begins with a page of nobody
    for (const int32_t length : lengths) {
      for (int32_t t = 0; t < length; ++t) {
        kv_begin.push_back(page * g.page_tokens);
        kv_index.push_back(page * g.page_tokens + t);
      }
      page += CeilDiv(length, g.page_tokens) + 1;
    }
    num_pages = page;
    n = static_cast<int32_t>(kv_index.size());
    qkv = Elements(g.dtype, n * row);
    Random random(7);
    qkv.Randomize(random, scale);
  }

  // Queries, keys and values of one token grow.
  void AddOutliers(int32_t token, float factor) {
    for (int64_t c = 0; c < row; ++c) {
      qkv.Set(token * row + c, factor * qkv[token * row + c]);
    }
  }

  // `cuts` are where tiles end, ascending, the last is n. Before each tile its tokens are stored: what later tiles will
  // store is still NaN.
  Elements OnGpu(const std::vector<int32_t>& cuts, Elements* staging = nullptr) const {
    const ElementsOnDevice rows(qkv), pages(Poisoned(g.dtype, StagingSize())),
        out(Poisoned(g.dtype, OutSize()));
    const OnDevice<int32_t> begins(kv_begin), indices(kv_index);
    const Sides side = {rows.data(), pages.data(), out.data(), begins.data(), indices.data()};
    int32_t begin = 0;
    for (const int32_t end : cuts) {
      Gpu::Get().ops().StoreKv(Store(side, begin, end), Gpu::Get().stream());
      Gpu::Get().ops().PrefillAttention(Attend(side, begin, end), Gpu::Get().stream());
      begin = end;
    }
    Gpu::Get().Finish();
    if (staging != nullptr) *staging = pages.Read();
    return out.Read();
  }

  Elements OnCpu(const std::vector<int32_t>& cuts) const {
    ThreadPool pool(2);
    Elements pages = Poisoned(g.dtype, StagingSize()), out = Poisoned(g.dtype, OutSize()),
             rows = qkv;
    const Sides side = {rows.data(), pages.data(), out.data(), kv_begin.data(), kv_index.data()};
    int32_t begin = 0;
    for (const int32_t end : cuts) {
      cpu::StoreKv(Store(side, begin, end), pool);
      cpu::PrefillAttention(Attend(side, begin, end), pool);
      begin = end;
    }
    return out;
  }

  // The answer of every `stride`th token, and the tokens.
  std::pair<std::vector<int32_t>, std::vector<double>> Reference(int32_t stride) const {
    std::vector<double> x(static_cast<size_t>(qkv.size()));
    for (int64_t i = 0; i < qkv.size(); ++i) x[size_t(i)] = double{qkv[i]};
    std::pair<std::vector<int32_t>, std::vector<double>> result;
    for (int32_t i = (n - 1) % stride; i < n; i += stride) {
      result.first.push_back(i);
      for (int32_t h = 0; h < g.num_q_heads; ++h) AppendReference(x, i, h, result.second);
    }
    return result;
  }

  KvGeometry g;
  int64_t row;
  std::vector<int32_t> kv_begin, kv_index;
  int32_t num_pages = 0, n = 0;
  Elements qkv{DType::kF32, 0};

 private:
  struct Sides {
    const void* qkv;
    void* pages;
    void* out;
    const int32_t* begins;
    const int32_t* indices;
  };

  int64_t StagingSize() const { return int64_t{g.num_kv_heads} * num_pages * g.page_elements(); }
  int64_t OutSize() const { return int64_t{n} * g.num_q_heads * g.head_dim; }
  const char* RowOf(const Sides& side, int32_t token) const {
    return static_cast<const char*>(side.qkv) + token * row * SizeOf(g.dtype);
  }

  StoreKvParams Store(const Sides& side, int32_t begin, int32_t end) const {
    StoreKvParams p;
    p.qkv = RowOf(side, begin);
    p.kv_index = side.indices + begin;
    p.n = end - begin;
    p.geometry = g;
    p.staging = {side.pages, num_pages};
    return p;
  }
  // No segments: on a GPU the portable kernel takes every token.
  PrefillAttentionParams Attend(const Sides& side, int32_t begin, int32_t end) const {
    PrefillAttentionParams p;
    p.qkv = RowOf(side, begin);
    p.kv_begin = side.begins + begin;
    p.kv_index = side.indices + begin;
    p.n = end - begin;
    p.geometry = g;
    p.staging = {side.pages, num_pages};
    p.out = static_cast<char*>(side.out) +
            int64_t{begin} * g.num_q_heads * g.head_dim * SizeOf(g.dtype);
    return p;
  }

  void AppendReference(const std::vector<double>& x, int32_t i, int32_t h,
                       std::vector<double>& out) const {
    const int32_t first = i - (kv_index[size_t(i)] - kv_begin[size_t(i)]);
    const double* q = x.data() + i * row + int64_t{h} * g.head_dim;
    const int64_t key = int64_t{g.num_q_heads + h / g.group()} * g.head_dim;
    const int64_t value = key + int64_t{g.num_kv_heads} * g.head_dim;
    std::vector<double> weight;
    for (int32_t t = first; t <= i; ++t) {
      const double* k = x.data() + t * row + key;
      double dot = 0;
      for (int32_t c = 0; c < g.head_dim; ++c) dot += q[c] * k[c];
      weight.push_back(dot / std::sqrt(double(g.head_dim)));
    }
    const double max = *std::max_element(weight.begin(), weight.end());
    double sum = 0;
    for (double& w : weight) sum += w = std::exp(w - max);
    std::vector<double> result(static_cast<size_t>(g.head_dim));
    for (int32_t t = first; t <= i; ++t) {
      const double w = weight[size_t(t - first)] / sum;
      const double* v = x.data() + t * row + value;
      for (int32_t c = 0; c < g.head_dim; ++c) result[size_t(c)] += w * v[c];
    }
    out.insert(out.end(), result.begin(), result.end());
  }
};

// The rows of some tokens.
std::vector<float> RowsOf(const Elements& out, const std::vector<int32_t>& tokens, int64_t width) {
  std::vector<float> rows;
  for (const int32_t token : tokens) {
    for (int64_t c = 0; c < width; ++c) rows.push_back(out[token * width + c]);
  }
  return rows;
}

double ErrorOf(const Elements& out, const Batch& batch,
               const std::pair<std::vector<int32_t>, std::vector<double>>& reference) {
  struct Rows {
    float operator[](int64_t i) const { return values[size_t(i)]; }
    std::vector<float> values;
  };
  return testing::RelativeError(
      Rows{RowsOf(out, reference.first, int64_t{batch.g.num_q_heads} * batch.g.head_dim)},
      reference.second);
}

constexpr double kHalfUlp = 0x1p-9;  // what rounding the answer to bfloat16 costs, at the least

// Within twice the error of rounding every input and output to the type, as the CPU is; in bfloat16, where rounding is
// most of it, within twice the CPU's own too.
void CheckErrors(const Batch& batch, const std::vector<int32_t>& cuts, int32_t stride) {
  const auto reference = batch.Reference(stride);
  const double gpu = ErrorOf(batch.OnGpu(cuts), batch, reference);
  const double cpu = ErrorOf(batch.OnCpu(cuts), batch, reference);
  INFO("error " << gpu << ", on the CPU " << cpu);
  if (batch.g.dtype == DType::kF32) {
    CHECK(gpu < 5e-6);
  } else {
    CHECK(gpu < 1e-2);
    CHECK(gpu <= 2 * std::max(cpu, kHalfUlp));
  }
}

std::vector<Heads> Groupings(int32_t d) {
  return {{2, 2, d}, {6, 2, d}, {8, 2, d}, {8, 1, d}};
}
const std::vector<int32_t> kLengths = {1, 17, 64, 128, 129, 500};
const std::vector<int32_t> kWhole = {839};
const std::vector<int32_t> kCuts = {1, 9, 130, 131, 260, 403, 500, 774, 837, 839};

TEST_CASE("on the GPU, prefill attention of packed sequences equals softmax in double") {
  for (const DType dtype : {DType::kF32, DType::kBf16}) {
    for (const int32_t d : {64, 128}) {
      for (const Heads heads : Groupings(d)) {
        const int32_t page_tokens = heads.q == 6 ? 8 : heads.q == 2 ? 64 : 16;
        const Batch batch(Geometry(heads, page_tokens, dtype), kLengths);
        INFO(NameOf(dtype) << ' ' << heads.q << '/' << heads.kv << " x " << d);
        CheckErrors(batch, kCuts, 3);
        CheckErrors(batch, kWhole, 3);
      }
    }
  }
}

TEST_CASE("on the GPU, prefill attention of a few short sequences", "[small]") {
  for (const DType dtype : {DType::kF32, DType::kBf16}) {
    const Batch batch(Geometry({4, 2, 64}, 16, dtype), {1, 17, 60});
    CheckErrors(batch, {9, 78}, 1);
  }
}

TEST_CASE("on the GPU, neither tiles nor packing nor place in staging change a token's bits") {
  for (const DType dtype : {DType::kF32, DType::kBf16}) {
    for (const int32_t d : {64, 128}) {
      // So many heads that the whole goes in large tiles of tokens, the pieces in small ones.
      const Heads heads = {64, 8, d};
      const Batch batch(Geometry(heads, 16, dtype), kLengths);
      const Elements whole = batch.OnGpu(kWhole);
      const auto reference = batch.Reference(19);
      INFO(NameOf(dtype) << ", d " << d);
      CHECK(ErrorOf(whole, batch, reference) < (dtype == DType::kF32 ? 5e-6 : 1e-2));
      CHECK(batch.OnGpu(kCuts) == whole);
      const Batch smaller_pages(Geometry(heads, 8, dtype), kLengths);
      CHECK(smaller_pages.OnGpu(kWhole) == whole);
      // The last sequence alone, with the rows that it had.
      Batch alone(Geometry(heads, 16, dtype), {500});
      for (int64_t i = 0; i < alone.qkv.size(); ++i)
        alone.qkv.Set(i, batch.qkv[339 * batch.row + i]);
      const Elements last = alone.OnGpu({500});
      const int64_t before = 339 * int64_t{heads.q} * d * SizeOf(dtype);
      CHECK(std::memcmp(last.data(), static_cast<const char*>(whole.data()) + before,
                        static_cast<size_t>(last.size() * SizeOf(dtype))) == 0);
    }
  }
}

TEST_CASE("on the GPU, large scores and outliers stay exact") {
  for (const DType dtype : {DType::kF32, DType::kBf16}) {
    for (const int32_t d : {64, 128}) {
      const Batch large(Geometry({3, 1, d}, 16, dtype), {333}, 4);
      INFO(NameOf(dtype) << ", d " << d);
      CheckErrors(large, {333}, 2);
      Batch outliers(Geometry({3, 1, d}, 16, dtype), {40, 150});
      outliers.AddOutliers(60, 30);
      outliers.AddOutliers(189, 30);
      CheckErrors(outliers, {13, 101, 190}, 1);
    }
  }
}

TEST_CASE("on the GPU, many sequences in a tile, and a long prefix before a few tokens") {
  for (const DType dtype : {DType::kF32, DType::kBf16}) {
    const Batch many(Geometry({4, 2, 64}, 8, dtype), std::vector<int32_t>(150, 1));
    CheckErrors(many, {150}, 1);
    const Batch prefix(Geometry({4, 2, 128}, 64, dtype), {3000});
    CheckErrors(prefix, {2895, 2896, 3000}, 13);
  }
}

TEST_CASE("on the GPU, prefill attention at Qwen3-8B's shape") {
  const Batch batch(Geometry({32, 8, 128}, 16, DType::kBf16), {1000});
  CheckErrors(batch, {1000}, 11);
}

TEST_CASE("on the GPU, StoreKv writes each key and value once and nothing else") {
  for (const DType dtype : {DType::kF32, DType::kBf16}) {
    const Batch batch(Geometry({4, 2, 64}, 8, dtype), {1, 9, 8, 30});
    Elements staging(dtype, 0);
    batch.OnGpu({2, 2, 48}, &staging);
    // Whatever the arrangement: the elements of keys and values, and poison.
    std::vector<float> expected, found;
    for (int32_t i = 0; i < batch.n; ++i) {
      for (int64_t c = 4 * 64; c < batch.row; ++c) expected.push_back(batch.qkv[i * batch.row + c]);
    }
    for (int64_t i = 0; i < staging.size(); ++i) {
      if (!std::isnan(staging[i])) found.push_back(staging[i]);
    }
    std::sort(expected.begin(), expected.end());
    std::sort(found.begin(), found.end());
    CHECK(found == expected);
  }
}

TEST_CASE("on the GPU, prefill of no tokens is no work") {
  const Batch batch(Geometry({4, 2, 64}, 16, DType::kBf16), {});
  CHECK(batch.OnGpu({0}).size() == 0);
}

}  // namespace
}  // namespace spin
