// RetroInfer's Index on the GPU: where no two centroids are nearly as close to a token, order and records are the
// CPU's; elsewhere they are what the rule says of the GPU's own clusters, and those are as good as the CPU's.
#include <algorithm>
#include <cmath>
#include <set>

#include "kernels/cpu/cluster_scratch.h"
#include "tests/kernels/retro_world.h"
#include "tests/twin/twin_testing.h"

namespace spin {
namespace {

using testing::Elements;
using testing::Gpu;
using testing::Keys;
using testing::KvOnDevice;
using testing::KvWorld;
using testing::OnDevice;
using testing::RetroWorld;
using testing::RowsOnDevice;

constexpr int32_t kLayer = 1;
constexpr int32_t kUnwritten = -9;

// What of a prompt's keys a test chooses.
enum class Kind {
  kRandom,
  kApart,  // of 24 directions that are far from each other, each with a first centroid: no token is near two of them
};

// A prompt a row, on both sides.
struct PrefillWorld {
  PrefillWorld(DType dtype, int32_t d, int32_t heads, std::vector<int32_t> lengths, Kind kind)
      : world(Geometry(dtype, d, heads, lengths)) {
    int32_t page = 1;
    for (size_t i = 0; i < lengths.size(); ++i) {
      const auto row = static_cast<int32_t>(i);
      const int32_t tokens = lengths[i], prefix = row % 2 == 0 ? 0 : tokens / 3;
      world.AddRow(row, row % 2 == 0 ? Placement::kResident : Placement::kTiered, tokens, 40);
      slices.push_back(
          {.row = row, .num_tokens = tokens - prefix, .page_begin = page, .prefix_tokens = prefix});
      page += CeilDiv(tokens, kClusterPageTokens) + row;
    }
    num_pages = page + 1;
    Random random(41);
    staging = world.MakeStaging(num_pages, slices, random);
    if (kind == Kind::kApart) SetApart();
  }

  static KvGeometry Geometry(DType dtype, int32_t d, int32_t heads,
                             const std::vector<int32_t>& lengths) {
    KvGeometry g = testing::SmallGeometry(dtype, d, kClusterPageTokens);
    g.num_kv_heads = heads;
    g.num_q_heads = heads;
    g.max_rows = static_cast<int32_t>(lengths.size());
    g.max_extents = CeilDiv(*std::max_element(lengths.begin(), lengths.end()), kExtentTokens);
    g.summary_elements = 2 * d + kClusterTailElements;
    g.partition_tokens = kClusterTokens;
    g.unsettled_tokens = kClusterLocalTokens;
    return g;
  }

  // Places of a head.
  int32_t places() const { return num_pages * kClusterPageTokens; }
  static int32_t Tokens(const PrefillSlice& s) { return s.prefix_tokens + s.num_tokens; }
  float At(int32_t head, int32_t place, bool value, int32_t c) const {
    const KvGeometry& g = world.geometry;
    const int64_t page = int64_t{head} * num_pages + place / kClusterPageTokens;
    const int32_t k = place % kClusterPageTokens;
    return staging[page * g.page_elements() + (value ? g.ValueOffset(k) : g.KeyOffset(k)) + c];
  }
  void SetApart() {
    const KvGeometry& g = world.geometry;
    for (const PrefillSlice& slice : slices) {
      for (int32_t i = 0; i < g.num_kv_heads * Tokens(slice); ++i) {
        const int32_t head = i / Tokens(slice), t = i % Tokens(slice);
        const int64_t page = int64_t{head} * num_pages + slice.page_begin + t / kClusterPageTokens;
        const int64_t key = page * g.page_elements() + g.KeyOffset(t % kClusterPageTokens);
        for (int32_t c = 0; c < g.head_dim; ++c) {
          staging.Set(key + c, c == t / kClusterTokens % 24 ? 8.0f : 0.25f);
        }
      }
    }
  }

