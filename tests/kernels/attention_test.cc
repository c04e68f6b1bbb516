// Prefill and paged attention against softmax in double; what must be equal to the bit; NaN where
// nothing may be read.
#include <algorithm>
#include <functional>
#include <numeric>

#include "kernels/cpu/families.h"
#include "tests/kernels/kernel_testing.h"

namespace spin {
namespace {

using testing::Elements;
using testing::ForEachIsa;

struct Heads {
  int32_t q, kv, d;
};

KvGeometry Geometry(Heads heads, int32_t page_tokens, DType dtype) {
  KvGeometry g;
  g.num_layers = 1;
  g.num_kv_heads = heads.kv;
  g.num_q_heads = heads.q;
  g.head_dim = heads.d;
  g.page_tokens = page_tokens;
  g.max_rows = 4;
  g.max_extents = 1;
  g.dtype = dtype;
  return g;
}

// Some sequences packed for prefill, with room for the answer.
struct Batch {
  Batch(Heads heads, int32_t page_tokens, DType dtype, std::vector<int32_t> lengths,
        float scale = 1)
      : g(Geometry(heads, page_tokens, dtype)), lengths(lengths) {
    int32_t page = 1;  // staging begins with a page of nobody
    for (const int32_t length : lengths) {
      for (int32_t t = 0; t < length; ++t) {
        kv_begin.push_back(page * page_tokens);
        kv_index.push_back(page * page_tokens + t);
      }
      page += (length + page_tokens - 1) / page_tokens + 1;
    }
    num_pages = page;
    n = static_cast<int32_t>(kv_index.size());
    row = (heads.q + 2 * heads.kv) * heads.d;
    qkv = Elements(dtype, int64_t{n} * row);
    // Drawn a token at a time: the same values whatever the page size.
    Random random(7);
    qkv.Randomize(random, scale);
    pages = Elements(dtype, int64_t{heads.kv} * num_pages * g.page_elements());
    pages.Fill(NAN);
    ThreadPool pool(2);
    StoreKvParams p;
    p.qkv = qkv.data();
    p.kv_index = kv_index.data();
    p.n = n;
    p.geometry = g;
    p.staging = {pages.data(), num_pages};
    cpu::StoreKv(p, pool);
  }

  Elements Prefill(ThreadPool& pool) {
    Elements out(g.dtype, int64_t{n} * g.num_q_heads * g.head_dim);
    out.Fill(NAN);
    PrefillAttentionParams p;
    p.qkv = qkv.data();
    p.kv_begin = kv_begin.data();
    p.kv_index = kv_index.data();
    p.n = n;
    p.geometry = g;
    p.staging = {pages.data(), num_pages};
    p.out = out.data();
    cpu::PrefillAttention(p, pool);
    return out;
  }

  // Whether a page of a KV head arrives between the halves of an attention.
  using Missing = std::function<bool(int32_t head, int32_t page)>;

  // Token i decoded over the pages of its own sequence up to itself, placed in shuffled slots with
  // NaN around; with `missing` in two halves, and NaN where pages are still on their way.
  Elements Decode(int32_t token, ThreadPool& pool, const Missing& missing = nullptr) {
    const int32_t begin = token - (kv_index[size_t(token)] - kv_begin[size_t(token)]);
    const int32_t position = token - begin;
    const int32_t count = position / g.page_tokens + 1;
    const int32_t num_slots = 2 * count * g.num_kv_heads;
    std::vector<int32_t> slots(static_cast<size_t>(num_slots));
    std::iota(slots.begin(), slots.end(), 0);
    Random random(11);
    for (size_t i = slots.size(); i > 1; --i)
      std::swap(slots[i - 1], slots[random.Below(uint32_t(i))]);

    Elements pool_pages(g.dtype, num_slots * g.page_elements());
    pool_pages.Fill(NAN);
    const int32_t max_list = count + 3;
    std::vector<int32_t> list(size_t(g.num_kv_heads * max_list), -1);
    std::vector<int32_t> list_len(size_t(g.num_kv_heads), count);
    const auto comes_late = [&](int32_t h, int32_t page) { return missing && missing(h, page); };
    const auto store = [&](bool late) {
      for (int32_t h = 0; h < g.num_kv_heads; ++h) {
        for (int32_t t = 0; t <= position; ++t) {
          if (comes_late(h, t / g.page_tokens) != late) continue;
          const int64_t page = slots[size_t(h * count + t / g.page_tokens)];
          const int64_t k = int64_t{begin + t} * row + (g.num_q_heads + h) * g.head_dim;
          for (int32_t c = 0; c < g.head_dim; ++c) {
            const int64_t at = page * g.page_elements() + c;
            pool_pages.Set(at + g.KeyOffset(t % g.page_tokens), qkv[k + c]);
            pool_pages.Set(at + g.ValueOffset(t % g.page_tokens),
                           qkv[k + g.num_kv_heads * g.head_dim + c]);
          }
        }
      }
    };
    std::vector<int32_t> ready(size_t(g.num_kv_heads), 0);
    for (int32_t h = 0; h < g.num_kv_heads; ++h) {
      int32_t* next = list.data() + h * max_list;
      for (const bool late : {false, true}) {
        for (int32_t i = 0; i < count; ++i) {
          if (comes_late(h, i) == late) *next++ = slots[size_t(h * count + i)];
        }
      }
      for (int32_t t = 0; t <= position; ++t) ready[size_t(h)] += !comes_late(h, t / g.page_tokens);
    }
    store(false);
    const int32_t num_rows = 1;
    const int32_t table_row = 2;
    std::vector<int32_t> positions = {-1, -1, position};
    Elements out(g.dtype, int64_t{g.num_q_heads} * g.head_dim);
    out.Fill(NAN);
    PagedAttentionParams p;
    p.decode = {
        .max_batch = 1, .num_rows = &num_rows, .rows = &table_row, .position = positions.data()};
    p.qkv = static_cast<const char*>(qkv.data()) + int64_t{token} * row * SizeOf(g.dtype);
    p.tables.geometry = g;
    p.tables.slots = pool_pages.data();
    p.page_list = list.data();
    p.list_len = list_len.data();
    p.max_list = max_list;
    p.out = out.data();
    std::vector<float> partial(size_t(g.num_q_heads * (g.head_dim + 2)), NAN);
    if (missing) {
      p.part = ListPart::kReady;
      p.ready_tokens = ready.data();
      p.partial = partial.data();
      cpu::PagedAttention(p, pool);
      store(true);
      p.part = ListPart::kFetched;
    }
    cpu::PagedAttention(p, pool);
    return out;
  }

