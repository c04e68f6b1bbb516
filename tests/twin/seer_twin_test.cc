// SeerAttention-R on the GPU: summaries and scores agree with the definition in double precision, nothing else is
// written, and a row's scores do not depend on the batch.
#include <cmath>
#include <limits>
#include <numeric>

#include "tests/kernels/seer_world.h"
#include "tests/twin/twin_testing.h"

namespace spin {
namespace {

using testing::Elements;
using testing::ElementsOnDevice;
using testing::Gpu;
using testing::KvOnDevice;
using testing::OnDevice;
using testing::RowsOnDevice;
using testing::SeerWorld;

// What rounding may cost, against the largest element: of bfloat16 twice, since pooled keys are rounded before the
// product as a plain implementation's are.
double ToleranceOf(DType dtype) {
  return dtype == DType::kF32 ? 2e-5 : 2e-2;
}

struct GateOnDevice {
  explicit GateOnDevice(const testing::RandomGate& gate)
      : wq(gate.wq), wk(gate.wk), q_norm(gate.q_norm), k_norm(gate.k_norm) {
    const bool with_norm = !gate.q_norm.empty();
    view = {.wq = wq.data(),
            .wk = wk.data(),
            .q_norm = with_norm ? q_norm.data() : nullptr,
            .k_norm = with_norm ? k_norm.data() : nullptr};
  }
  ElementsOnDevice wq, wk;
  OnDevice<float> q_norm, k_norm;
  SeerGate view;
};

// The pages of `x` that must have summaries have the right ones; all other bytes are as they were.
void CheckSummaries(SeerWorld& x, const std::vector<uint8_t>& before,
                    const std::vector<uint8_t>& after, int32_t first_page, int32_t end_page) {
  const KvGeometry& g = x.world.geometry;
  const auto bytes = static_cast<size_t>(g.summary_bytes());
  std::vector<uint8_t> expected = before;
  x.world.summaries = after;
  for (int32_t row = 0; row < SeerWorld::kRows; ++row) {
    for (int32_t head = 0; head < g.num_kv_heads; ++head) {
      for (int32_t page = first_page; page < end_page; ++page) {
        INFO("row " << row << ", head " << head << ", page " << page);
        CHECK(testing::RelativeError(x.Summary(row, head, page),
                                     x.ReferenceSummary(row, head, page)) < ToleranceOf(g.dtype));
        const auto at = static_cast<size_t>(
            x.world.Index(x.world.summary_dir, row, SeerWorld::kLayer, head, page));
        std::copy_n(after.begin() + at * bytes, bytes, expected.begin() + at * bytes);
      }
    }
  }
  CHECK((after == expected));
}

// A prompt of `pages` pages and an incomplete one, which decode steps complete.
void CheckIndex(DType dtype, int32_t d, int32_t page_tokens, bool with_norm, int32_t pages,
                bool on_host) {
  const int32_t prompt = (pages + 1) * page_tokens - 3;
  SeerWorld x(dtype, d, page_tokens, 2, with_norm, prompt + 3);
  const KvGeometry& g = x.world.geometry;
  const GateOnDevice gate(x.gate);
  const OnDevice<float> table(x.rotation.table());

  Elements staging = x.MakeStaging(prompt);
  const ElementsOnDevice planes(testing::PlanesOf(staging, g, x.staging_pages));
  const OnDevice<PrefillSlice> slices(x.slices);
  SeerIndexPrefillParams prefill = x.PrefillParams({planes.data(), x.staging_pages});
  prefill.slices = slices.data();
  prefill.gate = gate.view;
  prefill.rope_table = table.data();
  {
    const KvOnDevice gpu(x.world);
    prefill.tables = gpu.tables;
    Gpu::Get().ops().SeerIndexPrefill(prefill, Gpu::Get().stream());
    CheckSummaries(x, x.world.summaries, gpu.summaries.Read(), 0, pages);
  }
  cpu::Offload({.slices = x.slices.data(),
                .num_slices = SeerWorld::kRows,
                .layer = SeerWorld::kLayer,
                .tables = x.world.tables,
                .staging = {staging.data(), x.staging_pages}},
               x.world.pool);
  for (int32_t t = prompt; t < prompt + 3; ++t) {
    const Elements qkv = x.MakeQkv(t);
    if (on_host && t == prompt + 2) testing::EvictPage(x.world, 1, x.kLayer, pages);
    const KvOnDevice gpu(x.world);
    const ElementsOnDevice gpu_qkv(qkv);
    const RowsOnDevice rows(x.step, 5);
    SeerIndexDecodeParams decode = x.DecodeParams(qkv);
    decode.decode = rows.view();
    decode.qkv = gpu_qkv.data();
    decode.tables = gpu.tables;
    decode.gate = gate.view;
    decode.rope_table = table.data();
    Gpu::Get().ops().SeerIndexDecode(decode, Gpu::Get().stream());
    const bool completes = t == prompt + 2;
    CheckSummaries(x, x.world.summaries, gpu.summaries.Read(), pages, pages + (completes ? 1 : 0));
    testing::AppendToken(x.world, x.step, qkv, x.kLayer);
  }
}

TEST_CASE("the gate's view of complete pages agrees with the definition, in prefill and decode") {
  const auto dtype = GENERATE(DType::kF32, DType::kBf16);
  const int32_t d = GENERATE(64, 128);
  const int32_t page_tokens = GENERATE(16, 32, 64);
  const bool with_norm = GENERATE(true, false);
  const bool on_host = GENERATE(false, true);
  CheckIndex(dtype, d, page_tokens, with_norm, 1200 / page_tokens, on_host);  // more than a tile
}

TEST_CASE("the gate's view of a few pages", "[small]") {
  CheckIndex(DType::kBf16, 128, 16, true, 3, false);
}

// Of rows whose newest token is at `last`.
void CheckScores(DType dtype, int32_t d, int32_t group, bool with_norm, int32_t page_tokens,
                 int32_t last) {
  SeerWorld x(dtype, d, page_tokens, group, with_norm, last + 1);
  const KvGeometry& g = x.world.geometry;
  const int32_t pages = last / page_tokens;
  // Summaries of CPU Index, which its own test holds to the definition.
  if (last > 4) {
    Elements staging = x.MakeStaging(last);
    cpu::SeerIndexPrefill(x.PrefillParams({staging.data(), x.staging_pages}), x.world.pool);
  }
  const Elements qkv = x.MakeQkv(last);
  const GateOnDevice gate(x.gate);
  const OnDevice<float> table(x.rotation.table());
  const KvOnDevice gpu(x.world);
  const ElementsOnDevice gpu_qkv(qkv);
  const RowsOnDevice rows(x.step, 5);
  const auto streams = static_cast<size_t>(5 * g.num_kv_heads);
  const OnDevice<float> scores(
      std::vector<float>(streams * static_cast<size_t>(g.max_pages()), -777));
  Gpu::Get().ops().SeerScore({.decode = rows.view(),
                              .qkv = gpu_qkv.data(),
                              .layer = SeerWorld::kLayer,
                              .tables = gpu.tables,
                              .gate = gate.view,
                              .rope_table = table.data(),
                              .scores = scores.data()},
                             Gpu::Get().stream());
  const std::vector<float> got = scores.Read();
  int64_t stray = 0;
  for (size_t stream = 0; stream < streams; ++stream) {
    const float* of_stream = got.data() + static_cast<int64_t>(stream) * g.max_pages();
    const auto place = static_cast<int32_t>(stream) / g.num_kv_heads;
    const auto head = static_cast<int32_t>(stream) % g.num_kv_heads;
    const int32_t used = place < SeerWorld::kRows ? pages : 0;
    for (int32_t page = used; page < g.max_pages(); ++page) stray += of_stream[page] != -777;
    if (used == 0) continue;
    const std::vector<double> qg = x.ReferenceQuery(1 - place, head, last);
    std::vector<double> reference;
    for (int32_t page = 0; page < used; ++page) {
      const std::vector<double> kg = x.ReferenceSummary(1 - place, head, page);
      reference.push_back(std::inner_product(qg.begin(), qg.end(), kg.begin(), 0.0) /
                          std::sqrt(double(d)));
    }
    CHECK(testing::RelativeError(of_stream, reference) < ToleranceOf(dtype));
  }
  CHECK(stray == 0);
}

TEST_CASE("scores agree with the definition") {
  const auto dtype = GENERATE(DType::kF32, DType::kBf16);
  const int32_t d = GENERATE(64, 128);
  const int32_t group = GENERATE(1, 2, 5, 8);
  const bool with_norm = GENERATE(true, false);
  const int32_t page_tokens = GENERATE(16, 64);
  const int32_t last = GENERATE(3, 319, 320, 907);
  CheckScores(dtype, d, group, with_norm, page_tokens, last);
}

TEST_CASE("the gate's scores of a few pages", "[small]") {
  CheckScores(DType::kBf16, 128, 4, true, 16, 100);
}

// Rows of long, unequal contexts with random summaries behind a shuffled directory; NaN where no page is.
struct LongWorld {
  LongWorld(DType dtype, int32_t d, std::vector<int32_t> last_tokens)
      : g({.num_layers = 1,
           .num_kv_heads = 2,
           .num_q_heads = 8,
           .head_dim = d,
           .page_tokens = 32,
           .max_rows = static_cast<int32_t>(last_tokens.size()),
           .max_extents = 70,
           .summary_elements = d,
           .dtype = dtype}),
        step(Iota(g.max_rows), g.max_rows),
        gate(g, true, random),
        rotation(d, 512 * 70),
        summaries(dtype, int64_t{g.max_rows} * g.max_extents * g.pages_per_extent() * d),
        qkv(dtype, int64_t{g.max_rows} * 12 * d),
        placement(last_tokens.size(), static_cast<int32_t>(Placement::kResident)),
        directory(Iota(g.max_rows * g.max_extents)) {
    step.position = std::move(last_tokens);
    qkv.Randomize(random, 2);
    for (size_t i = directory.size(); i > 1; --i) {
      std::swap(directory[i - 1], directory[random.Below(static_cast<uint32_t>(i))]);
    }
    summaries.Fill(std::numeric_limits<float>::quiet_NaN());
    for (int32_t row = 0; row < g.max_rows; ++row) {
      for (int32_t i = 0; i < 2 * (step.position[row] / 32); ++i) {
        const int32_t page = i / 2, head = i % 2;
        const int32_t extent = directory[g.DirIndex(row, 0, page / g.extent_pages())];
        const int64_t at = g.PageIndex(extent, head, page % g.extent_pages()) * d;
        for (int32_t c = 0; c < d; ++c) summaries.Set(at + c, 2 * random.Uniform() - 1);
      }
    }
  }
  static std::vector<int32_t> Iota(int32_t n) {
    std::vector<int32_t> ids(static_cast<size_t>(n));
    std::iota(ids.begin(), ids.end(), 0);
    return ids;
  }
  size_t NumScores(int32_t batch) const {
    return static_cast<size_t>(batch) * 2 * static_cast<size_t>(g.max_pages());
  }

