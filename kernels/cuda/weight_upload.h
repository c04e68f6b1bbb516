// Host weights onto the device, converted on the way, through pinned memory of the calling thread.
#pragma once

#include <cstdint>

#include "common/status.h"
#include "kernels/dtype.h"

namespace spin::cuda {

// `elements` of src_dtype at `src` (host) become `dtype` at `dst` (device). Returns when they are there. Any thread.
// ResourceExhausted where the thread gets no pinned memory or stream.
absl::Status UploadConverted(void* dst, DType dtype, const void* src, DType src_dtype,
                             int64_t elements);

}  // namespace spin::cuda
