#include "kernels/cpu/key_products.h"

#include <algorithm>
#include <cmath>

#include "kernels/cpu/lanes.h"
#include "kernels/params.h"

namespace spin::cpu {
namespace {

constexpr int32_t kPageTokens = kLandmarkTokens;
constexpr int32_t kRowsAtOnce = 4;  // outputs that share one read of a vector

// Rows i .. i + 3 of AddGram.
SPIN_INLINE void GramBody(const float* x, int32_t n, int32_t width, int32_t i, float* gram) {
  for (int32_t j = i / kLanes * kLanes; j < width; j += kLanes) {
    F32x16 sum[kRowsAtOnce];
    for (int32_t r = 0; r < kRowsAtOnce; ++r) LoadLanes(gram + int64_t{i + r} * width + j, sum[r]);
    for (int32_t t = 0; t < n; ++t) {
      const float* token = x + int64_t{t} * width;
      F32x16 of_token;
      LoadLanes(token + j, of_token);
      for (int32_t r = 0; r < kRowsAtOnce; ++r) sum[r] += token[i + r] * of_token;
    }
    for (int32_t r = 0; r < kRowsAtOnce; ++r) {
      std::memcpy(gram + int64_t{i + r} * width + j, &sum[r], sizeof(F32x16));
    }
  }
}

// Rows i .. i + kRows - 1 of out = a b for a [..][k], b [k][n]; n is a multiple of 16.
template <int32_t kRows, typename B>
SPIN_INLINE void ProductBody(const float* a, const B* b, int32_t k, int32_t n, float* out) {
  for (int32_t j = 0; j < n; j += kLanes) {
    F32x16 sum[kRows] = {};
    for (int32_t c = 0; c < k; ++c) {
      F32x16 of_b;
      LoadLanes(b + int64_t{c} * n + j, of_b);
      for (int32_t r = 0; r < kRows; ++r) sum[r] += a[int64_t{r} * k + c] * of_b;
    }
    for (int32_t r = 0; r < kRows; ++r) {
      std::memcpy(out + int64_t{r} * n + j, &sum[r], sizeof(F32x16));
    }
  }
}

template <typename B>
SPIN_INLINE void ExpandBody(const float* factor, const B* basis, int32_t d, int32_t rank,
                            float* out) {
  for (int32_t c = 0; c < d; ++c, basis += rank) {
    F32x16 sum[kPageTokens] = {};
    for (int32_t r = 0; r < rank; r += kLanes) {
      F32x16 of_basis;
      LoadLanes(basis + r, of_basis);
      for (int32_t t = 0; t < kPageTokens; ++t) {
        F32x16 of_factor;
        LoadLanes(factor + t * rank + r, of_factor);
        sum[t] += of_factor * of_basis;
      }
    }
    for (int32_t t = 0; t < kPageTokens; ++t) out[t * d + c] = SumLanes(sum[t]);
  }
}

SPIN_MULTI_ISA(void, GramRows, (const float* x, int32_t n, int32_t width, int32_t i, float* gram),
               GramBody(x, n, width, i, gram), (x, n, width, i, gram))
SPIN_MULTI_ISA(void, SpanRows, (const float* a, const float* b, int32_t k, int32_t n, float* out),
               ProductBody<kRowsAtOnce>(a, b, k, n, out), (a, b, k, n, out))
SPIN_MULTI_ISA(void, ProjectF32, (const float* a, const float* b, int32_t k, int32_t n, float* out),
               ProductBody<kPageTokens>(a, b, k, n, out), (a, b, k, n, out))
SPIN_MULTI_ISA(void, ProjectBf16,
               (const float* a, const uint16_t* b, int32_t k, int32_t n, float* out),
               ProductBody<kPageTokens>(a, b, k, n, out), (a, b, k, n, out))
SPIN_MULTI_ISA(void, ExpandF32,
               (const float* factor, const float* basis, int32_t d, int32_t rank, float* out),
               ExpandBody(factor, basis, d, rank, out), (factor, basis, d, rank, out))
SPIN_MULTI_ISA(void, ExpandBf16,
               (const float* factor, const uint16_t* basis, int32_t d, int32_t rank, float* out),
               ExpandBody(factor, basis, d, rank, out), (factor, basis, d, rank, out))

// Fills the lower half of gram, and adds a share of the mean of its diagonal to it.
void CompleteGram(float* gram, int32_t width) {
  double trace = 0;
  for (int32_t i = 0; i < width; ++i) trace += double{gram[int64_t{i} * width + i]};
  const auto shift = static_cast<float>(double{kKeyShift} * trace / width);
  for (int32_t i = 0; i < width; ++i) {
    for (int32_t j = 0; j < i; ++j) gram[int64_t{i} * width + j] = gram[int64_t{j} * width + i];
    gram[int64_t{i} * width + i] += shift;
  }
}

// products = z^T z, left of the diagonal and on it. In double: the square of z's condition must fit.
void AddProducts(const KeyScratch& s, int32_t width, int32_t rank, ThreadPool& pool) {
  pool.ParallelFor(rank, 4, [&](int64_t begin, int64_t end) {
    for (int64_t a = begin; a < end; ++a) {
      double* row = s.products + a * rank;
      std::fill_n(row, a + 1, 0.0);
      for (int32_t i = 0; i < width; ++i) {
        const float* z = s.z + int64_t{i} * rank;
        const double of_a = double{z[a]};
        for (int64_t b = 0; b <= a; ++b) row[b] += of_a * double{z[b]};
      }
    }
  });
}

// products = L with L L^T = products, in place; inverse = 1 / its diagonal, or 0 for a column that the columns before
// it span: q's column is 0 then.
void Factorise(const KeyScratch& s, int32_t rank) {
  constexpr double kLeast = 1e-15;  // of a column's own square
  for (int32_t j = 0; j < rank; ++j) {
    double* row = s.products + int64_t{j} * rank;
    const double square = row[j];
    for (int32_t i = 0; i <= j; ++i) {
      const double* other = s.products + int64_t{i} * rank;
      double sum = row[i];
      for (int32_t k = 0; k < i; ++k) sum -= row[k] * other[k];
      if (i < j) {
        row[i] = sum * s.inverse[i];
      } else {
        s.inverse[j] = sum > kLeast * square ? 1 / std::sqrt(sum) : 0;
      }
    }
  }
}

// Rows begin .. end - 1 of q = z L^-T.
void SolveRows(const KeyScratch& s, int64_t begin, int64_t end, int32_t rank) {
  double solved[kMaxKeyRank];
  for (int64_t i = begin; i < end; ++i) {
    const float* z = s.z + i * rank;
    float* q = s.q + i * rank;
    for (int32_t j = 0; j < rank; ++j) {
      const double* row = s.products + int64_t{j} * rank;
      double sum = double{z[j]};
      for (int32_t k = 0; k < j; ++k) sum -= solved[k] * row[k];
      solved[j] = sum * s.inverse[j];
      q[j] = static_cast<float>(solved[j]);
    }
  }
}

}  // namespace

KeyScratch::KeyScratch(void* scratch, int32_t width, int32_t rank)
    : gram(static_cast<float*>(scratch)),
      q(gram + int64_t{width} * width),
      z(q + int64_t{width} * rank),
      products(reinterpret_cast<double*>(z + int64_t{width} * rank)),
      inverse(products + int64_t{rank} * rank) {}

void AddGram(const float* x, int32_t n, int32_t width, float* gram, ThreadPool& pool) {
  pool.ParallelFor(width / kRowsAtOnce, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      GramRows(x, n, width, static_cast<int32_t>(i) * kRowsAtOnce, gram);
    }
  });
}

