#include "kernels/cpu/cluster_means.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "common/check.h"
#include "common/math.h"
#include "kernels/cpu/element.h"
#include "kernels/cpu/isa.h"

namespace spin::cpu {
namespace {

constexpr int64_t kAlignment = 64;
static_assert(kExtentTokens / kClusterTokens % kClusterPanel == 0);

// The arrays of a k-means, one behind the other in the scratch.
struct Arrays {
  float* x = nullptr;          // [n][d] keys without their mean, rounded to the pages' type
  float* panels = nullptr;     // [C / 32][d][32] centroids, rounded likewise
  float* sums = nullptr;       // [C][d]
  float* mean = nullptr;       // [d]
  int32_t* cluster = nullptr;  // [n]
  int32_t* count = nullptr;    // [C]
  int32_t* token = nullptr;    // [n], SegmentOrder
  int32_t* begin = nullptr;    // [C + 1]

  // Bytes from `scratch` on; a null one only counts.
  int64_t Take(char* scratch, int64_t n, int64_t d) {
    const int64_t clusters = n / kClusterTokens;
    int64_t used = 0;
    const auto take = [&](auto*& array, int64_t size) {
      if (scratch != nullptr)
        array = reinterpret_cast<std::decay_t<decltype(array)>>(scratch + used);
      used += RoundUp(size * 4, kAlignment);
    };
    take(x, n * d);
    take(panels, clusters * d);
    take(sums, clusters * d);
    take(mean, d);
    take(cluster, n);
    take(count, clusters);
    take(token, n);
    take(begin, clusters + 1);
    return used;
  }
};

template <typename T>
float Rounded(float value) {
  return ToFloat(FromFloat<T>(value));
}

template <typename T>
const T* KeyAt(const KvGeometry& g, const ClusterSegment& s, int32_t token) {
  return static_cast<const T*>(s.pages) + token / g.page_tokens * g.page_elements() +
         g.KeyOffset(token % g.page_tokens);
}

void SetCentroid(Arrays& a, int32_t d, int32_t centroid, int32_t c, float value) {
  a.panels[(int64_t{centroid / kClusterPanel} * d + c) * kClusterPanel + centroid % kClusterPanel] =
      value;
}

// x, and the first centroids.
template <typename T>
void Begin(const KvGeometry& g, const ClusterSegment& s, Arrays& a) {
  const int32_t d = g.head_dim;
  const int32_t n = s.num_tokens - s.num_fixed;
  std::fill_n(a.mean, d, 0.0f);
  for (int32_t t = 0; t < n; ++t) {
    const T* key = KeyAt<T>(g, s, s.num_fixed + t);
    for (int32_t c = 0; c < d; ++c) a.mean[c] += ToFloat(key[c]);
  }
  for (int32_t c = 0; c < d; ++c) a.mean[c] /= static_cast<float>(n);
  for (int32_t t = 0; t < n; ++t) {
    const T* key = KeyAt<T>(g, s, s.num_fixed + t);
    float* x = a.x + int64_t{t} * d;
    for (int32_t c = 0; c < d; ++c) x[c] = Rounded<T>(ToFloat(key[c]) - a.mean[c]);
  }
  const int32_t clusters = s.num_clusters();
  for (int32_t i = 0; i < clusters; ++i) {
    const float* x = a.x + (2 * i + 1) * int64_t{n} / (2 * clusters) * d;
    for (int32_t c = 0; c < d; ++c) SetCentroid(a, d, i, c, x[c]);
  }
}

// Centroids from the assignment: the directions of the means.
template <typename T>
void Update(int32_t n, int32_t d, int32_t clusters, Arrays& a) {
  std::fill_n(a.sums, int64_t{clusters} * d, 0.0f);
  std::fill_n(a.count, clusters, 0);
  for (int32_t t = 0; t < n; ++t) {
    const float* x = a.x + int64_t{t} * d;
    float* sum = a.sums + int64_t{a.cluster[t]} * d;
    for (int32_t c = 0; c < d; ++c) sum[c] += x[c];
    ++a.count[a.cluster[t]];
  }
  for (int32_t i = 0; i < clusters; ++i) {
    if (a.count[i] == 0) continue;
    float* mean = a.sums + int64_t{i} * d;
    float squares = 0;
    for (int32_t c = 0; c < d; ++c) {
      mean[c] /= static_cast<float>(a.count[i]);
      squares += mean[c] * mean[c];
    }
    if (squares == 0) continue;
    const float norm = std::sqrt(squares);
    for (int32_t c = 0; c < d; ++c) {
      SetCentroid(a, d, i, c, Rounded<T>(mean[c] / norm));
    }
  }
}

// Places by cluster; tokens of one cluster keep their order.
SegmentOrder Order(const ClusterSegment& s, Arrays& a) {
  const int32_t clusters = s.num_clusters();
  const int32_t n = s.num_tokens - s.num_fixed;
  std::fill_n(a.count, clusters, 0);
  for (int32_t t = 0; t < n; ++t) ++a.count[a.cluster[t]];
  a.begin[0] = s.num_fixed;
  for (int32_t i = 0; i < clusters; ++i) a.begin[i + 1] = a.begin[i] + a.count[i];
  std::copy_n(a.begin, clusters, a.count);  // now the next place of each cluster
  for (int32_t t = 0; t < s.num_fixed; ++t) a.token[t] = t;
  for (int32_t t = 0; t < n; ++t) a.token[a.count[a.cluster[t]]++] = s.num_fixed + t;
  return {a.token, a.begin};
}

template <typename T>
SegmentOrder Find(const KvGeometry& g, const ClusterSegment& s, Arrays& a) {
  const int32_t n = s.num_tokens - s.num_fixed;
  Begin<T>(g, s, a);
  for (int32_t i = 0; i < kClusterIterations; ++i) {
    if (i > 0) Update<T>(n, g.head_dim, s.num_clusters(), a);
    Kernels().assign_clusters(a.x, n, g.head_dim, a.panels, s.num_clusters(), a.cluster);
  }
  return Order(s, a);
}

// Means of keys (plane 0) or values (plane 1) of the tokens in places [begin, end).
template <typename T>
void WriteMean(const KvGeometry& g, const ClusterSegment& s, const SegmentOrder& order,
               int32_t begin, int32_t end, int64_t plane, T* mean) {
  constexpr int32_t kMaxHeadDim = 128;
  float sum[kMaxHeadDim] = {};
  for (int32_t place = begin; place < end; ++place) {
    const T* from = KeyAt<T>(g, s, order.token[place]) + plane * g.plane_elements();
    for (int32_t c = 0; c < g.head_dim; ++c) sum[c] += ToFloat(from[c]);
  }
  for (int32_t c = 0; c < g.head_dim; ++c) {
    mean[c] = FromFloat<T>(sum[c] / static_cast<float>(end - begin));
  }
}

template <typename T>
void WriteRecord(const KvGeometry& g, const ClusterSegment& s, const SegmentOrder& order, int32_t c,
                 int32_t first, T* record) {
  const int32_t begin = order.begin[c], end = order.begin[c + 1];
  if (begin < end) {
    WriteMean(g, s, order, begin, end, 0, record);
    WriteMean(g, s, order, begin, end, 1, record + g.head_dim);
  } else {
    record[0] = FromFloat<T>(NAN);
  }
  const ClusterRun run = {.begin = first + begin, .size = end - begin};
  std::memcpy(record + 2 * g.head_dim, &run, sizeof(run));
}

}  // namespace

int64_t ClusterScratchBytes(const KvGeometry& g, int32_t max_tokens) {
  return Arrays().Take(nullptr, max_tokens, g.head_dim);
}

SegmentOrder FindClusters(const KvGeometry& g, const ClusterSegment& segment, void* scratch) {
  SPIN_CHECK(segment.num_tokens > 0 && segment.num_tokens % kExtentTokens == 0);
  Arrays arrays;
  arrays.Take(static_cast<char*>(scratch), segment.num_tokens, g.head_dim);
  return g.dtype == DType::kF32 ? Find<float>(g, segment, arrays)
                                : Find<uint16_t>(g, segment, arrays);
}

void WriteClusterRecord(const KvGeometry& g, const ClusterSegment& segment,
                        const SegmentOrder& order, int32_t c, int32_t first, void* record) {
  if (g.dtype == DType::kF32) {
    WriteRecord(g, segment, order, c, first, static_cast<float*>(record));
  } else {
    WriteRecord(g, segment, order, c, first, static_cast<uint16_t*>(record));
  }
}

}  // namespace spin::cpu
