// Attention of decode and of prefill on the GPU against float64, and twice over: the same bits.
#include <cmath>

#include "tests/twin/twin_testing.h"

namespace spin::testing {
namespace {

struct PagedCase {
  DType dtype;
  int32_t d, group, page_tokens;
  std::vector<int32_t> tokens;  // of each place
};

// softmax(q k / sqrt(d)) v over tokens 0 .. n - 1, in double.
template <typename Key, typename Value>
std::vector<double> Attend(const Elements& q, int64_t at, int32_t d, int64_t n, Key key,
                           Value value) {
  std::vector<double> score(static_cast<size_t>(n)), out(static_cast<size_t>(d), 0.0);
  double max = -1e300, sum = 0;
  for (int64_t t = 0; t < n; ++t) {
    double dot = 0;
    for (int32_t c = 0; c < d; ++c) dot += double{q[at + c]} * key(t, c);
    score[size_t(t)] = dot / std::sqrt(double(d));
    max = std::max(max, score[size_t(t)]);
  }
  for (double& s : score) sum += s = std::exp(s - max);
  for (int64_t t = 0; t < n; ++t) {
    for (int32_t c = 0; c < d; ++c) out[size_t(c)] += score[size_t(t)] / sum * value(t, c);
  }
  return out;
}

// The cache of a case: slots in a shuffled order, NaN wherever no token is.
struct PagedCache {
  static constexpr int32_t kKv = 2;

  explicit PagedCache(const PagedCase& c)
      : test(c),
        places(static_cast<int32_t>(c.tokens.size())),
        g(SmallGeometry(c.dtype, c.d, c.page_tokens)),
        slots(c.dtype, 0),
        step({}, places) {
    g.num_kv_heads = kKv;
    g.num_q_heads = kKv * c.group;
    for (const int32_t n : c.tokens) max_list = std::max(max_list, CeilDiv(n, c.page_tokens));
    std::vector<int32_t> ids(static_cast<size_t>(places * kKv * max_list));
    std::iota(ids.begin(), ids.end(), 0);
    for (size_t i = ids.size(); i > 1; --i) std::swap(ids[i - 1], ids[random.Below(uint32_t(i))]);
    slots = Elements(c.dtype, int64_t(ids.size()) * g.page_elements());
    std::memset(slots.data(), 0xff, size_t(slots.size() * SizeOf(c.dtype)));
    list.assign(ids.size(), 1 << 30);
    for (int32_t b = 0; b < places; ++b) step.rows.push_back(places - 1 - b);
    step.count = places;
    for (int32_t b = 0; b < places; ++b) {
      const int32_t tokens = c.tokens[size_t(b)];
      step.position[size_t(step.rows[size_t(b)])] = tokens - 1;
      for (int32_t h = 0; h < kKv; ++h) Fill(b * kKv + h, tokens, ids);
    }
  }

  void Fill(int32_t stream, int32_t tokens, const std::vector<int32_t>& ids) {
    list_len.push_back(CeilDiv(tokens, g.page_tokens));
    for (int32_t t = 0; t < tokens; ++t) {
      const auto entry = size_t(int64_t{stream} * max_list + t / g.page_tokens);
      list[entry] = ids[entry];
      for (int32_t x = 0; x < g.head_dim; ++x) {
        slots.Set(At(stream, t, false) + x, 4 * random.Uniform() - 2);
        slots.Set(At(stream, t, true) + x, 2 * random.Uniform() - 1);
      }
    }
  }

  // Element of token t's key or value.
  int64_t At(int64_t stream, int64_t t, bool value) const {
    const auto in_page = static_cast<int32_t>(t % g.page_tokens);
    return list[size_t(stream * max_list + t / g.page_tokens)] * g.page_elements() +
           (value ? g.ValueOffset(in_page) : g.KeyOffset(in_page));
  }