void FindSubspace(const KeyScratch& s, int32_t width, int32_t rank, ThreadPool& pool) {
  CompleteGram(s.gram, width);
  for (int32_t i = 0; i < width * rank; ++i) s.q[i] = KeyStart(static_cast<uint32_t>(i));
  for (int32_t iteration = 0; iteration < kKeyIterations; ++iteration) {
    pool.ParallelFor(width / kRowsAtOnce, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t row = i * kRowsAtOnce;
        SpanRows(s.gram + row * width, s.q, width, rank, s.z + row * rank);
      }
    });
    AddProducts(s, width, rank, pool);
    Factorise(s, rank);
    pool.ParallelFor(width, 16,
                     [&](int64_t begin, int64_t end) { SolveRows(s, begin, end, rank); });
  }
}

void ProjectPage(const float* x, const float* basis, int32_t width, int32_t rank, float* out) {
  ProjectF32(x, basis, width, rank, out);
}
void ProjectPage(const float* x, const uint16_t* basis, int32_t width, int32_t rank, float* out) {
  ProjectBf16(x, basis, width, rank, out);
}

void ExpandPage(const float* factor, const float* basis, int32_t d, int32_t rank, float* out) {
  ExpandF32(factor, basis, d, rank, out);
}
void ExpandPage(const float* factor, const uint16_t* basis, int32_t d, int32_t rank, float* out) {
  ExpandBf16(factor, basis, d, rank, out);
}

}  // namespace spin::cpu
