// Paged attention on the GPU: the model's shape beside its CPU twin, and what must not change a row's bits.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <numeric>

#include "tests/twin/twin_testing.h"

namespace spin::testing {
namespace {

struct Heads {
  int32_t q, kv, d;
};

// Queries, keys and values of some sequences; drawn token by token, so that they depend on nothing else.
struct Sequences {
  Sequences(Heads heads, DType dtype, std::vector<int32_t> lengths)
      : heads(heads), dtype(dtype), lengths(std::move(lengths)) {
    for (size_t s = 0; s < this->lengths.size(); ++s) {
      Random random(100 + s);
      Elements query(dtype, int64_t{heads.q} * heads.d);
      query.Randomize(random, 2);
      Elements tokens(dtype, int64_t{this->lengths[s]} * TokenWidth());
      tokens.Randomize(random, 2);
      queries.push_back(query);
      kv.push_back(tokens);
    }
  }
  // Of one token: the keys of all KV heads, then their values.
  int64_t TokenWidth() const { return int64_t{2} * heads.kv * heads.d; }

  Heads heads;
  DType dtype;
  std::vector<int32_t> lengths;
  std::vector<Elements> queries, kv;
};

// A step over some of the sequences: which, in batch places' order, and all that must not matter.
struct Step {
  std::vector<int32_t> sequences;
  int32_t page_tokens;
  int32_t bucket;      // >= sequences
  int32_t more_pages;  // room of a list beyond the longest
  uint64_t seed;       // of where pages lie
};

// The arrays of a step. Memory that no list names, and the tail of a last page, is NaN.
struct StepArrays {
  StepArrays(const Sequences& all, const Step& step)
      : places(static_cast<int32_t>(step.sequences.size())), rows({}, step.bucket) {
    g.num_layers = 1;
    g.num_kv_heads = all.heads.kv;
    g.num_q_heads = all.heads.q;
    g.head_dim = all.heads.d;
    g.page_tokens = step.page_tokens;
    g.max_rows = step.bucket;
    g.max_extents = 1;
    g.dtype = all.dtype;
    int32_t pool = 3;
    for (const int32_t s : step.sequences) {
      const int32_t pages = CeilDiv(all.lengths[size_t(s)], step.page_tokens);
      max_list = std::max(max_list, pages + step.more_pages);
      pool += pages * g.num_kv_heads;
    }
    std::vector<int32_t> ids(static_cast<size_t>(pool));
    std::iota(ids.begin(), ids.end(), 0);
    Random random(step.seed);
    for (size_t i = ids.size(); i > 1; --i) std::swap(ids[i - 1], ids[random.Below(uint32_t(i))]);
    slots = Poisoned(g.dtype, pool * g.page_elements());
    qkv =
        Poisoned(g.dtype, int64_t{step.bucket} * (g.num_q_heads + 2 * g.num_kv_heads) * g.head_dim);
    list.assign(size_t(step.bucket) * g.num_kv_heads * max_list, 1 << 30);
    list_len.assign(size_t(step.bucket) * g.num_kv_heads, 1 << 30);
    for (int32_t b = 0; b < places; ++b) AddPlace(all, step.sequences[size_t(b)], b, ids);
    rows.count = places;
  }

  void AddPlace(const Sequences& all, int32_t sequence, int32_t place, std::vector<int32_t>& ids) {
    const int32_t length = all.lengths[size_t(sequence)];
    const int64_t width = int64_t{g.num_q_heads + 2 * g.num_kv_heads} * g.head_dim;
    const Elements& query = all.queries[size_t(sequence)];
    for (int64_t i = 0; i < query.size(); ++i) qkv.Set(place * width + i, query[i]);
    const Elements& kv = all.kv[size_t(sequence)];
    for (int32_t h = 0; h < g.num_kv_heads; ++h) {
      const int32_t stream = place * g.num_kv_heads + h;
      list_len[size_t(stream)] = CeilDiv(length, g.page_tokens);
      int32_t* pages = list.data() + int64_t{stream} * max_list;
      for (int32_t i = 0; i < list_len[size_t(stream)]; ++i) pages[i] = KvWorld::Take(ids);
      for (int32_t t = 0; t < length; ++t) {
        const int64_t page = pages[t / g.page_tokens] * g.page_elements();
        const int64_t token = t * all.TokenWidth() + int64_t{h} * g.head_dim;
        for (int32_t c = 0; c < g.head_dim; ++c) {
          slots.Set(page + g.KeyOffset(t % g.page_tokens) + c, kv[token + c]);
          slots.Set(page + g.ValueOffset(t % g.page_tokens) + c,
                    kv[token + int64_t{g.num_kv_heads} * g.head_dim + c]);
        }
      }
    }
    rows.rows.push_back(g.max_rows - 1 - place);
    rows.position[size_t(rows.rows.back())] = length - 1;
  }