  // The order of the GPU, and its summaries in gpu_summaries.
  std::vector<int32_t> OnGpu() {
    const KvGeometry& g = world.geometry;
    const KvOnDevice gpu(world);
    const testing::ElementsOnDevice planes(testing::PlanesOf(staging, g, num_pages));
    const OnDevice<PrefillSlice> gpu_slices(slices);
    const OnDevice<int32_t> order(
        std::vector<int32_t>(static_cast<size_t>(g.num_kv_heads) * places(), kUnwritten));
    const Buffer scratch = Gpu::Get().Allocate(
        MemoryKind::kDevice, Gpu::Get().ops().ClusterPrefillScratchBytes(g, num_pages));
    Gpu::Get().ops().ClusterIndexPrefill({.slices = gpu_slices.data(),
                                          .num_slices = static_cast<int32_t>(slices.size()),
                                          .layer = kLayer,
                                          .tables = gpu.tables,
                                          .staging = {planes.data(), num_pages},
                                          .order = order.data(),
                                          .scratch = scratch.data()},
                                         Gpu::Get().stream());
    gpu_summaries = gpu.summaries.Read();
    return order.Read();
  }
  std::vector<int32_t> OnCpu() {
    const KvGeometry& g = world.geometry;
    std::vector<int32_t> order(static_cast<size_t>(g.num_kv_heads) * places(), kUnwritten);
    std::vector<char> scratch(static_cast<size_t>(world.pool.num_threads() *
                                                  cpu::ClusterPrefillThreadBytes(g, num_pages)));
    cpu::ClusterIndexPrefill({.slices = slices.data(),
                              .num_slices = static_cast<int32_t>(slices.size()),
                              .layer = kLayer,
                              .tables = world.tables,
                              .staging = {staging.data(), num_pages},
                              .order = order.data(),
                              .scratch = scratch.data()},
                             world.pool);
    return order;
  }

  // Bytes of a record in a copy of the pool.
  const uint8_t* Record(const std::vector<uint8_t>& pool, int32_t row, int32_t head,
                        int32_t cluster) const {
    const KvGeometry& g = world.geometry;
    const int32_t extent =
        world.summary_dir[static_cast<size_t>(g.DirIndex(row, kLayer, cluster / 32))];
    return pool.data() + g.SummaryIndex(extent, head, cluster % 32) * g.summary_bytes();
  }
  ClusterRun Run(const std::vector<uint8_t>& pool, int32_t row, int32_t head,
                 int32_t cluster) const {
    const KvGeometry& g = world.geometry;
    ClusterRun run;
    std::memcpy(&run, Record(pool, row, head, cluster) + 2 * g.head_dim * SizeOf(g.dtype),
                sizeof(run));
    return run;
  }

  KvWorld world;
  std::vector<PrefillSlice> slices;
  int32_t num_pages = 0;
  Elements staging{DType::kF32, 0};
  std::vector<uint8_t> gpu_summaries;
};

// A stream of a prefill: its order, as tokens of the sequence, and the cluster of each.
struct Stream {
  Stream(const PrefillWorld& w, const PrefillSlice& slice, int32_t head,
         const std::vector<int32_t>& order, const std::vector<uint8_t>& summaries)
      : tokens(PrefillWorld::Tokens(slice)),
        indexed(static_cast<int32_t>(IndexedTokens(tokens))),
        cluster_of(static_cast<size_t>(tokens), -1) {
    const int32_t origin = slice.page_begin * kClusterPageTokens;
    for (int32_t place = 0; place < tokens; ++place) {
      token.push_back(order[static_cast<size_t>(head * w.places() + origin + place)] - origin);
    }
    for (int32_t c = 0; c < indexed / kClusterTokens; ++c) {
      runs.push_back(w.Run(summaries, slice.row, head, c));
      const ClusterRun run = runs.back();
      for (int32_t place = run.begin; place < run.begin + run.size; ++place) {
        const int32_t t = token[static_cast<size_t>(place)];
        REQUIRE((t >= 0 && t < tokens && cluster_of[static_cast<size_t>(t)] == -1));
        cluster_of[static_cast<size_t>(t)] = c;
      }
    }
  }