  std::vector<double> Reference() const {
    std::vector<double> out;
    for (int32_t i = 0; i < n; ++i) {
      const int32_t first = i - (kv_index[size_t(i)] - kv_begin[size_t(i)]);
      for (int32_t h = 0; h < g.num_q_heads; ++h) {
        const int64_t k_at = (g.num_q_heads + h / g.group()) * g.head_dim;
        std::vector<double> weight;
        for (int32_t t = first; t <= i; ++t) {
          double dot = 0;
          for (int32_t c = 0; c < g.head_dim; ++c) {
            dot += double{qkv[int64_t{i} * row + h * g.head_dim + c]} *
                   qkv[int64_t{t} * row + k_at + c];
          }
          weight.push_back(dot / std::sqrt(double(g.head_dim)));
        }
        const double max = *std::max_element(weight.begin(), weight.end());
        double sum = 0;
        for (double& w : weight) sum += w = std::exp(w - max);
        for (int32_t c = 0; c < g.head_dim; ++c) {
          double value = 0;
          for (int32_t t = first; t <= i; ++t) {
            value += weight[size_t(t - first)] *
                     qkv[int64_t{t} * row + k_at + g.num_kv_heads * g.head_dim + c];
          }
          out.push_back(value / sum);
        }
      }
    }
    return out;
  }

