#include "models/safetensors.h"

#include <cstring>
#include <optional>
#include <string_view>
#include <utility>

#include "models/json_reader.h"

namespace spin {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100 << 20;  // as the reference implementation
constexpr std::size_t kMaxDimensions = 8;

std::optional<DType> ParseDtype(const std::string& name) {
  if (name == "BF16") return DType::kBf16;
  if (name == "F16") return DType::kF16;
  if (name == "F32") return DType::kF32;
  return std::nullopt;
}

// A non-negative integer of a JSON value, or nothing.
std::optional<uint64_t> AsSize(const Json& value) {
  if (!value.is_number_unsigned()) return std::nullopt;
  return value.get<uint64_t>();
}

absl::StatusOr<std::optional<TensorView>> ParseTensor(const std::string& name, const Json& entry,
                                                      std::span<const std::byte> data) {
  const auto bad = [&](const char* what) {
    return InvalidArgument("safetensors: tensor '%s' %s", name.substr(0, 200), what);
  };
  if (!entry.is_object()) return bad("is not described by an object");
  const auto dtype_name = entry.find("dtype");
  const auto shape = entry.find("shape");
  const auto offsets = entry.find("data_offsets");
  if (dtype_name == entry.end() || !dtype_name->is_string()) return bad("has no dtype");
  if (shape == entry.end() || !shape->is_array()) return bad("has no shape");
  if (offsets == entry.end() || !offsets->is_array() || offsets->size() != 2) {
    return bad("has no data_offsets");
  }
  const auto begin = AsSize((*offsets)[0]);
  const auto end = AsSize((*offsets)[1]);
  if (!begin || !end || *begin > *end || *end > data.size()) {
    return bad("lies outside of the file (truncated download?)");
  }
  const std::optional<DType> dtype = ParseDtype(dtype_name->get<std::string>());
  if (!dtype.has_value()) return std::optional<TensorView>();
  TensorView view;
  view.dtype = *dtype;
  view.bytes = data.subspan(*begin, *end - *begin);
  if (shape->size() > kMaxDimensions) return bad("has too many dimensions");
  uint64_t bytes = static_cast<uint64_t>(SizeOf(*dtype));
  for (const Json& item : *shape) {
    const auto dimension = AsSize(item);
    if (!dimension || *dimension > uint64_t{1} << 40) return bad("has a bad shape");
    view.shape.push_back(static_cast<int64_t>(*dimension));
    if (__builtin_mul_overflow(bytes, *dimension, &bytes)) return bad("has a bad shape");
  }
  if (bytes != view.bytes.size()) return bad("has another size than its shape says");
  return std::optional<TensorView>(std::move(view));
}

// The header; `file` becomes the tensors' bytes behind it.
absl::StatusOr<Json> ParseHeader(std::span<const std::byte>& file) {
  uint64_t header_bytes = 0;
  if (file.size() < sizeof(header_bytes)) {
    return InvalidArgument("safetensors: %d bytes are no header", file.size());
  }
  std::memcpy(&header_bytes, file.data(), sizeof(header_bytes));
  file = file.subspan(sizeof(header_bytes));
  if (header_bytes > kMaxHeaderBytes || header_bytes > file.size()) {
    return InvalidArgument("safetensors: a header of %d bytes does not fit into the file",
                           header_bytes);
  }
  const std::string_view text(reinterpret_cast<const char*>(file.data()), header_bytes);
  file = file.subspan(header_bytes);
  return ParseJsonObject(text, "safetensors header");
}

}  // namespace

absl::StatusOr<std::map<std::string, TensorView>> ParseSafetensors(
    std::span<const std::byte> file) {
  SPIN_ASSIGN_OR_RETURN(const Json header, ParseHeader(file));
  std::map<std::string, TensorView> tensors;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    SPIN_ASSIGN_OR_RETURN(std::optional<TensorView> view, ParseTensor(name, entry, file));
    if (view.has_value()) tensors.emplace(name, *std::move(view));
  }
  return tensors;
}

absl::StatusOr<std::map<std::string, std::string>> ParseSafetensorsMetadata(
    std::span<const std::byte> file) {
  SPIN_ASSIGN_OR_RETURN(const Json header, ParseHeader(file));
  std::map<std::string, std::string> metadata;
  const auto found = header.find("__metadata__");
  if (found == header.end()) return metadata;
  if (!found->is_object()) return InvalidArgument("safetensors: __metadata__ is no object");
  for (const auto& [key, value] : found->items()) {
    if (!value.is_string()) {
      return InvalidArgument("safetensors: __metadata__ '%s' is no string", key.substr(0, 200));
    }
    metadata.emplace(key, value.get<std::string>());
  }
  return metadata;
}

absl::StatusOr<SafetensorsFile> SafetensorsFile::Open(const std::string& path) {
  SPIN_ASSIGN_OR_RETURN(MappedFile mapped, MappedFile::Open(path));
  SafetensorsFile file(std::move(mapped));
  auto tensors = ParseSafetensors(file.file_.bytes());
  if (!tensors.ok()) return Annotate(tensors.status(), path);
  file.tensors_ = *std::move(tensors);
  return file;
}

}  // namespace spin