  const PagedCase& test;
  Random random{7};
  int32_t places, max_list = 1;
  KvGeometry g;
  Elements slots;
  std::vector<int32_t> list, list_len;
  StepRows step;
};

void CheckPaged(const PagedCase& c) {
  INFO(NameOf(c.dtype) << " d " << c.d << " group " << c.group << " page " << c.page_tokens);
  Gpu& gpu = Gpu::Get();
  PagedCache cache(c);
  const KvGeometry& g = cache.g;
  const int64_t width = (g.num_q_heads + 2 * g.num_kv_heads) * int64_t{c.d};
  Elements qkv(c.dtype, (cache.places + 1) * width);
  Elements out(c.dtype, (cache.places + 1) * int64_t{g.num_q_heads} * c.d);
  qkv.Randomize(cache.random, 2);
  out.Fill(-9);
  const ElementsOnDevice slots(cache.slots), qkv_device(qkv), first(out), second(out);
  const OnDevice<int32_t> list(cache.list), list_len(cache.list_len);
  const RowsOnDevice rows(cache.step, cache.places + 1);
  PagedAttentionParams p;
  p.decode = rows.view();
  p.qkv = qkv_device.data();
  p.tables.geometry = g;
  p.tables.slots = slots.data();
  p.page_list = list.data();
  p.list_len = list_len.data();
  p.max_list = cache.max_list;
  p.out = first.data();
  gpu.ops().PagedAttention(p, gpu.stream());
  p.out = second.data();
  gpu.ops().PagedAttention(p, gpu.stream());
  gpu.Finish();
  const Elements got = first.Read();
  CHECK(got == second.Read());
  std::vector<double> expected;
  for (int32_t b = 0; b < cache.places; ++b) {
    for (int32_t head = 0; head < g.num_q_heads; ++head) {
      const int64_t stream = b * g.num_kv_heads + head / c.group;
      const auto at = [&](int64_t t, bool value, int32_t x) {
        return double{cache.slots[cache.At(stream, t, value) + x]};
      };
      const std::vector<double> row = Attend(
          qkv, b * width + int64_t{head} * c.d, c.d, c.tokens[size_t(b)],
          [&](int64_t t, int32_t x) { return at(t, false, x); },
          [&](int64_t t, int32_t x) { return at(t, true, x); });
      expected.insert(expected.end(), row.begin(), row.end());
    }
  }
  CHECK(RelativeError(got, expected) <= (c.dtype == DType::kF32 ? 1e-5 : 1e-2));
  CHECK(got[int64_t(expected.size())] == -9);  // the place past the count
}

TEST_CASE("paged attention equals float64 over pages of every size, lengths at their edges") {
  for (const DType dtype : {DType::kF32, DType::kBf16}) {
    for (const int32_t d : {64, 128}) {
      for (const int32_t page : {8, 16, 32, 64}) {
        for (const int32_t group : {1, 3, 4, 8})
          CheckPaged({dtype, d, group, page, {1, page - 1, page, page + 1, 130, 517}});
      }
    }
  }
  CheckPaged({DType::kBf16, 128, 4, 64, {4000, 1, 2300}});
  CheckPaged({DType::kBf16, 128, 5, 16, {2048, 2047}});
}

TEST_CASE("prefill attention of packed sequences equals float64, whatever the tile") {
  const DType dtype = GENERATE(DType::kF32, DType::kBf16);
  const int32_t d = GENERATE(64, 128);
  const int32_t group = GENERATE(1, 3, 4);
  INFO(NameOf(dtype) << " d " << d << " group " << group);
  constexpr int32_t kKv = 2, kPage = 16;
  Gpu& gpu = Gpu::Get();
  Random random(11);
  KvGeometry g = SmallGeometry(dtype, d, kPage);
  g.num_kv_heads = kKv;
  g.num_q_heads = kKv * group;
  std::vector<int32_t> kv_begin, kv_index;
  int32_t page = 1;
  for (const int32_t length : {1, 17, 64, 128, 129, 300}) {
    for (int32_t t = 0; t < length; ++t) {
      kv_begin.push_back(page * kPage);
      kv_index.push_back(page * kPage + t);
    }
    page += CeilDiv(length, kPage) + 1;  // pages that nobody writes lie between
  }
  const auto n = static_cast<int32_t>(kv_begin.size());
  const int64_t width = (g.num_q_heads + 2 * kKv) * int64_t{d};
  Elements qkv(dtype, n * width), out(dtype, int64_t{n} * g.num_q_heads * d);
  qkv.Randomize(random, 2);
  Elements poisoned(dtype, int64_t{kKv} * page * g.page_elements());
  std::memset(poisoned.data(), 0xff, size_t(poisoned.size() * SizeOf(dtype)));
  const ElementsOnDevice staging(poisoned), qkv_device(qkv), out_device(out);
  const OnDevice<int32_t> begin_device(kv_begin), index_device(kv_index);
  const auto act = SizeOf(dtype);
  for (int32_t at = 0; at < n; at += 200) {  // tiles cut sequences where they please
    const int32_t count = std::min(200, n - at);
    const void* tile = static_cast<const char*>(qkv_device.data()) + at * width * act;
    gpu.ops().StoreKv({.qkv = tile,
                       .kv_index = index_device.data() + at,
                       .n = count,
                       .geometry = g,
                       .staging = {staging.data(), page}},
                      gpu.stream());
    gpu.ops().PrefillAttention(
        {.qkv = tile,
         .kv_begin = begin_device.data() + at,
         .kv_index = index_device.data() + at,
         .n = count,
         .geometry = g,
         .staging = {staging.data(), page},
         .out = static_cast<char*>(out_device.data()) + int64_t{at} * g.num_q_heads * d * act},
        gpu.stream());
  }
  gpu.Finish();
  std::vector<double> expected;
  for (int32_t i = 0; i < n; ++i) {
    const int32_t first = i - (kv_index[size_t(i)] - kv_begin[size_t(i)]);
    for (int32_t head = 0; head < g.num_q_heads; ++head) {
      const int64_t kv = int64_t{g.num_q_heads + head / group} * d;
      const std::vector<double> row = Attend(
          qkv, i * width + int64_t{head} * d, d, i - first + 1,
          [&](int64_t t, int32_t x) { return double{qkv[(first + t) * width + kv + x]}; },
          [&](int64_t t, int32_t x) {
            return double{qkv[(first + t) * width + kv + kKv * d + x]};
          });
      expected.insert(expected.end(), row.begin(), row.end());
    }
  }
  CHECK(RelativeError(out_device.Read(), expected) <= (dtype == DType::kF32 ? 1e-5 : 1e-2));
}

}  // namespace
}  // namespace spin::testing