  KvGeometry g;
  std::vector<int32_t> lengths, kv_begin, kv_index;
  int32_t num_pages = 0, n = 0, row = 0;
  Elements qkv{DType::kF32, 0}, pages{DType::kF32, 0};
};

// Twice the error of rounding every input and output to the type.
double AttentionTolerance(DType dtype) {
  return dtype == DType::kF32 ? 5e-6 : 1e-2;
}

TEST_CASE(
    "prefill attention equals softmax in double for every grouping, head size and page size") {
  ThreadPool pool(2);
  for (const DType dtype : {DType::kF32, DType::kBf16}) {
    for (const Heads heads :
         {Heads{1, 1, 64}, Heads{4, 2, 64}, Heads{6, 2, 128}, Heads{8, 1, 64}, Heads{9, 1, 64}}) {
      for (const int32_t page_tokens : {8, 16, 64}) {
        Batch batch(heads, page_tokens, dtype, {1, 37, 16, 65});
        const std::vector<double> expected = batch.Reference();
        ForEachIsa([&](cpu::Isa) {
          INFO(NameOf(dtype) << " " << heads.q << "/" << heads.kv << " x " << heads.d
                             << ", pages of " << page_tokens);
          CHECK(testing::RelativeError(batch.Prefill(pool), expected) < AttentionTolerance(dtype));
        });
      }
    }
  }
}

TEST_CASE("prefill attention of no tokens is no work") {
  ThreadPool pool(2);
  Batch batch({4, 2, 64}, 16, DType::kBf16, {});
  CHECK(batch.Prefill(pool).size() == 0);
}

TEST_CASE("long prompts and large scores stay exact") {
  ThreadPool pool(2);
  for (const DType dtype : {DType::kF32, DType::kBf16}) {
    Batch batch({3, 1, 64}, 16, dtype, {333}, 4);
    const std::vector<double> expected = batch.Reference();
    ForEachIsa([&](cpu::Isa) {
      CHECK(testing::RelativeError(batch.Prefill(pool), expected) < AttentionTolerance(dtype));
    });
  }
}

TEST_CASE("decode equals softmax in double") {
  ThreadPool pool(2);
  for (const DType dtype : {DType::kF32, DType::kBf16}) {
    for (const Heads heads : {Heads{9, 3, 64}, Heads{5, 1, 128}}) {
      Batch batch(heads, 8, dtype, {90});
      const std::vector<double> all = batch.Reference();
      const int64_t width = heads.q * heads.d;
      for (const int32_t token : {0, 7, 8, 15, 16, 17, 89}) {
        const std::vector<double> expected(all.begin() + token * width,
                                           all.begin() + (token + 1) * width);
        ForEachIsa([&](cpu::Isa) {
          CHECK(testing::RelativeError(batch.Decode(token, pool), expected) <
                AttentionTolerance(dtype));
        });
      }
    }
  }
}

TEST_CASE("attention in two halves equals softmax in double, whatever arrives late") {
  ThreadPool pool(2);
  const DType dtype = GENERATE(DType::kF32, DType::kBf16);
  for (const Heads heads : {Heads{9, 3, 64}, Heads{5, 1, 128}}) {
    for (const int32_t page_tokens : {8, 16, 32}) {
      Batch batch(heads, page_tokens, dtype, {200});
      const std::vector<double> all = batch.Reference();
      const int64_t width = heads.q * heads.d;
      for (const int32_t token : {0, 7, 33, 95, 199}) {
        const std::vector<double> expected(all.begin() + token * width,
                                           all.begin() + (token + 1) * width);
        const int32_t tail = token / page_tokens;
        const Elements whole = batch.Decode(token, pool);
        const auto check = [&](const Batch::Missing& missing) {
          ForEachIsa([&](cpu::Isa) {
            CHECK(testing::RelativeError(batch.Decode(token, pool, missing), expected) <
                  AttentionTolerance(dtype));
          });
        };
        check([](int32_t head, int32_t page) { return (page * 7 + head * 3) % 5 < 2; });
        check([=](int32_t head, int32_t page) { return page == tail || head == 0; });
        check([=](int32_t, int32_t page) { return page < tail; });
        CHECK(batch.Decode(token, pool, [](int32_t, int32_t) { return false; }) == whole);
        CHECK(batch.Decode(token, pool, [](int32_t, int32_t) { return true; }) == whole);
      }
    }
  }
}

TEST_CASE(
    "in float32 a token's attention has the same bits in prefill and decode, for every page size "
    "and grouping") {
  ThreadPool pool(2);
  for (const Heads heads : {Heads{9, 3, 64}, Heads{5, 1, 128}}) {
    ForEachIsa([&](cpu::Isa) {
      Batch first(heads, 64, DType::kF32, {70, 41});
      const Elements expected = first.Prefill(pool);
      const int64_t width = heads.q * heads.d;
      for (const int32_t page_tokens : {8, 16, 32, 64}) {
        Batch batch(heads, page_tokens, DType::kF32, {70, 41});
        CHECK(batch.Prefill(pool) == expected);
        for (const int32_t token : {0, 5, 15, 16, 63, 64, 69, 70, 110}) {
          const Elements decoded = batch.Decode(token, pool);
          INFO("pages of " << page_tokens << ", token " << token);
          REQUIRE(std::memcmp(decoded.data(),
                              static_cast<const float*>(expected.data()) + token * width,
                              size_t(width) * 4) == 0);
        }
      }
    });
  }
}

TEST_CASE("in bfloat16 neither page size nor packing nor threads change a token's bits") {
  ThreadPool pool(2);
  ThreadPool one(1);
  ForEachIsa([&](cpu::Isa) {
    Batch first({6, 2, 64}, 64, DType::kBf16, {150, 41});
    const Elements prefill = first.Prefill(one);
    const Elements decoded = first.Decode(149, one);
    for (const int32_t page_tokens : {8, 16, 32, 64}) {
      Batch batch({6, 2, 64}, page_tokens, DType::kBf16, {150, 41});
      CHECK(batch.Prefill(pool) == prefill);
      CHECK(batch.Decode(149, pool) == decoded);
    }
    // The first sequence alone, in pieces: its last 37 tokens as a prefill with a prefix.
    Batch alone({6, 2, 64}, 16, DType::kBf16, {150});
    alone.kv_begin.erase(alone.kv_begin.begin(), alone.kv_begin.begin() + 113);
    alone.kv_index.erase(alone.kv_index.begin(), alone.kv_index.begin() + 113);
    Elements rest(DType::kBf16, int64_t{37} * alone.row);
    for (int64_t i = 0; i < rest.size(); ++i) rest.Set(i, alone.qkv[int64_t{113} * alone.row + i]);
    alone.qkv = rest;
    alone.n = 37;
    const Elements tail = alone.Prefill(pool);
    CHECK(std::memcmp(tail.data(), static_cast<const uint16_t*>(prefill.data()) + 113 * 6 * 64,
                      37 * 6 * 64 * 2) == 0);
  });
}

}  // namespace
}  // namespace spin
