#include "tools/bench/micro_rows.h"

#include <absl/strings/str_format.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "common/random.h"
#include "kernels/cpu/families.h"
#include "kernels/cpu/pack_weight.h"

namespace spin::bench {
namespace {

// SmolLM2-135M.
constexpr int32_t kHidden = 576;
constexpr int32_t kIntermediate = 1536;
constexpr int32_t kQHeads = 9;
constexpr int32_t kKvHeads = 3;
constexpr int32_t kHeadDim = 64;
constexpr int32_t kQkv = (kQHeads + 2 * kKvHeads) * kHeadDim;
constexpr int32_t kVocab = 49152;

// More than any last-level cache here, so that a copy is gone before its turn comes again.
constexpr int64_t kColdBytes = int64_t{160} << 20;

using Bf16s = std::vector<uint16_t>;

Bf16s RandomBf16(int64_t n) {
  Random random(1);
  Bf16s values(static_cast<size_t>(n));
  for (uint16_t& v : values) v = FloatToBf16(2 * random.Uniform() - 1);
  return values;
}

int64_t Copies(int64_t bytes) {
  return std::clamp<int64_t>(kColdBytes / bytes, 1, 4096);
}

MicroRow GemmRow(const std::string& name, int32_t m, int32_t n, int32_t k, ThreadPool& pool) {
  struct Data {
    std::vector<Bf16s> weights;
    Bf16s a;
    std::vector<float> c;
  };
  auto data = std::make_shared<Data>();
  const int64_t bytes = cpu::PackedWeightBytes(n, k, DType::kBf16);
  for (int64_t i = 0; i < Copies(bytes); ++i)
    data->weights.push_back(RandomBf16(i == 0 ? bytes / 2 : 0));
  for (Bf16s& weight : data->weights) weight = data->weights[0];
  data->a = RandomBf16(int64_t{m} * k);
  data->c.resize(size_t(m) * size_t(n));
  MicroRow row;
  row.name = name;
  row.bytes = double(bytes);
  row.flops = 2.0 * m * n * k;
  row.call = [=, &pool](int64_t i) {
    GemmParams p;
    p.a = data->a.data();
    p.lda = k;
    p.w = {data->weights[size_t(i) % data->weights.size()].data(), n, k, DType::kBf16};
    p.m = m;
    p.c = data->c.data();
    p.ldc = n;
    cpu::Gemm(p, pool);
  };
  return row;
}

MicroRow RmsNormRow(const std::string& name, int32_t n, ThreadPool& pool) {
  auto in = std::make_shared<std::vector<float>>(size_t(n) * kHidden, 1.0f);
  auto weight = std::make_shared<std::vector<float>>(kHidden, 1.0f);
  auto out = std::make_shared<Bf16s>(size_t(n) * kHidden);
  return {
      name, 0, 4.0 * n * kHidden, [=, &pool](int64_t) {
        RmsNormParams p = {
            .in = in->data(), .weight = weight->data(), .eps = 1e-5f, .n = n, .hidden = kHidden};
        p.out = out->data();
        cpu::RmsNorm(p, pool);
      }};
}

MicroRow SiluRow(const std::string& name, int32_t n, ThreadPool& pool) {
  auto in = std::make_shared<Bf16s>(RandomBf16(int64_t{n} * 2 * kIntermediate));
  auto out = std::make_shared<Bf16s>(size_t(n) * kIntermediate);
  // An exponential, a division: about 20 operations an element.
  return {name, 0, 20.0 * n * kIntermediate, [=, &pool](int64_t) {
            SiluMulParams p = {
                .gate_up = in->data(), .out = out->data(), .n = n, .width = kIntermediate};
            cpu::SiluMul(p, pool);
          }};
}

MicroRow RopeRow(const std::string& name, int32_t n, ThreadPool& pool) {
  auto qkv = std::make_shared<Bf16s>(RandomBf16(int64_t{n} * kQkv));
  auto table = std::make_shared<std::vector<float>>(size_t(n) * kHeadDim, 0.5f);
  auto positions = std::make_shared<std::vector<int32_t>>(size_t(n));
  for (int32_t i = 0; i < n; ++i) (*positions)[size_t(i)] = i;
  return {name, 0, 3.0 * n * (kQHeads + kKvHeads) * kHeadDim, [=, &pool](int64_t) {
            RopeParams p;
            p.qkv = qkv->data();
            p.n = n;
            p.positions = positions->data();
            p.num_q_heads = kQHeads;
            p.num_kv_heads = kKvHeads;
            p.head_dim = kHeadDim;
            p.table = table->data();
            cpu::Rope(p, pool);
          }};
}

KvGeometry Geometry(int32_t page_tokens) {
  KvGeometry g;
  g.num_layers = 1;
  g.num_kv_heads = kKvHeads;
  g.num_q_heads = kQHeads;
  g.head_dim = kHeadDim;
  g.page_tokens = page_tokens;
  return g;
}

MicroRow PrefillRow(const std::string& name, int32_t n, ThreadPool& pool) {
  struct Data {
    Bf16s qkv, pages, out;
    std::vector<int32_t> kv_begin, kv_index;
  };
  const KvGeometry g = Geometry(64);
  const int32_t num_pages = (n + g.page_tokens - 1) / g.page_tokens;
  auto data = std::make_shared<Data>();
  data->qkv = RandomBf16(int64_t{n} * kQkv);
  data->pages = RandomBf16(int64_t{kKvHeads} * num_pages * g.page_elements());
  data->out.resize(size_t(n) * kHidden);
  data->kv_begin.assign(size_t(n), 0);
  for (int32_t i = 0; i < n; ++i) data->kv_index.push_back(i);
  // Two products of the head dimension for each query head and key at or before the token.
  const double flops = 4.0 * kQHeads * kHeadDim * (0.5 * n * (n + 1));
  return {name, 0, flops, [=, &pool](int64_t) {
            PrefillAttentionParams p;
            p.qkv = data->qkv.data();
            p.kv_begin = data->kv_begin.data();
            p.kv_index = data->kv_index.data();
            p.n = n;
            p.geometry = g;
            p.staging = {data->pages.data(), num_pages};
            p.out = data->out.data();
            cpu::PrefillAttention(p, pool);
          }};
}

MicroRow PagedRow(const std::string& name, int32_t batch, int32_t context, ThreadPool& pool) {
  struct Data {
    Bf16s qkv, pages, out;
    std::vector<int32_t> rows, position, list_len;
    std::vector<std::vector<int32_t>> lists;
    int32_t num_rows;
  };
  const KvGeometry g = Geometry(16);
  auto data = std::make_shared<Data>();
  data->num_rows = batch;
  const int32_t pages = (context + g.page_tokens - 1) / g.page_tokens;
  const int64_t call_pages = int64_t{batch} * kKvHeads * pages;
  const int64_t copies = Copies(call_pages * g.page_bytes());
  data->qkv = RandomBf16(int64_t{batch} * kQkv);
  data->pages = RandomBf16(call_pages * copies * g.page_elements());
  data->out.resize(size_t(batch) * kHidden);
  for (int32_t b = 0; b < batch; ++b) {
    data->rows.push_back(b);
    data->position.push_back(context - 1);
  }
  data->list_len.assign(size_t(batch) * kKvHeads, pages);
  for (int64_t copy = 0; copy < copies; ++copy) {
    std::vector<int32_t>& list = data->lists.emplace_back();
    for (int64_t i = 0; i < call_pages; ++i)
      list.push_back(static_cast<int32_t>(copy * call_pages + i));
  }
  const double tokens = double(batch) * context;
  return {name, tokens * kKvHeads * kHeadDim * 4, 4.0 * tokens * kQHeads * kHeadDim,
          [=, &pool](int64_t i) {
            PagedAttentionParams p;
            p.decode = {.max_batch = batch, .num_rows = &data->num_rows, .rows = data->rows.data()};
            p.decode.position = data->position.data();
            p.qkv = data->qkv.data();
            p.tables.geometry = g;
            p.tables.slots = data->pages.data();
            p.page_list = data->lists[size_t(i) % data->lists.size()].data();
            p.list_len = data->list_len.data();
            p.max_list = pages;
            p.out = data->out.data();
            cpu::PagedAttention(p, pool);
          }};
}

MicroRow StoreRow(const std::string& name, int32_t n, ThreadPool& pool) {
  const KvGeometry g = Geometry(16);
  const int32_t num_pages = n / g.page_tokens + 1;
  auto qkv = std::make_shared<Bf16s>(RandomBf16(int64_t{n} * kQkv));
  auto pages = std::make_shared<Bf16s>(size_t(kKvHeads * num_pages * g.page_elements()));
  auto index = std::make_shared<std::vector<int32_t>>();
  for (int32_t i = 0; i < n; ++i) index->push_back(i);
  return {name, 4.0 * n * 2 * kKvHeads * kHeadDim, 0, [=, &pool](int64_t) {
            StoreKvParams p;
            p.qkv = qkv->data();
            p.kv_index = index->data();
            p.n = n;
            p.geometry = g;
            p.staging = {pages->data(), num_pages};
            cpu::StoreKv(p, pool);
          }};
}

// One pass of `m` tokens through all layers and the logits, attention left out: what the kernels cost back to back,
// with the waits between them.
MicroRow StepRow(const std::string& name, int32_t m, ThreadPool& pool) {
  constexpr int kLayers = 30;
  struct Linear {
    Bf16s weight;
    int32_t n, k;
  };
  struct Data {
    std::vector<Linear> linears;
    Bf16s act;
    std::vector<float> residual, norm, wide;
  };
  auto data = std::make_shared<Data>();
  double bytes = 0;
  const auto add = [&](int32_t n, int32_t k) {
    const int64_t size = cpu::PackedWeightBytes(n, k, DType::kBf16);
    data->linears.push_back({Bf16s(size_t(size / 2), 0x3c00), n, k});
    bytes += double(size);
  };
  for (int layer = 0; layer < kLayers; ++layer) {
    add(kQkv, kHidden);
    add(kHidden, kHidden);
    add(2 * kIntermediate, kHidden);
    add(kHidden, kIntermediate);
  }
  add(kVocab, kHidden);
  data->act.resize(size_t(m) * 2 * kIntermediate);
  data->residual.resize(size_t(m) * kHidden, 1.0f);
  data->norm.resize(kHidden, 0.01f);
  data->wide.resize(size_t(m) * kVocab);
  return {name, bytes, bytes * m, [=, &pool](int64_t) {
            for (const Linear& linear : data->linears) {
              const bool to_residual = linear.n == kHidden;
              if (!to_residual) {
                RmsNormParams norm;
                norm.in = data->residual.data();
                norm.weight = data->norm.data();
                norm.eps = 1e-5f;
                norm.n = m;
                norm.hidden = kHidden;
                norm.out = data->act.data();
                cpu::RmsNorm(norm, pool);
              }
              GemmParams p;
              p.a = data->act.data();
              p.lda = linear.k;
              p.w = {linear.weight.data(), linear.n, linear.k, DType::kBf16};
              p.m = m;
              p.c = to_residual ? data->residual.data() : data->wide.data();
              p.ldc = linear.n;
              p.c_dtype = to_residual || linear.n == kVocab ? DType::kF32 : DType::kBf16;
              p.accumulate = to_residual;
              cpu::Gemm(p, pool);
              if (linear.n == 2 * kIntermediate) {
                SiluMulParams silu;
                silu.gate_up = data->wide.data();
                silu.out = data->act.data();
                silu.n = m;
                silu.width = kIntermediate;
                cpu::SiluMul(silu, pool);
              }
            }
          }};
}

}  // namespace

std::vector<MicroRowMaker> MicroRows() {
  std::vector<MicroRowMaker> rows;
  const auto add = [&](const std::string& name, auto row, auto... args) {
    rows.push_back({name, [=](ThreadPool& pool) { return row(name, args..., pool); }});
  };
  rows.push_back({"thread pool: empty loop", [](ThreadPool& pool) {
                    return MicroRow{"thread pool: empty loop", 0, 0, [&pool](int64_t) {
                                      pool.ParallelFor(pool.num_threads(), 1,
                                                       [](int64_t, int64_t) {});
                                    }};
                  }});
  for (const int32_t m : {1, 16}) {
    add(absl::StrFormat("decode step without attention, batch %d", m), StepRow, m);
  }
  struct Linear {
    const char* name;
    int32_t n, k;
  };
  for (const int32_t m : {1, 4, 16, 512}) {
    for (const Linear& l :
         {Linear{"qkv", kQkv, kHidden}, Linear{"o", kHidden, kHidden},
          Linear{"gate_up", 2 * kIntermediate, kHidden}, Linear{"down", kHidden, kIntermediate},
          Linear{"lm_head", kVocab, kHidden}}) {
      if (m == 512 && l.n == kVocab) continue;  // logits are made of last tokens alone
      add(absl::StrFormat("gemm %s m %d", l.name, m), GemmRow, m, l.n, l.k);
    }
  }
  for (const int32_t n : {1, 512}) {
    add(absl::StrFormat("rmsnorm n %d", n), RmsNormRow, n);
    add(absl::StrFormat("rope n %d", n), RopeRow, n);
    add(absl::StrFormat("silu_mul n %d", n), SiluRow, n);
  }
  add("store_kv n 512", StoreRow, 512);
  add("prefill_attention n 512", PrefillRow, 512);
  add("prefill_attention n 4096", PrefillRow, 4096);
  add("paged_attention batch 1 context 512", PagedRow, 1, 512);
  add("paged_attention batch 1 context 4096", PagedRow, 1, 4096);
  add("paged_attention batch 16 context 1024", PagedRow, 16, 1024);
  return rows;
}

}  // namespace spin::bench