  std::vector<float> OnCpu() {
    std::vector<float> scores(NumScores(g.max_rows), -1);
    ThreadPool pool(2);
    KvTables tables = {.geometry = g, .summary_dir = directory.data()};
    tables.placement = placement.data();
    tables.summaries = summaries.data();
    cpu::SeerScore({.decode = step.view(),
                    .qkv = qkv.data(),
                    .tables = tables,
                    .gate = gate.view(),
                    .rope_table = rotation.table().data(),
                    .scores = scores.data()},
                   pool);
    return scores;
  }
  // With places 0 .. rows - 1 of the batch alone.
  std::vector<float> OnGpu(int32_t rows, int32_t max_batch) {
    testing::StepRows used(Iota(rows), g.max_rows);
    used.position = step.position;
    const RowsOnDevice gpu_rows(used, max_batch);
    const GateOnDevice gpu_gate(gate);
    const OnDevice<float> table(rotation.table());
    const ElementsOnDevice gpu_qkv(qkv), gpu_summaries(summaries);
    const OnDevice<int32_t> gpu_directory(directory), gpu_placement(placement);
    const OnDevice<float> scores(std::vector<float>(NumScores(max_batch), -1));
    KvTables tables = {.geometry = g, .summary_dir = gpu_directory.data()};
    tables.placement = gpu_placement.data();
    tables.summaries = gpu_summaries.data();
    Gpu::Get().ops().SeerScore({.decode = gpu_rows.view(),
                                .qkv = gpu_qkv.data(),
                                .tables = tables,
                                .gate = gpu_gate.view,
                                .rope_table = table.data(),
                                .scores = scores.data()},
                               Gpu::Get().stream());
    return scores.Read();
  }