  int32_t places;
  KvGeometry g;
  int32_t max_list = 0;
  Elements slots{DType::kF32, 0}, qkv{DType::kF32, 0};
  std::vector<int32_t> list, list_len;
  StepRows rows;
};

// Which pages of a stream arrive between the halves of an attention.
using Late = std::function<bool(int32_t stream, int32_t page)>;

// A step's lists with late pages behind the others, and the slots before those have arrived: NaN.
struct Halves {
  Halves(const StepArrays& a, const Late& late)
      : list(a.list), ready_tokens(a.list_len.size(), 1 << 30), early(a.slots) {
    const KvGeometry& g = a.g;
    for (int32_t stream = 0; stream < a.places * g.num_kv_heads; ++stream) {
      const int32_t row = a.rows.rows[size_t(stream / g.num_kv_heads)];
      const int32_t tokens = a.rows.position[size_t(row)] + 1;
      const int32_t* pages = a.list.data() + int64_t{stream} * a.max_list;
      int32_t* next = list.data() + int64_t{stream} * a.max_list;
      int32_t& ready = ready_tokens[size_t(stream)] = 0;
      for (const bool is_late : {false, true}) {
        for (int32_t i = 0; i < a.list_len[size_t(stream)]; ++i) {
          if (late(stream, i) != is_late) continue;
          *next++ = pages[i];
          if (is_late) {
            std::memset(static_cast<char*>(early.data()) + pages[i] * g.page_bytes(), 0xff,
                        size_t(g.page_bytes()));
          } else {
            ready += std::min(tokens - i * g.page_tokens, g.page_tokens);
          }
        }
      }
    }
  }

