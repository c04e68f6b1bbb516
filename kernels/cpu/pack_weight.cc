#include "kernels/cpu/pack_weight.h"

#include <algorithm>

#include "common/check.h"
#include "common/math.h"
#include "kernels/cpu/weight_layout.h"

namespace spin::cpu {
namespace {

// Elements of a panel.
int64_t PanelElements(int32_t k, DType dtype) {
  return int64_t{kPanelRows} * (dtype == DType::kF32 ? k : RoundUp(k, 2));
}

// Elements of a file, which need not lie at a multiple of their size.
struct [[gnu::packed]] F32 {
  float value;
};
struct [[gnu::packed]] Bf16 {
  uint16_t bits;
};
struct [[gnu::packed]] F16 {
  uint16_t bits;
};
float ToFloat(const F32* p) {
  return p->value;
}
float ToFloat(const Bf16* p) {
  return Bf16ToFloat(p->bits);
}
float ToFloat(const F16* p) {
  return F16ToFloat(p->bits);
}

template <typename Src>
uint16_t ToBf16(const Src* p) {
  return FloatToBf16(ToFloat(p));
}
uint16_t ToBf16(const Bf16* p) {
  return p->bits;
}

// Sixteen columns of k at a time for all rows of a panel: the writes of a step stay in the
// first-level cache.
constexpr int32_t kStep = 16;

template <typename Src>
void PackPanelF32(float* panel, int32_t k, int32_t row_begin, int32_t rows, const Src* src) {
  for (int32_t begin = 0; begin < k; begin += kStep) {
    const int32_t end = std::min(k, begin + kStep);
    for (int32_t r = 0; r < rows; ++r) {
      const Src* row = src + int64_t{r} * k;
      for (int32_t i = begin; i < end; ++i)
        panel[int64_t{i} * kPanelRows + row_begin + r] = ToFloat(row + i);
    }
  }
}

template <typename Src>
void PackPanelBf16(uint16_t* panel, int32_t k, int32_t row_begin, int32_t rows, const Src* src) {
  const int32_t padded = RoundUp(k, 2);
  for (int32_t begin = 0; begin < padded; begin += kStep) {
    const int32_t end = std::min(padded, begin + kStep);
    for (int32_t r = 0; r < rows; ++r) {
      const Src* row = src + int64_t{r} * k;
      for (int32_t i = begin; i < end; ++i) {
        const int64_t at = (int64_t{i / 2} * kPanelRows + row_begin + r) * 2 + i % 2;
        panel[at] = i < k ? ToBf16(row + i) : uint16_t{0};
      }
    }
  }
}

template <typename Src>
void PackRows(void* dst, int32_t k, DType dtype, int32_t row_begin, int32_t rows, const Src* src) {
  const int64_t panel_elements = PanelElements(k, dtype);
  while (rows > 0) {
    const int64_t panel = row_begin / kPanelRows;
    const int32_t in_panel = row_begin % kPanelRows;
    const int32_t count = std::min(rows, kPanelRows - in_panel);
    if (dtype == DType::kF32) {
      PackPanelF32(static_cast<float*>(dst) + panel * panel_elements, k, in_panel, count, src);
    } else {
      PackPanelBf16(static_cast<uint16_t*>(dst) + panel * panel_elements, k, in_panel, count, src);
    }
    row_begin += count;
    rows -= count;
    src += int64_t{count} * k;
  }
}

}  // namespace

int64_t PackedWeightBytes(int32_t n, int32_t k, DType dtype) {
  SPIN_CHECK(dtype == DType::kF32 || dtype == DType::kBf16);
  return CeilDiv(n, kPanelRows) * PanelElements(k, dtype) * SizeOf(dtype);
}

void PackWeight(void* dst, int32_t n, int32_t k, DType dtype, int32_t row_begin, int32_t rows,
                const void* src, DType src_dtype) {
  SPIN_CHECK(dtype == DType::kF32 || dtype == DType::kBf16);
  SPIN_CHECK_GE(row_begin, 0);
  SPIN_CHECK_LE(row_begin + rows, n);
  switch (src_dtype) {
    case DType::kF32:
      return PackRows(dst, k, dtype, row_begin, rows, static_cast<const F32*>(src));
    case DType::kBf16:
      return PackRows(dst, k, dtype, row_begin, rows, static_cast<const Bf16*>(src));
    case DType::kF16:
      return PackRows(dst, k, dtype, row_begin, rows, static_cast<const F16*>(src));
  }
}

}  // namespace spin::cpu
