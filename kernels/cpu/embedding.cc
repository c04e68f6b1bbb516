// Rows picked by index: token embeddings to the residual stream, and rows of it.
#include <cstring>

#include "common/check.h"
#include "kernels/cpu/families.h"

namespace spin::cpu {
namespace {

// Rows a thread takes at least: below, waking another thread costs more than the copy.
constexpr int64_t kGrainRows = 8;

void ConvertRow(const void* table, DType dtype, int64_t row, int32_t width, float* out) {
  const int64_t at = row * width;
  switch (dtype) {
    case DType::kF32:
      std::memcpy(out, static_cast<const float*>(table) + at, size_t(width) * sizeof(float));
      return;
    case DType::kBf16: {
      const uint16_t* in = static_cast<const uint16_t*>(table) + at;
      for (int32_t i = 0; i < width; ++i) out[i] = Bf16ToFloat(in[i]);
      return;
    }
    case DType::kF16: {
      const uint16_t* in = static_cast<const uint16_t*>(table) + at;
      for (int32_t i = 0; i < width; ++i) out[i] = F16ToFloat(in[i]);
      return;
    }
  }
}

}  // namespace

void Embedding(const EmbeddingParams& p, ThreadPool& pool) {
  const bool decode = p.ids == nullptr;
  const int64_t n = decode ? *p.decode.num_rows : p.n;
  SPIN_CHECK_LE(n, p.n);
  pool.ParallelFor(n, kGrainRows, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int32_t id = decode ? p.decode.token[p.decode.rows[i]] : p.ids[i];
      ConvertRow(p.table, p.dtype, id, p.hidden, p.out + i * p.hidden);
    }
  });
}

void GatherRows(const GatherRowsParams& p, ThreadPool& pool) {
  pool.ParallelFor(p.n, kGrainRows, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      std::memcpy(p.out + i * p.width, p.in + int64_t{p.index[i]} * p.width,
                  size_t(p.width) * sizeof(float));
    }
  });
}

}  // namespace spin::cpu