  std::vector<int32_t> list, ready_tokens;
  Elements early;
};

// Elements of one place.
Elements Place(const Elements& out, int32_t place, int64_t width) {
  Elements one(out.dtype(), width);
  for (int64_t i = 0; i < width; ++i) one.Set(i, out[place * width + i]);
  return one;
}

// Attention in two halves.
void EnqueueHalves(const Halves& halves, PagedAttentionParams p) {
  Gpu& gpu = Gpu::Get();
  const ElementsOnDevice early(halves.early);
  const OnDevice<int32_t> list(halves.list), ready_tokens(halves.ready_tokens);
  void* slots = p.tables.slots;
  p.page_list = list.data();
  p.ready_tokens = ready_tokens.data();
  p.part = ListPart::kReady;
  p.tables.slots = early.data();
  gpu.ops().PagedAttention(p, gpu.stream());
  p.part = ListPart::kFetched;
  p.tables.slots = slots;
  gpu.ops().PagedAttention(p, gpu.stream());
  gpu.Finish();
}

// The step's output by sequence, from the GPU; with `late` in two halves. Places past the count must be as they were.
std::vector<Elements> OnGpu(const Sequences& all, const Step& step, const Late& late = nullptr) {
  const StepArrays a(all, step);
  Gpu& gpu = Gpu::Get();
  const int64_t width = int64_t{a.g.num_q_heads} * a.g.head_dim;
  Elements before(a.g.dtype, step.bucket * width);
  before.Fill(-9);
  const ElementsOnDevice slots(a.slots), qkv(a.qkv), out(before);
  const OnDevice<int32_t> list(a.list), list_len(a.list_len);
  const RowsOnDevice rows(a.rows, step.bucket);
  PagedAttentionParams p;
  p.decode = rows.view();
  p.qkv = qkv.data();
  p.tables.geometry = a.g;
  p.tables.slots = slots.data();
  p.page_list = list.data();
  p.list_len = list_len.data();
  p.max_list = a.max_list;
  p.out = out.data();
  if (late) {
    EnqueueHalves(Halves(a, late), p);
  } else {
    gpu.ops().PagedAttention(p, gpu.stream());
  }
  gpu.Finish();
  const Elements got = out.Read();
  for (int64_t i = a.places * width; i < got.size(); ++i) REQUIRE(got[i] == -9);
  std::vector<Elements> places;
  for (int32_t b = 0; b < a.places; ++b) places.push_back(Place(got, b, width));
  return places;
}

std::vector<Elements> OnCpu(const Sequences& all, const Step& step) {
  StepArrays a(all, step);
  const int64_t width = int64_t{a.g.num_q_heads} * a.g.head_dim;
  Elements out(a.g.dtype, a.places * width);
  PagedAttentionParams p;
  p.decode = a.rows.view();
  p.qkv = a.qkv.data();
  p.tables.geometry = a.g;
  p.tables.slots = a.slots.data();
  p.page_list = a.list.data();
  p.list_len = a.list_len.data();
  p.max_list = a.max_list;
  p.out = out.data();
  ThreadPool pool(2);
  cpu::PagedAttention(p, pool);
  std::vector<Elements> places;
  for (int32_t b = 0; b < a.places; ++b) places.push_back(Place(out, b, width));
  return places;
}

// Softmax attention of one sequence in double.
std::vector<double> Reference(const Sequences& all, int32_t sequence) {
  const Heads heads = all.heads;
  const Elements &query = all.queries[size_t(sequence)], &kv = all.kv[size_t(sequence)];
  const int32_t length = all.lengths[size_t(sequence)];
  std::vector<double> out;
  for (int32_t h = 0; h < heads.q; ++h) {
    const int64_t key = int64_t{h / (heads.q / heads.kv)} * heads.d;
    std::vector<double> weight(static_cast<size_t>(length));
    for (int32_t t = 0; t < length; ++t) {
      double dot = 0;
      for (int32_t c = 0; c < heads.d; ++c) {
        dot += double{query[int64_t{h} * heads.d + c]} * kv[t * all.TokenWidth() + key + c];
      }
      weight[size_t(t)] = dot / std::sqrt(double(heads.d));
    }
    const double max = *std::max_element(weight.begin(), weight.end());
    double sum = 0;
    for (double& w : weight) sum += w = std::exp(w - max);
    const int64_t value = int64_t{heads.kv} * heads.d + key;
    for (int32_t c = 0; c < heads.d; ++c) {
      double x = 0;
      for (int32_t t = 0; t < length; ++t) {
        x += weight[size_t(t)] / sum * kv[t * all.TokenWidth() + value + c];
      }
      out.push_back(x);
    }
  }
  return out;
}

TEST_CASE("paged attention of the model's shape is as near to float64 as its CPU twin") {
  const Sequences all({32, 8, 128}, DType::kBf16, {2048, 1000, 1});
  for (const int32_t page_tokens : {16, 64}) {
    const Step step = {{0, 1, 2}, page_tokens, 4, 0, 5};
    const std::vector<Elements> gpu = OnGpu(all, step), cpu = OnCpu(all, step);
    for (int32_t s = 0; s < 3; ++s) {
      INFO("pages of " << page_tokens << ", sequence " << s);
      const std::vector<double> expected = Reference(all, s);
      const double of_cpu = RelativeError(cpu[size_t(s)], expected);
      CHECK(RelativeError(gpu[size_t(s)], expected) <= std::max(2 * of_cpu, 5e-3));
    }
  }
}

// Lengths at the edges of pages and rounds, and a row of several parts.
void CheckEdges(Heads heads, DType dtype, int32_t page_tokens) {
  INFO(NameOf(dtype) << " " << heads.q << "/" << heads.kv << " x " << heads.d << ", pages of "
                     << page_tokens);
  const Sequences all(heads, dtype,
                      {1, page_tokens - 1, page_tokens, page_tokens + 1, 17, 128, 129, 517});
  const auto count = static_cast<int32_t>(all.lengths.size());
  std::vector<int32_t> sequences(all.lengths.size());
  std::iota(sequences.begin(), sequences.end(), 0);
  const std::vector<Elements> gpu = OnGpu(all, {sequences, page_tokens, count + 1, 2, 7});
  for (int32_t s = 0; s < count; ++s) {
    const double error = RelativeError(gpu[size_t(s)], Reference(all, s));
    CHECK(error <= (dtype == DType::kF32 ? 1e-5 : 1e-2));
  }
}

TEST_CASE("paged attention of every group and page size equals float64") {
  for (const int32_t d : {64, 128}) {
    for (const int32_t group : {1, 2, 3, 4, 5, 6, 7, 8}) {
      for (const int32_t page_tokens : {8, 16, 32, 64}) {
        CheckEdges({2 * group, 2, d}, DType::kBf16, page_tokens);
        CheckEdges({2 * group, 2, d}, DType::kF32, page_tokens);
      }
    }
  }
}

TEST_CASE(
    "paged attention in two halves equals float64, whatever is late; to the bit where nothing is") {
  for (const DType dtype : {DType::kBf16, DType::kF32}) {
    for (const Heads heads : {Heads{8, 2, 128}, Heads{3, 3, 64}, Heads{10, 2, 64}}) {
      const Sequences all(heads, dtype, {1, 16, 130, 2048, 700});
      std::vector<std::vector<double>> expected;
      for (int32_t s = 0; s < 5; ++s) expected.push_back(Reference(all, s));
      for (const int32_t page_tokens : {8, 16, 64}) {
        INFO(NameOf(dtype) << " " << heads.q << "/" << heads.kv << " x " << heads.d << ", pages of "
                           << page_tokens);
        const Step step = {{0, 1, 2, 3, 4}, page_tokens, 7, 3, 19};
        const auto is_tail = [&](int32_t stream, int32_t page) {
          return page == (all.lengths[size_t(stream / heads.kv)] - 1) / page_tokens;
        };
        const std::vector<Late> cases = {
            [](int32_t stream, int32_t page) { return (page * 7 + stream * 3) % 5 == 0; },
            [&](int32_t stream, int32_t page) { return is_tail(stream, page); },
            [&](int32_t stream, int32_t page) { return !is_tail(stream, page); },
            [](int32_t stream, int32_t) { return stream % 2 == 0; }};  // whole lists, or nothing
        for (size_t i = 0; i < cases.size(); ++i) {
          const std::vector<Elements> got = OnGpu(all, step, cases[i]);
          for (size_t s = 0; s < 5; ++s) {
            INFO("case " << i << ", sequence " << s);
            CHECK(RelativeError(got[s], expected[s]) <= (dtype == DType::kF32 ? 1e-5 : 1e-2));
          }
        }
        const Late nothing = [](int32_t, int32_t) { return false; };
        CHECK(OnGpu(all, step, nothing) == OnGpu(all, step));
      }
    }
  }
}

TEST_CASE("neither page size, places, batch, bucket nor room of the lists change a row's bits") {
  for (const DType dtype : {DType::kBf16, DType::kF32}) {
    for (const Heads heads : {Heads{8, 2, 128}, Heads{3, 3, 64}}) {
      // From one step of one warp to many parts of several rounds.
      const std::vector<int32_t> lengths = {1, 130, 500, 4000, 20000};
      const Sequences all(heads, dtype, lengths);
      std::vector<Elements> alone;
      for (int32_t s = 0; s < 5; ++s) alone.push_back(OnGpu(all, {{s}, 16, 1, 0, 3})[0]);
      const std::vector<Step> steps = {{{0, 1, 2, 3, 4}, 8, 5, 0, 11},
                                       {{4, 3, 2, 1, 0}, 16, 64, 3, 12},
                                       {{3, 1}, 32, 2, 700, 13},
                                       {{2, 4, 2}, 64, 40, 1, 14},
                                       {{4}, 64, 1, 0, 15},
                                       {{1, 0, 3}, 64, 3, 2000, 16},
                                       {{3, 2, 2, 2, 2, 2}, 16, 6, 0, 17}};
      for (const Step& step : steps) {
        const std::vector<Elements> got = OnGpu(all, step);
        for (size_t b = 0; b < step.sequences.size(); ++b) {
          const int32_t s = step.sequences[b];
          INFO(NameOf(dtype) << " " << heads.q << "/" << heads.kv << " x " << heads.d << ", "
                             << lengths[size_t(s)] << " tokens, step " << step.seed);
          CHECK(got[b] == alone[size_t(s)]);
        }
      }
    }
  }
}

TEST_CASE("a step of more places than one launch of paged attention takes") {
  // Heads that scratch has room for in 1,008 places.
  const Sequences all({64, 8, 128}, DType::kBf16, {1, 17, 120});
  std::vector<Elements> alone;
  for (int32_t s = 0; s < 3; ++s) alone.push_back(OnGpu(all, {{s}, 16, 1, 0, 3})[0]);
  std::vector<int32_t> sequences(1100);
  for (size_t b = 0; b < sequences.size(); ++b) sequences[b] = b % 400 == 399 ? 2 : int32_t(b % 2);
  for (const int32_t bucket : {1100, 2100}) {
    const std::vector<Elements> got = OnGpu(all, {sequences, 16, bucket, 0, 18});
    for (size_t b = 0; b < sequences.size(); ++b) {
      if (got[b] == alone[size_t(sequences[b])]) continue;
      FAIL("place " << b << " of " << bucket);
    }
  }
}

TEST_CASE("paged attention over a few pages, whole and in two halves", "[small]") {
  for (const DType dtype : {DType::kBf16, DType::kF32}) {
    const Sequences all({8, 2, 128}, dtype, {1, 17, 130});
    const Step step = {{0, 1, 2}, 16, 4, 0, 5};
    const Late late = [](int32_t stream, int32_t page) { return (page + stream) % 2 == 0; };
    const std::vector<Elements> whole = OnGpu(all, step), halves = OnGpu(all, step, late);
    for (int32_t s = 0; s < 3; ++s) {
      const std::vector<double> expected = Reference(all, s);
      CHECK(RelativeError(whole[size_t(s)], expected) <= (dtype == DType::kF32 ? 1e-5 : 1e-2));
      CHECK(RelativeError(halves[size_t(s)], expected) <= (dtype == DType::kF32 ? 1e-5 : 1e-2));
    }
  }
}

}  // namespace
}  // namespace spin::testing
