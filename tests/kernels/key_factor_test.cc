// ShadowKV's low-rank keys against double precision: how much of the keys a basis spans, the factors of prefill and of
// decode wherever the page is, what a gather leaves behind, and the keys that are rebuilt.
#include <cmath>
#include <numeric>

#include "tests/kernels/key_world.h"

namespace spin {
namespace {

using testing::Dot;
using testing::Elements;
using testing::Expand;
using testing::KeyWorld;
using testing::Project;
using testing::Run;
using testing::Step;
using testing::StepRows;

constexpr int32_t kLayer = KeyWorld::kLayer;

// What rounding may cost, against the largest element.
double ToleranceOf(DType dtype) {
  return dtype == DType::kF32 ? 2e-5 : 2e-2;
}

// Eigenvalues of a symmetric matrix, greatest first: cyclic Jacobi.
std::vector<double> Eigenvalues(std::vector<double> a, int32_t n) {
  const auto at = [&](int32_t i, int32_t j) -> double& {
    return a[static_cast<size_t>(i * n + j)];
  };
  for (int32_t sweep = 0; sweep < 12; ++sweep) {
    for (int32_t p = 0; p < n; ++p) {
      for (int32_t q = p + 1; q < n; ++q) {
        if (std::abs(at(p, q)) < 1e-300) continue;
        const double theta = (at(q, q) - at(p, p)) / (2 * at(p, q));
        const double t = (theta >= 0 ? 1 : -1) / (std::abs(theta) + std::hypot(theta, 1.0));
        const double c = 1 / std::hypot(t, 1.0), s = t * c;
        for (int32_t k = 0; k < n; ++k) {
          const double x = at(k, p), y = at(k, q);
          at(k, p) = c * x - s * y;
          at(k, q) = s * x + c * y;
        }
        for (int32_t k = 0; k < n; ++k) {
          const double x = at(p, k), y = at(q, k);
          at(p, k) = c * x - s * y;
          at(q, k) = s * x + c * y;
        }
      }
    }
  }
  std::vector<double> values;
  for (int32_t i = 0; i < n; ++i) values.push_back(at(i, i));
  std::sort(values.rbegin(), values.rend());
  return values;
}

TEST_CASE("a basis leaves hardly more of the prompt's keys out than the greatest eigenvectors do") {
  const auto dtype = GENERATE(DType::kF32, DType::kBf16);
  const int32_t rank = GENERATE(16, 32, 64);
  KeyWorld x(dtype, 64, 2, rank, 500, 500);
  Run(x, 0);
  const int32_t width = x.world.geometry.key_width();
  for (const int32_t row : {0, 1}) {
    const std::vector<double> basis = x.Basis(row);
    std::vector<double> gram(static_cast<size_t>(width * width), 0);
    double residue = 0, energy = 0;
    for (int32_t t = 0; t < x.prompts[row]; ++t) {
      const std::vector<double> key = x.Key(row, t);
      const std::vector<double> rebuilt = Expand(Project(key, basis), basis);
      for (int32_t c = 0; c < width; ++c) {
        residue += (key[c] - rebuilt[c]) * (key[c] - rebuilt[c]);
        for (int32_t k = 0; k < width; ++k) gram[c * width + k] += key[c] * key[k];
      }
      energy += Dot(key, key);
    }
    const std::vector<double> values = Eigenvalues(gram, width);
    const double least = std::accumulate(values.begin() + rank, values.end(), 0.0);
    // Elements of a rounded basis are off by up to 2^-9 of themselves; so then are the keys.
    const double rounding = dtype == DType::kF32 ? 1e-9 : std::pow(2.0, -16);
    INFO("row " << row << ": " << residue / energy << ", least " << least / energy);
    CHECK(residue >= least * (1 - 1e-6));
    CHECK(residue <= 1.1 * least + rounding * energy);
    CHECK(least < 0.25 * energy);  // there is something to find
  }
}

TEST_CASE("the columns of a basis are orthonormal, also where the keys do not span it") {
  const auto dtype = GENERATE(DType::kF32, DType::kBf16);
  const int32_t rank = GENERATE(64, 128);  // the keys have 40 directions, and noise
  KeyWorld x(dtype, 64, 2, rank, 300, 300);
  Run(x, 0);
  const std::vector<double> basis = x.Basis(0);
  double worst = 0;
  for (int32_t a = 0; a < rank; ++a) {
    for (int32_t b = 0; b <= a; ++b) {
      double dot = 0;
      for (int32_t c = 0; c < 128; ++c) dot += basis[c * rank + a] * basis[c * rank + b];
      worst = std::max(worst, std::abs(dot - (a == b ? 1 : 0)));
    }
  }
  CHECK(worst < (dtype == DType::kF32 ? 1e-5 : 5e-3));
}

TEST_CASE("keys of zero, and equal keys, have a finite basis that rebuilds them") {
  const float value = GENERATE(0.0f, 1.5f);
  KeyWorld x(DType::kF32, 64, 2, 32, 200, 200);
  Elements staging = x.MakeStaging();
  const KvGeometry& g = x.world.geometry;
  for (int64_t i = 0; i < staging.size(); ++i) staging.Set(i, 0);
  // Of every key the one channel that position 0 leaves as it is: rotation makes the others.
  const auto rotated = [&](int32_t t) {
    std::vector<double> key(64, 0);
    key[0] = double{value};
    return x.rotation(key, t);
  };
  for (const PrefillSlice& slice : x.slices) {
    for (int32_t t = 0; t < x.prompts[slice.row]; ++t) {
      const int64_t page = slice.page_begin + t / g.page_tokens;  // of head 0
      for (int32_t c = 0; c < 64; ++c) {
        staging.Set(page * g.page_elements() + g.KeyOffset(t % g.page_tokens) + c,
                    static_cast<float>(rotated(t)[c]));
      }
    }
  }
  cpu::KeyFactorPrefill(x.PrefillParams({staging.data(), x.staging_pages}), x.world.pool);
  std::vector<double> key(128, 0);
  key[0] = double{value};
  const std::vector<double> basis = x.Basis(0);
  const std::vector<double> rebuilt = Expand(Project(key, basis), basis);
  for (int32_t c = 0; c < 128; ++c) CHECK(std::abs(rebuilt[c] - key[c]) < 1e-4);
}

TEST_CASE(
    "factors of complete pages are the products of keys and basis, in prefill and in decode") {
  const auto dtype = GENERATE(DType::kF32, DType::kBf16);
  const int32_t d = GENERATE(64, 128);
  const int32_t heads = GENERATE(1, 3);
  const int32_t rank = GENERATE(16, 48, 64);
  KeyWorld x(dtype, d, heads, rank, d * heads + 4, d * heads + 40);
  Run(x, 29);
  for (const int32_t row : {0, 1}) {
    const std::vector<double> basis = x.Basis(row);
    const int32_t tokens = (x.prompts[row] + 29) / kLandmarkTokens * kLandmarkTokens;
    std::vector<double> expected, factors;
    for (int32_t t = 0; t < tokens; ++t) {
      const auto product = Project(x.Key(row, t), basis), factor = x.Factor(row, t);
      expected.insert(expected.end(), product.begin(), product.end());
      factors.insert(factors.end(), factor.begin(), factor.end());
    }
    CHECK(testing::RelativeError(factors, expected) < ToleranceOf(dtype) / 2);
    CHECK(std::isnan(x.Factor(row, tokens)[0]));  // incomplete: nobody wrote it
  }
  CHECK(std::isnan(x.Basis(2)[0]));  // a short prompt
  CHECK(std::isnan(x.Factor(2, 0)[0]));
}

TEST_CASE("a page has the same factor from prefill and from decode") {
  const auto dtype = GENERATE(DType::kF32, DType::kBf16);
  KeyWorld x(dtype, 64, 2, 32, 256, 320);
  Run(x, 0);
  // The last page of the prompt once more, as if decoding completed it.
  const auto before = x.Factor(1, 255);
  Step(x, {1}, 255, false);
  CHECK(x.Factor(1, 255) == before);
}

// Rows 1 and 2 select `ids`; what is missing is fetched and rebuilt. The slots' bytes before a fetch are NaN.
struct Fetch {
  Fetch(KeyWorld& x, int32_t row, int32_t position, const std::vector<int32_t>& ids,
        int32_t whole_last)
      : step({row}, 4), heads(static_cast<size_t>(x.world.geometry.num_kv_heads)) {
    step.position[row] = position;
    const auto n = static_cast<int32_t>(ids.size());
    std::vector<int32_t> all, count(heads, n), list_len(heads), list(heads * ids.size());
    for (size_t head = 0; head < heads; ++head) all.insert(all.end(), ids.begin(), ids.end());
    std::vector<int64_t> src(list.size());
    dst.resize(list.size());
    len.resize(heads);
    KvWorld& w = x.world;
    std::vector<RetrieveCounters> rows(static_cast<size_t>(w.geometry.max_rows));
    cpu::Lookup({.decode = step.view(),
                 .ids = all.data(),
                 .count = count.data(),
                 .max_selected = n,
                 .layer = kLayer,
                 .tables = w.tables,
                 .page_list = list.data(),
                 .list_len = list_len.data(),
                 .max_list = n,
                 .copy_src = src.data(),
                 .copy_dst = dst.data(),
                 .copy_len = len.data(),
                 .counters = rows.data()},
                w.pool);
    for (size_t head = 0; head < heads; ++head) {
      for (int32_t k = 0; k < len[head]; ++k) {
        std::memset(w.slots.data() + dst[head * ids.size() + k] * w.geometry.page_bytes(), 0xff,
                    static_cast<size_t>(w.geometry.page_bytes()));
      }
    }
    cpu::GatherPages({.decode = step.view(),
                      .layer = kLayer,
                      .whole_last = whole_last,
                      .list_len = list_len.data(),
                      .tables = w.tables,
                      .copy_src = src.data(),
                      .copy_dst = dst.data(),
                      .copy_len = len.data(),
                      .max_list = n},
                     w.pool);
    gathered = w.slots;
    counters = rows[static_cast<size_t>(row)];
    if (whole_last == 0) return;
    cpu::RebuildKeys({.decode = step.view(),
                      .layer = kLayer,
                      .whole_last = whole_last,
                      .list_len = list_len.data(),
                      .tables = w.tables,
                      .rope_table = x.rotation.table().data(),
                      .copy_dst = dst.data(),
                      .copy_len = len.data(),
                      .max_list = n,
                      .counters = rows.data()},
                     w.pool);
    counters = rows[static_cast<size_t>(row)];
  }
  using KvWorld = testing::KvWorld;
  StepRows step;
  size_t heads;
  std::vector<int32_t> dst, len;
  std::vector<uint8_t> gathered;  // the slots between the two
  RetrieveCounters counters;
};

// Each fetched page of the row: its values are the host's, its keys too or rebuilt. Returns how many were rebuilt.
int64_t CheckFetched(const KeyWorld& x, const Fetch& fetch, int32_t row, size_t num_ids) {
  const KvGeometry& g = x.world.geometry;
  const int32_t position = fetch.step.position[row];
  const std::vector<double> basis = x.Basis(row);
  const auto plane = static_cast<size_t>(g.page_bytes() / 2);
  int64_t rebuilt_pages = 0, wrong = 0;
  std::vector<double> got, expected;
  for (size_t head = 0; head < fetch.heads; ++head) {
    for (int32_t k = 0; k < fetch.len[head]; ++k) {
      const int32_t slot = fetch.dst[head * num_ids + k];
      const int32_t page = x.world.slot_owner[slot];
      const auto h = static_cast<int32_t>(head);
      const uint8_t* bytes = x.world.slots.data() + slot * g.page_bytes();
      const uint8_t* on_host =
          x.world.host.data() +
          x.world.Index(x.world.host_dir, row, kLayer, h, page) * g.page_bytes();
      wrong += std::memcmp(bytes + plane, on_host + plane, plane) != 0;
      if (x.IsWhole(row, h, page, position)) {
        wrong += std::memcmp(bytes, on_host, plane) != 0;
        continue;
      }
      ++rebuilt_pages;
      wrong += !std::isnan(x.world.At(fetch.gathered, slot, 0));  // the gather left the keys alone
      for (int32_t t = 0; t < g.page_tokens; ++t) {
        const int32_t token = page * g.page_tokens + t;
        const auto all = Expand(Project(x.Key(row, token), basis), basis);
        const auto key =
            x.rotation({all.begin() + h * g.head_dim, all.begin() + (h + 1) * g.head_dim}, token);
        for (int32_t c = 0; c < g.head_dim; ++c) {
          got.push_back(double{x.world.At(x.world.slots, slot, g.KeyOffset(t) + c)});
          expected.push_back(key[static_cast<size_t>(c)]);
        }
      }
    }
  }
  CHECK(wrong == 0);
  if (rebuilt_pages > 0) CHECK(testing::RelativeError(got, expected) < ToleranceOf(g.dtype));
  return rebuilt_pages;
}

// Fetched pages whose keys did not come.
int64_t WithoutKeys(const KeyWorld& x, const Fetch& fetch, size_t num_ids) {
  int64_t pages = 0;
  for (size_t head = 0; head < fetch.heads; ++head) {
    for (int32_t k = 0; k < fetch.len[head]; ++k) {
      pages += std::isnan(x.world.At(fetch.gathered, fetch.dst[head * num_ids + k], 0));
    }
  }
  return pages;
}

TEST_CASE(
    "missing pages come as values, and their keys are rebuilt; exact keys come where they must") {
  const auto dtype = GENERATE(DType::kF32, DType::kBf16);
  const int32_t d = GENERATE(64, 128);
  const int32_t heads = GENERATE(1, 3);
  const int32_t rank = GENERATE(16, 64);
  const int32_t prompt = d * heads + 3;
  KeyWorld x(dtype, d, heads, rank, prompt, prompt + 60);
  Run(x, 52);
  const KvGeometry& g = x.world.geometry;
  for (const int32_t row : {1, 2}) {
    const int32_t position = x.prompts[row] + 51;  // appended already: the tail is not fresh
    const int32_t tail = position / g.page_tokens;
    std::vector<int32_t> ids;
    for (int32_t page = tail % 2; page <= tail; page += page + 6 < tail ? 2 : 1)
      ids.push_back(page);
    if (ids.size() > KeyWorld::kSlots) ids.erase(ids.begin(), ids.end() - KeyWorld::kSlots);
    for (const int32_t page : ids) testing::EvictPage(x.world, row, kLayer, page);
    const Fetch fetch(x, row, position, ids, KeyWorld::kWholeLast);
    const int64_t rebuilt = CheckFetched(x, fetch, row, ids.size());
    const auto fetched = static_cast<int64_t>(ids.size()) * heads;
    CHECK(fetch.counters.misses == static_cast<uint64_t>(fetched));
    CHECK(fetch.counters.rebuilt == static_cast<uint64_t>(rebuilt));
    CHECK(fetch.counters.Bytes(100) == static_cast<uint64_t>(100 * fetched - 50 * rebuilt));
    if (row == 1) CHECK(rebuilt > fetched / 2);
    if (row == 2) CHECK(rebuilt == 0);
  }
  // Without a window every page is whole.
  for (int32_t page = 0; page < 10; ++page) testing::EvictPage(x.world, 1, kLayer, page);
  std::vector<int32_t> ids(10);
  std::iota(ids.begin(), ids.end(), 0);
  ids.push_back((prompt + 51) / g.page_tokens);
  const Fetch whole(x, 1, prompt + 51, ids, 0);
  CHECK(whole.counters.rebuilt == 0);
  CHECK(WithoutKeys(x, whole, ids.size()) == 0);
}

TEST_CASE("a stream that lists all of its pages gets exact keys") {
  const auto dtype = GENERATE(DType::kF32, DType::kBf16);
  KeyWorld x(dtype, 64, 2, 16, 131, 180);
  Run(x, 44);
  const int32_t position = 131 + 43;
  std::vector<int32_t> ids(static_cast<size_t>(position / x.world.geometry.page_tokens + 1));
  std::iota(ids.begin(), ids.end(), 0);
  const auto fetch = [&] {
    for (const int32_t page : ids) testing::EvictPage(x.world, 1, kLayer, page);
    return Fetch(x, 1, position, ids, KeyWorld::kWholeLast);
  };
  const Fetch whole = fetch();
  CHECK(whole.counters.misses == 2 * ids.size());
  CHECK(whole.counters.rebuilt == 0);
  CHECK(WithoutKeys(x, whole, ids.size()) == 0);
  ids.erase(ids.begin() + 1);
  const Fetch but_one = fetch();
  CHECK(but_one.counters.rebuilt > ids.size());
  CHECK(CheckFetched(x, but_one, 1, ids.size()) == static_cast<int64_t>(but_one.counters.rebuilt));
}

TEST_CASE("with all directions in the basis rebuilt keys are the keys") {
  const auto dtype = GENERATE(DType::kF32, DType::kBf16);
  KeyWorld x(dtype, 64, 2, 128, 300, 360);
  Run(x, 50);
  const KvGeometry& g = x.world.geometry;
  std::vector<double> kept, rebuilt;
  for (int32_t t = 0; t < 344; ++t) {
    const auto key = x.Key(1, t);
    const auto basis = x.Basis(1);
    if (t % 16 != 0) continue;
    const auto again = Expand(x.Factor(1, t), basis);
    kept.insert(kept.end(), key.begin(), key.end());
    rebuilt.insert(rebuilt.end(), again.begin(), again.end());
  }
  CHECK(g.key_rank == g.key_width());
  CHECK(testing::RelativeError(rebuilt, kept) < ToleranceOf(dtype));
}

}  // namespace
}  // namespace spin
