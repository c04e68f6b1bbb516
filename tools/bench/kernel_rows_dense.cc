// Rows of spin_bench kernels: the dense families at Qwen3-8B's sizes.
#include <absl/strings/str_format.h>

#include <algorithm>

#include "common/math.h"
#include "tools/bench/kernel_bench.h"
#include "tools/bench/kernel_shapes.h"

namespace spin::bench {
namespace {

KernelRow GemmRow(const std::string& name, int32_t m, int32_t n, int32_t k, bool to_residual,
                  BenchMemory& memory) {
  const int64_t bytes = int64_t{n} * k * 2;
  const int64_t copies = CopiesFor(bytes);
  const uint16_t* weights = memory.RandomBf16(int64_t{n} * k * copies);
  const uint16_t* a = memory.RandomBf16(int64_t{m} * k);
  void* c = memory.RandomFloats(int64_t{m} * n);
  KernelRow row;
  row.name = name;
  row.ceiling = m > 256 ? Ceiling::kProduct : Ceiling::kCopy;
  row.amount = m > 256 ? 2.0 * m * n * k : static_cast<double>(bytes);
  row.calls_a_sample = m > 256 ? 1 : 16;
  row.call = [=, &memory](int64_t i) {
    GemmParams p;
    p.a = a;
    p.lda = k;
    p.w = {weights + (i % copies) * n * k, n, k, DType::kBf16};
    p.m = m;
    p.c = c;
    p.ldc = n;
    p.c_dtype = to_residual || n == kVocab ? DType::kF32 : DType::kBf16;
    p.accumulate = to_residual;
    memory.backend().ops->Gemm(p, memory.stream());
  };
  return row;
}

KernelRow RmsNormRow(const std::string& name, int32_t n, BenchMemory& memory) {
  const int64_t copies = CopiesFor(int64_t{n} * kHidden * 6);
  const float* in = memory.RandomFloats(copies * n * kHidden);
  const float* weight = memory.RandomFloats(kHidden);
  uint16_t* out = memory.RandomBf16(copies * n * kHidden);
  return {name, Ceiling::kCopy, 6.0 * n * kHidden, 16, [=, &memory](int64_t i) {
            const int64_t at = i % copies * n * kHidden;
            memory.backend().ops->RmsNorm({.in = in + at,
                                           .weight = weight,
                                           .eps = 1e-6f,
                                           .n = n,
                                           .hidden = kHidden,
                                           .out = out + at},
                                          memory.stream());
          }};
}

KernelRow SiluRow(const std::string& name, int32_t n, BenchMemory& memory) {
  const int64_t copies = CopiesFor(int64_t{n} * kIntermediate * 6);
  const uint16_t* in = memory.RandomBf16(copies * n * 2 * kIntermediate);
  uint16_t* out = memory.RandomBf16(copies * n * kIntermediate);
  return {name, Ceiling::kCopy, 6.0 * n * kIntermediate, 16, [=, &memory](int64_t i) {
            const int64_t at = i % copies * n * kIntermediate;
            memory.backend().ops->SiluMul(
                {.gate_up = in + 2 * at, .out = out + at, .n = n, .width = kIntermediate},
                memory.stream());
          }};
}

KernelRow RopeRow(const std::string& name, int32_t n, BenchMemory& memory) {
  const int64_t copies = CopiesFor(int64_t{n} * kQkv * 4);
  uint16_t* qkv = memory.RandomBf16(copies * n * kQkv);
  const float* table = memory.RandomFloats(int64_t{n} * kHeadDim);
  const float* norm = memory.RandomFloats(kHeadDim);
  std::vector<int32_t> positions(static_cast<size_t>(n));
  for (int32_t i = 0; i < n; ++i) positions[static_cast<size_t>(i)] = i;
  const int32_t* on_device = memory.Ints(positions);
  const double bytes = 4.0 * n * (kQHeads + kKvHeads) * kHeadDim;
  return {name, Ceiling::kCopy, bytes, 16, [=, &memory](int64_t i) {
            RopeParams p;
            p.qkv = qkv + i % copies * n * kQkv;
            p.n = n;
            p.positions = on_device;
            p.num_q_heads = kQHeads;
            p.num_kv_heads = kKvHeads;
            p.head_dim = kHeadDim;
            p.q_norm = norm;
            p.k_norm = norm;
            p.eps = 1e-6f;
            p.table = table;
            memory.backend().ops->Rope(p, memory.stream());
          }};
}

// A tile of `n` queries behind `prefix` tokens.
KernelRow PrefillRow(const std::string& name, int32_t n, int32_t prefix, bool portable,
                     BenchMemory& memory) {
  const KvGeometry g = Geometry(64, 1, 1);
  const int32_t num_pages = CeilDiv(prefix + n, g.page_tokens);
  const uint16_t* qkv = memory.RandomBf16(int64_t{n} * kQkv);
  uint16_t* pages = memory.RandomBf16(kKvHeads * num_pages * g.page_elements());
  uint16_t* out = memory.RandomBf16(int64_t{n} * kQHeads * kHeadDim);
  std::vector<int32_t> index(static_cast<size_t>(n));
  for (int32_t i = 0; i < n; ++i) index[static_cast<size_t>(i)] = prefix + i;
  const int32_t* kv_index = memory.Ints(index);
  const int32_t* kv_begin = memory.Ints(std::vector<int32_t>(static_cast<size_t>(n), 0));
  const auto segment =
      std::make_shared<PrefillSegment>(PrefillSegment{.num_tokens = n, .kv_tokens = prefix + n});
  const double keys = static_cast<double>(n) * prefix + 0.5 * n * (n + 1.0);
  return {name, Ceiling::kProduct, 4.0 * kQHeads * kHeadDim * keys, 1, [=, &memory](int64_t) {
            memory.backend().ops->PrefillAttention({.qkv = qkv,
                                                    .kv_begin = kv_begin,
                                                    .kv_index = kv_index,
                                                    .n = n,
                                                    .geometry = g,
                                                    .staging = {pages, num_pages},
                                                    .out = out,
                                                    .segments = portable ? nullptr : segment.get(),
                                                    .num_segments = portable ? 0 : 1},
                                                   memory.stream());
          }};
}

KernelRow StoreRow(const std::string& name, int32_t n, BenchMemory& memory) {
  const KvGeometry g = Geometry(64, 1, 1);
  const int32_t num_pages = CeilDiv(n, g.page_tokens);
  const uint16_t* qkv = memory.RandomBf16(int64_t{n} * kQkv);
  uint16_t* pages = memory.RandomBf16(kKvHeads * num_pages * g.page_elements());
  std::vector<int32_t> index(static_cast<size_t>(n));
  for (int32_t i = 0; i < n; ++i) index[static_cast<size_t>(i)] = i;
  const int32_t* kv_index = memory.Ints(index);
  const double bytes = 2.0 * 2 * 2 * n * kKvHeads * kHeadDim;
  return {name, Ceiling::kCopy, bytes, 8, [=, &memory](int64_t) {
            memory.backend().ops->StoreKv({.qkv = qkv,
                                           .kv_index = kv_index,
                                           .n = n,
                                           .geometry = g,
                                           .staging = {pages, num_pages}},
                                          memory.stream());
          }};
}

// A Tiered prompt's pages go to the host; 256 a head stay.
KernelRow OffloadRow(const std::string& name, int32_t n, BenchMemory& memory) {
  constexpr int32_t kSlots = 256;
  const KvGeometry g = Geometry(16, 1, CeilDiv(n, kExtentTokens));
  const int32_t num_pages = CeilDiv(n, g.page_tokens);
  OffloadParams p;
  p.slices = memory.Ints(std::vector<PrefillSlice>{{.num_tokens = n}});
  p.num_slices = 1;
  p.tables = MakeTables(memory, g, 1, kSlots, false);
  p.tables.host_pages = memory.RandomPinned(g.max_extents * g.extent_bytes());
  p.tables.slots = memory.RandomBf16(g.max_extents * g.extent_bytes() / 2);
  p.staging = {memory.RandomBf16(kKvHeads * num_pages * g.page_elements()), num_pages};
  const double bytes = 2.0 * 2 * n * kKvHeads * kHeadDim;
  return {name, Ceiling::kLinkOut, bytes, 4,
          [=, &memory](int64_t) { memory.backend().ops->Offload(p, memory.stream()); }};
}

KernelRow SampleRow(const std::string& name, int32_t batch, bool greedy, BenchMemory& memory) {
  const float* logits = memory.RandomFloats(int64_t{batch} * kVocab);
  std::vector<SamplingRow> sampling(static_cast<size_t>(batch));
  for (SamplingRow& s : sampling) {
    s.temperature = greedy ? 0.0f : 0.6f;
    s.top_k = greedy ? 0 : 20;
    s.top_p = greedy ? 1.0f : 0.95f;
  }
  const SamplingRow* rows = memory.Ints(sampling);
  auto* out = static_cast<SampledToken*>(
      memory.RandomPinned(batch * static_cast<int64_t>(sizeof(SampledToken))));
  const DecodeRows decode = MakeDecodeRows(memory, std::vector<int32_t>(size_t(batch), 0));
  return {name, Ceiling::kCopy, 4.0 * batch * kVocab, 16, [=, &memory](int64_t) {
            memory.backend().ops->Sample(
                {.decode = decode, .logits = logits, .vocab = kVocab, .sampling = rows, .out = out},
                memory.stream());
          }};
}

}  // namespace

std::vector<KernelRowMaker> DenseKernelRows() {
  std::vector<KernelRowMaker> rows;
  const auto add = [&](const std::string& name, auto row, auto... args) {
    rows.push_back({name, [=](BenchMemory& memory) { return row(name, args..., memory); }});
  };
  struct Linear {
    const char* name;
    int32_t n, k;
    bool to_residual;
  };
  constexpr Linear kLinears[] = {{"qkv", kQkv, kHidden, false},
                                 {"o", kHidden, kQHeads * kHeadDim, true},
                                 {"gate_up", 2 * kIntermediate, kHidden, false},
                                 {"down", kHidden, kIntermediate, true},
                                 {"lm_head", kVocab, kHidden, false}};
  for (const int32_t m : {1, 8, 32, 64, 8192}) {
    for (const Linear& l : kLinears) {
      if (m > 64 && l.n == kVocab) continue;  // logits are made of last tokens alone
      add(absl::StrFormat("gemm %s m %d", l.name, m), GemmRow, m, l.n, l.k, l.to_residual);
    }
  }
  for (const int32_t prefix : {0, 24576, 57344, 122880}) {
    for (const bool portable : {false, true}) {
      add(absl::StrFormat("prefill_attention 8192 x %d%s", prefix + 8192,
                          portable ? " portable" : ""),
          PrefillRow, 8192, prefix, portable);
    }
  }
  for (const int32_t n : {1, 32, 8192}) {
    add(absl::StrFormat("rmsnorm n %d", n), RmsNormRow, n);
    add(absl::StrFormat("rope n %d", n), RopeRow, n);
    add(absl::StrFormat("silu_mul n %d", n), SiluRow, n);
  }
  add("store_kv n 8192", StoreRow, 8192);
  for (const int32_t n : {512, 32768}) add(absl::StrFormat("offload n %d", n), OffloadRow, n);
  for (const int32_t batch : {1, 32}) {
    add(absl::StrFormat("sample greedy batch %d", batch), SampleRow, batch, true);
    add(absl::StrFormat("sample drawn batch %d", batch), SampleRow, batch, false);
  }
  return rows;
}

}  // namespace spin::bench
