// ShadowKV's low-rank keys on the GPU. A basis is checked for what it spans, since two bases of one space have nothing
// else in common; factors and rebuilt keys against the CPU's from the same basis; what a gather moves bit for bit.
#include <cmath>

#include "tests/kernels/key_world.h"
#include "tests/twin/twin_testing.h"

namespace spin {
namespace {

using testing::Elements;
using testing::ElementsOnDevice;
using testing::Expand;
using testing::Gpu;
using testing::KeyWorld;
using testing::KvOnDevice;
using testing::OnDevice;
using testing::Project;
using testing::RowsOnDevice;
using testing::StepRows;

constexpr int32_t kLayer = KeyWorld::kLayer;

// Against the largest element: twice what a plain version in bf16 loses.
double ToleranceOf(DType dtype) {
  return dtype == DType::kF32 ? 2e-5 : 2e-2;
}

// What the row's basis leaves out of the keys of its prompt, and how far its columns are from orthonormal.
struct Spanned {
  double residue = 0, energy = 0, skew = 0;
};
Spanned SpannedBy(const KeyWorld& x, int32_t row) {
  Spanned out;
  const std::vector<double> basis = x.Basis(row);
  for (int32_t t = 0; t < x.prompts[row]; ++t) {
    const std::vector<double> key = x.Key(row, t), rebuilt = Expand(Project(key, basis), basis);
    for (size_t c = 0; c < key.size(); ++c) {
      out.residue += (key[c] - rebuilt[c]) * (key[c] - rebuilt[c]);
      out.energy += key[c] * key[c];
    }
  }
  const auto rank = static_cast<size_t>(x.world.geometry.key_rank);
  for (size_t a = 0; a < rank; ++a) {
    for (size_t b = 0; b <= a; ++b) {
      double dot = 0;
      for (size_t c = 0; c < basis.size(); c += rank) dot += basis[c + a] * basis[c + b];
      out.skew = std::max(out.skew, std::abs(dot - (a == b ? 1 : 0)));
    }
  }
  return out;
}

// The prompts of `x` on the GPU: bases and summaries come back into its world.
void PrefillOnGpu(KeyWorld& x, const Elements& staging) {
  const KvOnDevice gpu(x.world);
  const ElementsOnDevice planes(testing::PlanesOf(staging, x.world.geometry, x.staging_pages));
  const OnDevice<PrefillSlice> slices(x.slices);
  const OnDevice<float> table(x.rotation.table());
  KeyFactorPrefillParams p = x.PrefillParams({planes.data(), x.staging_pages});
  const OnDevice<double> scratch(x.scratch);
  p.slices = slices.data();
  p.tables = gpu.tables;
  p.rope_table = table.data();
  p.scratch = scratch.data();
  Gpu::Get().ops().KeyFactorPrefill(p, Gpu::Get().stream());
  x.world.summaries = gpu.summaries.Read();
  x.world.key_basis = gpu.key_basis.Read();
  CHECK((gpu.slots.Read() == x.world.slots));
  CHECK((gpu.host.Read() == x.world.host));
}

void CheckPrefill(DType dtype, int32_t d, int32_t heads, int32_t rank, int32_t prompt) {
  INFO("d " << d << ", heads " << heads << ", rank " << rank << ", tokens " << prompt);
  KeyWorld x(dtype, d, heads, rank, prompt, prompt);
  testing::Run(x, 0);
  Spanned cpu[2];
  for (const int32_t row : {0, 1}) cpu[row] = SpannedBy(x, row);
  std::fill(x.world.key_basis.begin(), x.world.key_basis.end(), uint8_t{0xff});
  KeyWorld again(dtype, d, heads, rank, prompt, prompt);  // the same keys
  PrefillOnGpu(x, again.MakeStaging());
  for (const int32_t row : {0, 1}) {
    const Spanned gpu = SpannedBy(x, row);
    INFO("row " << row << ": " << gpu.residue / gpu.energy << ", CPU "
                << cpu[row].residue / cpu[row].energy << ", skew " << gpu.skew);
    // Both round the basis alone where its rank leaves little out.
    CHECK(gpu.residue <= 1.02 * cpu[row].residue +
                             (dtype == DType::kF32 ? 1e-9 : std::pow(2.0, -16)) * gpu.energy);
    CHECK(gpu.skew < (dtype == DType::kF32 ? 1e-4 : 5e-3));
    const std::vector<double> basis = x.Basis(row);
    std::vector<double> expected, factors;
    for (int32_t t = 0; t < prompt / kLandmarkTokens * kLandmarkTokens; ++t) {
      const auto product = Project(x.Key(row, t), basis), factor = x.Factor(row, t);
      expected.insert(expected.end(), product.begin(), product.end());
      factors.insert(factors.end(), factor.begin(), factor.end());
    }
    CHECK(testing::RelativeError(factors, expected) < ToleranceOf(dtype));
  }
  CHECK(std::isnan(x.Basis(2)[0]));  // a short prompt
  CHECK(std::isnan(x.Factor(2, 0)[0]));
}

TEST_CASE(
    "a basis of the GPU spans what the CPU's does, and factors are its products with the keys") {
  const auto dtype = GENERATE(DType::kF32, DType::kBf16);
  const int32_t d = GENERATE(64, 128);
  CheckPrefill(dtype, d, 3, GENERATE(16, 48, 160), d * 3 + 7);
  CheckPrefill(dtype, d, 1, 32, 513);
}

TEST_CASE("factors of a short prompt agree", "[small]") {
  CheckPrefill(DType::kBf16, 64, 1, 16, 80);
}

TEST_CASE("factors of full rank, and of the paper's") {
  CheckPrefill(DType::kBf16, 64, 4, 256, 400);
  CheckPrefill(DType::kF32, 64, 2, 128, 300);
  CheckPrefill(DType::kBf16, 128, 8, 160, 1100);
}

TEST_CASE("keys of zero have a finite basis") {
  KeyWorld x(DType::kBf16, 64, 2, 32, 200, 200);
  Elements staging = x.MakeStaging();
  staging.Fill(0);
  PrefillOnGpu(x, staging);
  for (const double element : x.Basis(0)) CHECK(element == 0);
  CHECK(x.Factor(0, 0) == std::vector<double>(32, 0));
}

void CheckDecode(DType dtype, int32_t d, int32_t heads, int32_t rank) {
  const int32_t prompt = d * heads + 15 - d * heads % 8;  // ends one short of a page
  KeyWorld x(dtype, d, heads, rank, prompt, prompt + 8);
  testing::Run(x, 0);
  testing::EvictPage(x.world, 1, kLayer, prompt / kLandmarkTokens);
  StepRows step({1, 0}, x.world.geometry.max_rows);
  step.position[0] = step.position[1] = prompt;
  const Elements qkv = x.MakeQkv(step, prompt);
  const KvOnDevice gpu(x.world);
  const OnDevice<float> table(x.rotation.table());
  const RowsOnDevice rows(step, 3);
  const ElementsOnDevice device_qkv(qkv);
  KeyFactorDecodeParams p = {.decode = rows.view(),
                             .qkv = device_qkv.data(),
                             .layer = kLayer,
                             .tables = gpu.tables,
                             .rope_table = table.data()};
  Gpu::Get().ops().KeyFactorDecode(p, Gpu::Get().stream());
  p.decode = step.view();
  p.qkv = qkv.data();
  p.tables = x.world.tables;
  p.rope_table = x.rotation.table().data();
  const std::vector<uint8_t> before = x.world.summaries;
  cpu::KeyFactorDecode(p, x.world.pool);
  std::vector<double> expected, got;
  const auto append = [&](std::vector<double>& to) {
    for (const int32_t row : {0, 1}) {
      for (int32_t t = prompt - 7; t <= prompt; ++t) {
        const auto factor = x.Factor(row, t);
        to.insert(to.end(), factor.begin(), factor.end());
      }
    }
  };
  append(expected);
  const std::vector<uint8_t> cpu = x.world.summaries;
  x.world.summaries = gpu.summaries.Read();
  append(got);
  CHECK(testing::RelativeError(got, expected) < ToleranceOf(dtype));
  int64_t stray = 0;  // bytes that the CPU left alone
  for (size_t i = 0; i < cpu.size(); ++i) {
    stray += cpu[i] == before[i] && before[i] == 0xff && x.world.summaries[i] != 0xff;
  }
  CHECK(stray < static_cast<int64_t>(expected.size()) / 50);  // a byte of a factor may be 0xff
}

TEST_CASE("a token that completes its page gives it the CPU's factor, wherever the page is") {
  const auto dtype = GENERATE(DType::kF32, DType::kBf16);
  CheckDecode(dtype, GENERATE(64, 128), GENERATE(1, 3), GENERATE(16, 48, 64));
}

TEST_CASE("a completed page of one head gets its factor", "[small]") {
  CheckDecode(DType::kBf16, 64, 1, 16);
}

// The lists of a step that selects every second page, all of which but few are missing.
struct Lists {
  Lists(KeyWorld& x, StepRows& step) : max_list(KeyWorld::kSlots) {
    KvWorld& w = x.world;
    const auto streams = static_cast<size_t>(step.count * w.geometry.num_kv_heads);
    std::vector<int32_t> ids(streams * KeyWorld::kSlots), count(streams), list(ids.size());
    list_len.resize(streams);
    src.resize(ids.size());
    dst.resize(ids.size());
    len.resize(streams);
    for (size_t stream = 0; stream < streams; ++stream) {
      const int32_t row = step.rows[stream / static_cast<size_t>(w.geometry.num_kv_heads)];
      const int32_t tail = step.position[row] / w.geometry.page_tokens;
      int32_t* out = ids.data() + stream * KeyWorld::kSlots;
      for (int32_t page = std::max(0, tail - 50); page <= tail; page += page + 5 < tail ? 2 : 1) {
        out[count[stream]++] = page;
        if (page % 7 != 3) testing::EvictPage(w, row, kLayer, page);
      }
    }
    std::vector<RetrieveCounters> counters(static_cast<size_t>(w.geometry.max_rows));
    cpu::Lookup({.decode = step.view(),
                 .ids = ids.data(),
                 .count = count.data(),
                 .max_selected = KeyWorld::kSlots,
                 .layer = kLayer,
                 .tables = w.tables,
                 .page_list = list.data(),
                 .list_len = list_len.data(),
                 .max_list = max_list,
                 .copy_src = src.data(),
                 .copy_dst = dst.data(),
                 .copy_len = len.data(),
                 .counters = counters.data()},
                w.pool);
  }
  using KvWorld = testing::KvWorld;
  int32_t max_list;
  std::vector<int64_t> src;
  std::vector<int32_t> dst, len, list_len;
};

// The slots of the CPU, which the world has, and those of the GPU, after keys were rebuilt in what was `gathered`.
struct Rebuilt {
  int64_t planes = 0;  // of keys that the CPU rebuilt
  int64_t wrong =
      0;  // planes that differ though nobody may write them, and planes of values that were written
  double error = 0;  // of the GPU's keys
};
Rebuilt CompareSlots(const KeyWorld& x, const std::vector<uint8_t>& gathered,
                     const std::vector<uint8_t>& on_gpu) {
  const KvGeometry& g = x.world.geometry;
  const std::vector<uint8_t>& cpu = x.world.slots;
  const auto plane = static_cast<size_t>(g.page_bytes() / 2);
  std::vector<double> expected, got;
  Rebuilt out;
  for (size_t at = 0; at < cpu.size(); at += plane) {
    if (std::memcmp(cpu.data() + at, gathered.data() + at, plane) == 0) {
      out.wrong += std::memcmp(on_gpu.data() + at, cpu.data() + at, plane) != 0;
      continue;
    }
    ++out.planes;
    const auto page = static_cast<int64_t>(at / plane / 2);
    out.wrong += at / plane % 2;  // values stay as they are
    for (int64_t i = 0; i < g.plane_elements(); ++i) {
      expected.push_back(double{x.world.At(cpu, page, i)});
      got.push_back(double{x.world.At(on_gpu, page, i)});
    }
  }
  out.error = testing::RelativeError(got, expected);
  return out;
}

void CheckRebuild(DType dtype, int32_t d, int32_t heads, int32_t rank) {
  const int32_t prompt = d * heads + 200;
  KeyWorld x(dtype, d, heads, rank, prompt, prompt + 60);
  testing::Run(x, 52);
  const KvGeometry& g = x.world.geometry;
  StepRows step({1, 2}, g.max_rows);
  for (const int32_t row : {1, 2}) step.position[row] = x.prompts[row] + 51;
  Lists lists(x, step);
  if (heads > 1)
    lists.list_len[1] = step.position[1] / g.page_tokens + 1;  // as if it had all pages
  const KvOnDevice gpu(x.world);
  const RowsOnDevice rows(step, 4);
  const OnDevice<float> table(x.rotation.table());
  for (auto* of_stream : {&lists.len, &lists.list_len}) {
    of_stream->resize(static_cast<size_t>(4 * heads), 1 << 30);  // of places that are not in use
  }
  const OnDevice<int64_t> src(lists.src);
  const OnDevice<int32_t> dst(lists.dst), len(lists.len), list_len(lists.list_len);
  std::vector<RetrieveCounters> counters(static_cast<size_t>(g.max_rows), {.rebuilt = 100});
  const OnDevice<RetrieveCounters> gpu_counters(counters);
  GatherPagesParams gather = {.decode = rows.view(),
                              .layer = kLayer,
                              .whole_last = KeyWorld::kWholeLast,
                              .list_len = list_len.data(),
                              .tables = gpu.tables,
                              .copy_src = src.data(),
                              .copy_dst = dst.data(),
                              .copy_len = len.data(),
                              .max_list = lists.max_list};
  Gpu::Get().ops().GatherPages(gather, Gpu::Get().stream());
  gather.decode = step.view();
  gather.list_len = lists.list_len.data();
  gather.tables = x.world.tables;
  gather.copy_src = lists.src.data();
  gather.copy_dst = lists.dst.data();
  gather.copy_len = lists.len.data();
  cpu::GatherPages(gather, x.world.pool);
  gpu.CheckEquals(x.world);

  RebuildKeysParams rebuild = {.decode = rows.view(),
                               .layer = kLayer,
                               .whole_last = KeyWorld::kWholeLast,
                               .list_len = list_len.data(),
                               .tables = gpu.tables,
                               .rope_table = table.data(),
                               .copy_dst = dst.data(),
                               .copy_len = len.data(),
                               .max_list = lists.max_list,
                               .counters = gpu_counters.data()};
  Gpu::Get().ops().RebuildKeys(rebuild, Gpu::Get().stream());
  const std::vector<uint8_t> gathered = x.world.slots;
  rebuild.decode = step.view();
  rebuild.list_len = lists.list_len.data();
  rebuild.tables = x.world.tables;
  rebuild.rope_table = x.rotation.table().data();
  rebuild.copy_dst = lists.dst.data();
  rebuild.copy_len = lists.len.data();
  rebuild.counters = counters.data();
  cpu::RebuildKeys(rebuild, x.world.pool);
  const Rebuilt rebuilt = CompareSlots(x, gathered, gpu.slots.Read());
  CHECK((gpu_counters.Read() == counters));
  CHECK(counters[1].rebuilt == 100 + static_cast<uint64_t>(rebuilt.planes));
  CHECK(rebuilt.wrong == 0);
  CHECK(rebuilt.planes > 3 * heads);
  CHECK(rebuilt.error < ToleranceOf(dtype));
}

TEST_CASE("a gather leaves the same keys behind, and they are rebuilt alike") {
  const auto dtype = GENERATE(DType::kF32, DType::kBf16);
  CheckRebuild(dtype, GENERATE(64, 128), GENERATE(1, 3), GENERATE(16, 64));
}

TEST_CASE("keys of one head are rebuilt alike", "[small]") {
  CheckRebuild(DType::kBf16, 64, 1, 16);
}

}  // namespace
}  // namespace spin