  // Runs follow each other, clusters stay in their segment, tokens of one in their order, others where they were.
  void CheckShape() const {
    for (int32_t t = 0; t < tokens; ++t) {
      if (t >= std::min(indexed, 8) && t < indexed) continue;
      REQUIRE(token[static_cast<size_t>(t)] == t);
    }
    int32_t place = 8;
    for (size_t c = 0; c < runs.size(); ++c) {
      const int32_t segment = static_cast<int32_t>(c) / 512;
      REQUIRE(runs[c].begin == place);
      REQUIRE(runs[c].size >= 0);
      for (int32_t i = 0; i < runs[c].size; ++i, ++place) {
        REQUIRE(token[static_cast<size_t>(place)] / kClusterSegmentTokens == segment);
        if (i > 0) {
          REQUIRE(token[static_cast<size_t>(place)] > token[static_cast<size_t>(place - 1)]);
        }
      }
    }
    REQUIRE((indexed == 0 || place == indexed));
  }

  int32_t tokens, indexed;
  std::vector<int32_t> token;  // at each place
  std::vector<ClusterRun> runs;
  std::vector<int32_t> cluster_of;  // token
};

// Records of the GPU: means of what its own runs hold, within a rounding.
void CheckRecords(const PrefillWorld& w, const PrefillSlice& slice, int32_t head,
                  const Stream& gpu) {
  const KvGeometry& g = w.world.geometry;
  const double rounding = g.dtype == DType::kF32 ? 1e-5 : 1.0 / 256;
  const int32_t origin = slice.page_begin * kClusterPageTokens;
  double worst = 0;
  for (size_t c = 0; c < gpu.runs.size(); ++c) {
    const ClusterRun run = gpu.runs[c];
    if (run.size == 0) continue;
    Elements record(g.dtype, 2 * g.head_dim);
    std::memcpy(record.data(), w.Record(w.gpu_summaries, slice.row, head, static_cast<int32_t>(c)),
                static_cast<size_t>(2 * g.head_dim * SizeOf(g.dtype)));
    for (int32_t i = 0; i < 2 * g.head_dim; ++i) {
      double mean = 0;
      for (int32_t place = run.begin; place < run.begin + run.size; ++place) {
        const int32_t t = gpu.token[static_cast<size_t>(place)];
        mean += double{w.At(head, origin + t, i >= g.head_dim, i % g.head_dim)} / run.size;
      }
      const double off = std::abs(double{record[i]} - mean) - rounding * std::abs(mean) - 1e-5;
      if (!(off <= worst)) worst = off;
    }
  }
  CHECK(worst <= 0);
}

// How well clusters fit: the sum over tokens of x' . the direction of their cluster's mean, segment by segment.
double Fit(const PrefillWorld& w, const PrefillSlice& slice, int32_t head, const Stream& s) {
  const int32_t d = w.world.geometry.head_dim, origin = slice.page_begin * kClusterPageTokens;
  double fit = 0;
  for (int32_t begin = 0; begin < s.indexed; begin += kClusterSegmentTokens) {
    const int32_t end = std::min(begin + kClusterSegmentTokens, s.indexed);
    const int32_t first = std::max(begin, 8);
    std::vector<double> mean(static_cast<size_t>(d), 0);
    for (int32_t t = first; t < end; ++t) {
      for (int32_t c = 0; c < d; ++c) {
        mean[static_cast<size_t>(c)] += double{w.At(head, origin + t, false, c)} / (end - first);
      }
    }
    // Of a cluster that is the length of the sum of its x'.
    for (int32_t i = begin / kClusterTokens; i < end / kClusterTokens; ++i) {
      const ClusterRun run = s.runs[static_cast<size_t>(i)];
      double squares = 0;
      for (int32_t c = 0; c < d; ++c) {
        double sum = 0;
        for (int32_t place = run.begin; place < run.begin + run.size; ++place) {
          sum += double{w.At(head, origin + s.token[static_cast<size_t>(place)], false, c)} -
                 mean[static_cast<size_t>(c)];
        }
        squares += sum * sum;
      }
      fit += std::sqrt(squares);
    }
  }
  return fit;
}

void CheckPrefill(PrefillWorld& w, bool equal) {
  const std::vector<int32_t> gpu_order = w.OnGpu(), cpu_order = w.OnCpu();
  if (equal) CHECK((gpu_order == cpu_order));
  for (size_t i = 0; i < gpu_order.size(); ++i) {
    REQUIRE((gpu_order[i] == kUnwritten) == (cpu_order[i] == kUnwritten));
  }
  for (const PrefillSlice& slice : w.slices) {
    for (int32_t head = 0; head < w.world.geometry.num_kv_heads; ++head) {
      INFO("row " << slice.row << ", head " << head);
      const Stream gpu(w, slice, head, gpu_order, w.gpu_summaries);
      const Stream cpu(w, slice, head, cpu_order, w.world.summaries);
      gpu.CheckShape();
      CheckRecords(w, slice, head, gpu);
      if (gpu.indexed == 0) continue;
      const double of_gpu = Fit(w, slice, head, gpu), of_cpu = Fit(w, slice, head, cpu);
      CHECK(of_gpu >= 0.998 * of_cpu);
      int32_t others = 0;
      for (int32_t t = 0; t < gpu.tokens; ++t) {
        others += gpu.cluster_of[static_cast<size_t>(t)] != cpu.cluster_of[static_cast<size_t>(t)];
      }
      // A near tie moves a centroid a little, and so others; more in a long segment.
      CHECK(others <= (equal ? 0 : gpu.tokens <= 2048 ? gpu.tokens / 50 : gpu.tokens / 10));
    }
  }
}

TEST_CASE("clusters of prompts are the CPU's but for near ties") {
  const auto dtype = GENERATE(DType::kF32, DType::kBf16);
  const int32_t d = GENERATE(64, 128);
  PrefillWorld w(dtype, d, 2, {1100, 63, 1663, 575, 576, 1, 1664, 64}, Kind::kRandom);
  CheckPrefill(w, false);
}

TEST_CASE("clusters of prompts without near ties are the CPU's") {
  const auto dtype = GENERATE(DType::kF32, DType::kBf16);
  const int32_t d = GENERATE(64, 128);
  PrefillWorld w(dtype, d, 3, {1101, 2300, 40, 577}, Kind::kApart);
  CheckPrefill(w, true);
}

TEST_CASE("clusters of prompts of several segments") {
  const auto [dtype, d] =
      GENERATE(table<DType, int32_t>({{DType::kBf16, 128}, {DType::kBf16, 64}, {DType::kF32, 64}}));
  PrefillWorld w(dtype, d, 1, {8192 + 576, 8192 + 63, 3000}, Kind::kRandom);
  CheckPrefill(w, false);
}

TEST_CASE("Index writes nothing but the order of its slices and their records", "[small]") {
  PrefillWorld w(DType::kBf16, 64, 2, {700, 1300, 80}, Kind::kRandom);
  const KvGeometry& g = w.world.geometry;
  w.OnGpu();
  std::vector<bool> indexed(w.gpu_summaries.size() / static_cast<size_t>(g.summary_bytes()));
  for (const PrefillSlice& slice : w.slices) {
    const auto clusters =
        static_cast<int32_t>(IndexedTokens(PrefillWorld::Tokens(slice))) / kClusterTokens;
    for (int32_t i = 0; i < g.num_kv_heads * clusters; ++i) {
      const uint8_t* record = w.Record(w.gpu_summaries, slice.row, i / clusters, i % clusters);
      indexed[static_cast<size_t>((record - w.gpu_summaries.data()) / g.summary_bytes())] = true;
    }
  }
  for (size_t i = 0; i < w.gpu_summaries.size(); ++i) {
    const auto bytes = static_cast<size_t>(g.summary_bytes());
    const size_t used = static_cast<size_t>(2 * g.head_dim * SizeOf(g.dtype)) + sizeof(ClusterRun);
    if (indexed[i / bytes] && i % bytes < used) continue;
    REQUIRE(w.gpu_summaries[i] == w.world.summaries[i]);  // as it was
  }
}

// ---- Decode ------------------------------------------------------------------------------------------------------

// Index of the step at position t on the GPU, whose pools become the world's.
void StepOnGpu(RetroWorld& x, int32_t t, int32_t bucket) {
  x.MakeQkv(t);
  const KvGeometry& g = x.geometry();
  const KvOnDevice gpu(x.world);
  const RowsOnDevice rows(x.step, bucket);
  const Buffer scratch = Gpu::Get().Allocate(MemoryKind::kDevice,
                                             Gpu::Get().ops().ClusterDecodeScratchBytes(g, bucket));
  Gpu::Get().ops().ClusterIndexDecode(
      {.decode = rows.view(), .layer = kLayer, .tables = gpu.tables, .scratch = scratch.data()},
      Gpu::Get().stream());
  x.world.slots = gpu.slots.Read();
  x.world.host = gpu.host.Read();
  x.world.summaries = gpu.summaries.Read();
}

// The GPU's extent [begin, begin + 512) of one stream beside the CPU's; how many tokens are in another cluster.
int32_t CheckExtent(const RetroWorld& gpu, const RetroWorld& cpu, int32_t row, int32_t head,
                    int32_t begin, int32_t length) {
  const std::vector<int32_t> tokens = gpu.Places(row, head, length);  // checks pages of both tiers
  const std::vector<int32_t> of_cpu = cpu.Places(row, head, length);
  for (int32_t place = 0; place < length; ++place) {
    if (place >= std::max(begin, 8) && place < begin + 512) continue;
    REQUIRE(tokens[static_cast<size_t>(place)] == of_cpu[static_cast<size_t>(place)]);
  }
  std::vector<int32_t> cluster_of(static_cast<size_t>(length), -1);
  for (int32_t c = begin / 16; c < begin / 16 + 32; ++c) {
    const ClusterRun run = cpu.RecordOf(row, head, c).run;
    for (int32_t place = run.begin; place < run.begin + run.size; ++place) {
      cluster_of[static_cast<size_t>(of_cpu[static_cast<size_t>(place)])] = c;
    }
  }
  const double rounding = gpu.shape.dtype == DType::kF32 ? 1e-5 : 1.0 / 256;
  int32_t others = 0, place = std::max(begin, 8);
  double worst = 0;
  std::set<int32_t> seen;
  for (int32_t c = begin / 16; c < begin / 16 + 32; ++c) {
    const RetroWorld::Record record = gpu.RecordOf(row, head, c);
    REQUIRE(record.run.begin == place);
    REQUIRE((record.run.size >= 0 && place + record.run.size <= begin + 512));
    const std::vector<int32_t> members(tokens.begin() + place,
                                       tokens.begin() + place + record.run.size);
    CHECK(std::is_sorted(members.begin(), members.end()));
    for (const int32_t t : members) others += cluster_of[static_cast<size_t>(t)] != c;
    seen.insert(members.begin(), members.end());
    place += record.run.size;
    for (size_t i = 0; !members.empty() && i < record.mean.size(); ++i) {
      double key = 0, value = 0;
      for (const int32_t t : members) {
        key += double{gpu.Key(row, head, t)[i]} / static_cast<double>(members.size());
        value += double{gpu.Value(row, head, t)[i]} / static_cast<double>(members.size());
      }
      worst =
          std::max({worst, std::abs(double{record.centroid[i]} - key) - rounding * std::abs(key),
                    std::abs(double{record.mean[i]} - value) - rounding * std::abs(value)});
    }
  }
  CHECK(worst <= 1e-5);
  REQUIRE(place == begin + 512);
  REQUIRE(static_cast<int32_t>(seen.size()) == 512 - (begin == 0 ? 8 : 0));
  return others;
}

TEST_CASE("a decode step clusters the extent that is 64 tokens behind, and nothing else") {
  RetroWorld::Shape shape;
  shape.dtype = GENERATE(DType::kF32, DType::kBf16);
  shape.d = GENERATE(64, 128);
  shape.slots = GENERATE(2, 40, 160);  // of the extent: no page is resident, some, all
  shape.keys = GENERATE(Keys::kRandom, Keys::kThree);
  const int32_t begin = GENERATE(0, 512);
  const int32_t prompt = begin + 560, t = begin + 575, total = t + 1;
  INFO("slots " << shape.slots << ", extent at " << begin);
  RetroWorld gpu(shape, prompt, total), cpu(shape, prompt, total);
  for (int32_t i = prompt; i < t; ++i) {
    gpu.Step(i);
    cpu.Step(i);
  }
  // One token too early nothing happens.
  const auto slots = gpu.world.slots, host = gpu.world.host, summaries = gpu.world.summaries;
  StepOnGpu(gpu, t - 1, 2);
  CHECK((gpu.world.slots == slots && gpu.world.host == host));
  CHECK((gpu.world.summaries == summaries));
  StepOnGpu(gpu, t, GENERATE(2, 19));
  cpu.MakeQkv(t);
  cpu.IndexDecode();
  for (int32_t row = 0; row < 2; ++row) {
    for (int32_t head = 0; head < shape.kv_heads; ++head) {
      const int32_t others = CheckExtent(gpu, cpu, row, head, begin, t);
      CHECK(others <= (shape.keys == Keys::kThree ? 0 : 12));
    }
  }
  if (shape.keys == Keys::kThree) CHECK((gpu.world.slots == cpu.world.slots));
  if (shape.keys == Keys::kThree) CHECK((gpu.world.host == cpu.world.host));
}

// More rows than are clustered at the same time, each at its own position: every third one has an extent to index.
TEST_CASE("a decode step clusters some of many rows", "[small]") {
  constexpr int32_t kRows = 21;
  const KvGeometry g =
      PrefillWorld::Geometry(DType::kBf16, 128, 2, std::vector<int32_t>(kRows, 576));
  KvWorld w(g);
  Random random(43);
  for (uint8_t& byte : w.slots) byte = static_cast<uint8_t>(random.Below(60));  // small numbers
  std::vector<int32_t> used;
  for (int32_t row = 0; row < kRows; ++row) {
    w.AddRow(row, Placement::kResident, 576);
    used.push_back(row);
  }
  testing::StepRows step(used, kRows);
  for (int32_t row = 0; row < kRows; ++row) {
    step.position[static_cast<size_t>(row)] = row % 3 == 0 ? 575 : 570 + row % 3;
  }
  const KvOnDevice gpu(w);
  const RowsOnDevice rows(step, 30);
  const Buffer scratch =
      Gpu::Get().Allocate(MemoryKind::kDevice, Gpu::Get().ops().ClusterDecodeScratchBytes(g, 30));
  Gpu::Get().ops().ClusterIndexDecode(
      {.decode = rows.view(), .layer = kLayer, .tables = gpu.tables, .scratch = scratch.data()},
      Gpu::Get().stream());
  const std::vector<uint8_t> slots = gpu.slots.Read(), summaries = gpu.summaries.Read();
  for (int32_t row = 0; row < kRows; ++row) {
    for (int32_t head = 0; head < g.num_kv_heads; ++head) {
      const int64_t first = w.Index(w.slot_dir, row, kLayer, head, 0) * g.page_bytes();
      const auto bytes = static_cast<size_t>(64 * g.page_bytes());
      const bool moved = std::memcmp(slots.data() + first, w.slots.data() + first, bytes) != 0;
      REQUIRE(moved == (row % 3 == 0));
      // The same tokens, wherever they are.
      const auto tokens_of = [&](const std::vector<uint8_t>& pool) {
        std::multiset<std::vector<uint8_t>> tokens;
        const auto width = static_cast<size_t>(g.head_dim * SizeOf(g.dtype));
        for (int64_t at = 0; at < 64 * g.page_bytes(); at += static_cast<int64_t>(width)) {
          const auto* token = pool.data() + first + at;
          tokens.insert(std::vector<uint8_t>(token, token + width));
        }
        return tokens;
      };
      REQUIRE((tokens_of(slots) == tokens_of(w.slots)));
    }
  }
}

}  // namespace
}  // namespace spin
