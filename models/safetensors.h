// One safetensors file: an 8-byte header length, a JSON header, then the tensors' bytes.
// Memory-mapped, nothing copied.
//
// Immutable after Open; any thread may read. Views live as long as the object.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "common/mapped_file.h"
#include "common/status.h"
#include "kernels/dtype.h"

namespace spin {

struct TensorView {
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;  // row-major, exactly the shape's size
};

// Parses header and views of a whole file's bytes. InvalidArgument for anything that does not add
// up: header outside of the file, bad JSON, unknown element type, negative or overflowing shape,
// data outside of the file or of another size than shape and type say. Tensors of types that the
// server never reads (integers, fp8) are left out.
absl::StatusOr<std::map<std::string, TensorView>> ParseSafetensors(std::span<const std::byte> file);

// The header's __metadata__, empty without. InvalidArgument as above, and for values that are no strings.
absl::StatusOr<std::map<std::string, std::string>> ParseSafetensorsMetadata(
    std::span<const std::byte> file);

class SafetensorsFile {
 public:
  static absl::StatusOr<SafetensorsFile> Open(const std::string& path);
  const std::map<std::string, TensorView>& tensors() const { return tensors_; }
  absl::StatusOr<std::map<std::string, std::string>> Metadata() const {
    return ParseSafetensorsMetadata(file_.bytes());
  }

 private:
  explicit SafetensorsFile(MappedFile file) : file_(std::move(file)) {}

  MappedFile file_;
  std::map<std::string, TensorView> tensors_;
};

}  // namespace spin
