// RetroInfer's estimate: attention to clusters by their centroids and mean values.
#include <cmath>
#include <type_traits>
#include <vector>

#include "kernels/cpu/cluster_record.h"
#include "kernels/cpu/families.h"
#include "kernels/cpu/lanes.h"
#include "kernels/cpu/row_math.h"

namespace spin::cpu {
namespace {

constexpr int32_t kMaxHeadDim = 128;

template <typename T>
SPIN_INLINE float DotBody(const float* query, const T* centroid, int32_t d) {
  F32x16 sum = {};
  for (int32_t c = 0; c < d; c += kLanes) {
    F32x16 q, k;
    LoadLanes(query + c, q);
    LoadLanes(centroid + c, k);
    sum += q * k;
  }
  return SumLanes(sum);
}

template <typename T>
SPIN_INLINE void AddBody(float weight, const T* mean, int32_t d, float* sum) {
  for (int32_t c = 0; c < d; c += kLanes) {
    F32x16 s, v;
    LoadLanes(sum + c, s);
    LoadLanes(mean + c, v);
    s += weight * v;
    std::memcpy(sum + c, &s, sizeof(s));
  }
}

// Centroid and mean value of one cluster, for a query head.
SPIN_MULTI_ISA(float, DotF32, (const float* q, const float* k, int32_t d), DotBody(q, k, d),
               (q, k, d))
SPIN_MULTI_ISA(float, DotBf16, (const float* q, const uint16_t* k, int32_t d), DotBody(q, k, d),
               (q, k, d))
SPIN_MULTI_ISA(void, AddF32, (float w, const float* v, int32_t d, float* sum),
               AddBody(w, v, d, sum), (w, v, d, sum))
SPIN_MULTI_ISA(void, AddBf16, (float w, const uint16_t* v, int32_t d, float* sum),
               AddBody(w, v, d, sum), (w, v, d, sum))

template <typename T>
float Dot(const float* q, const T* k, int32_t d) {
  if constexpr (std::is_same_v<T, float>) {
    return DotF32(q, k, d);
  } else {
    return DotBf16(q, k, d);
  }
}
template <typename T>
void Add(float weight, const T* v, int32_t d, float* sum) {
  if constexpr (std::is_same_v<T, float>) {
    AddF32(weight, v, d, sum);
  } else {
    AddBf16(weight, v, d, sum);
  }
}

// Query head `q_head` of batch place `place`.
template <typename T>
void EstimateHead(const ClusterEstimateParams& p, int32_t place, int32_t q_head) {
  const KvTables& t = p.tables;
  const KvGeometry& g = t.geometry;
  const int32_t d = g.head_dim;
  const int32_t head = q_head / g.group();
  const int64_t i = int64_t{place} * g.num_kv_heads + head;
  const int32_t* ids = p.estimate_ids + i * p.max_estimate;
  const int32_t count = p.estimate_count[i];
  SPIN_CHECK(count >= 0 && count <= p.max_estimate);
  float* sum = p.partial + (int64_t{place} * g.num_q_heads + q_head) * (d + 2);
  std::fill_n(sum, d, 0.0f);
  sum[d] = -INFINITY;
  sum[d + 1] = 0;
  if (count == 0) return;

  const int64_t width = int64_t{g.num_q_heads + 2 * g.num_kv_heads} * d;
  const T* q = static_cast<const T*>(p.qkv) + place * width + int64_t{q_head} * d;
  alignas(64) float query[kMaxHeadDim];
  ConvertElements(query, DType::kF32, q, g.dtype, d);
  const float scale = 1.0f / std::sqrt(static_cast<float>(d));
  for (int32_t c = 0; c < d; ++c) query[c] *= scale;

  const StreamView stream(t, p.decode.rows[place], p.layer, head);
  thread_local std::vector<float> weights;  // grows at first use only
  if (static_cast<int32_t>(weights.size()) < p.max_estimate) {
    weights.resize(static_cast<size_t>(p.max_estimate));
  }
  float* const weight = weights.data();
  for (int32_t k = 0; k < count; ++k) {
    weight[k] = Dot(query, ClusterRecordAt<T>(t, stream, ids[k]), d);
  }
  sum[d] = RowMax(weight, count);
  RowExpSum(weight, count, sum[d], 1.0f, weight);
  for (int32_t k = 0; k < count; ++k) {
    const T* record = ClusterRecordAt<T>(t, stream, ids[k]);
    const float of_all = weight[k] * static_cast<float>(RunOf(record, d).size);
    Add(of_all, record + d, d, sum);
    sum[d + 1] += of_all;
  }
}

}  // namespace

void ClusterEstimate(const ClusterEstimateParams& p, ThreadPool& pool) {
  const KvGeometry& g = p.tables.geometry;
  SPIN_CHECK(g.head_dim % kLanes == 0 && g.head_dim <= kMaxHeadDim);
  SPIN_CHECK_EQ(g.summary_elements, 2 * g.head_dim + kClusterTailElements);
  SPIN_CHECK(g.dtype == DType::kF32 || g.dtype == DType::kBf16);
  const int64_t heads = int64_t{NumRows(p.decode)} * g.num_q_heads;
  pool.ParallelFor(heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto place = static_cast<int32_t>(i / g.num_q_heads);
      const auto q_head = static_cast<int32_t>(i % g.num_q_heads);
      g.dtype == DType::kF32 ? EstimateHead<float>(p, place, q_head)
                             : EstimateHead<uint16_t>(p, place, q_head);
    }
  });
}

}  // namespace spin::cpu