  Random random{3};
  KvGeometry g;
  testing::StepRows step;
  testing::RandomGate gate;
  testing::Rotation rotation;
  Elements summaries, qkv;
  std::vector<int32_t> placement, directory;
};

TEST_CASE("scores of long contexts agree with the CPU's, and do not depend on the batch") {
  const auto dtype = GENERATE(DType::kF32, DType::kBf16);
  const int32_t d = GENERATE(64, 128);
  std::vector<int32_t> last_tokens = {35839, 31, 32, 8191, 20000};
  for (int32_t i = 0; i < 270; ++i)
    last_tokens.push_back(40 * i);  // more places than take one turn
  LongWorld x(dtype, d, last_tokens);
  const std::vector<float> cpu = x.OnCpu(), all = x.OnGpu(x.g.max_rows, x.g.max_rows);
  double worst = 0, scale = 0;
  for (size_t i = 0; i < cpu.size(); ++i) {
    const double difference = std::abs(double{cpu[i]} - double{all[i]});
    if (!(difference <= worst)) worst = difference;
    scale = std::max(scale, std::abs(double{cpu[i]}));
  }
  CHECK(worst / scale < ToleranceOf(dtype));
  const std::vector<float> alone = x.OnGpu(1, 1);
  CHECK((alone == std::vector<float>(all.begin(), all.begin() + x.NumScores(1))));
}

}  // namespace
}  // namespace spin
