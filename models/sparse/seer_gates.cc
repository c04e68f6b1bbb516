#include "models/sparse/seer_gates.h"

#include <absl/strings/numbers.h>
#include <absl/strings/str_join.h>

#include <memory>
#include <utility>

#include "common/check.h"

namespace spin {
namespace {

std::string TensorName(int32_t layer, const char* name) {
  return absl::StrFormat("layers.%d.%s", layer, name);
}

// Inputs of the two projections.
int64_t QueryInputs(const SparseModelShape& m) {
  return int64_t{m.num_q_heads / m.num_kv_heads} * m.head_dim;
}
int64_t KeyInputs(const SparseModelShape& m) {
  return int64_t{3} * m.head_dim;
}

absl::Status CheckTensor(const std::map<std::string, TensorView>& tensors, const std::string& name,
                         const std::vector<int64_t>& shape) {
  const auto found = tensors.find(name);
  if (found == tensors.end()) {
    return InvalidArgument("tensor '%s' is missing (or of an unsupported type)", name);
  }
  if (found->second.shape != shape) {
    return InvalidArgument("tensor '%s' has shape [%s], the model asks for [%s]", name,
                           absl::StrJoin(found->second.shape, ", "), absl::StrJoin(shape, ", "));
  }
  return absl::OkStatus();
}

// Weights of `heads` heads, [inputs][outputs] each in a file, transposed: [outputs][inputs], so that the inputs of an
// output lie together.
template <typename T>
void Transpose(const TensorView& from, DType dtype, int64_t heads, int64_t inputs, int64_t outputs,
               T* to) {
  const int64_t size = inputs * outputs;
  SPIN_CHECK_EQ(static_cast<int64_t>(from.bytes.size()), heads * size * SizeOf(from.dtype));
  std::vector<T> matrix(static_cast<std::size_t>(size));
  for (int64_t head = 0; head < heads; ++head, to += size) {
    ConvertElements(matrix.data(), dtype, from.bytes.data() + head * size * SizeOf(from.dtype),
                    from.dtype, size);
    for (int64_t o = 0; o < outputs; ++o) {
      for (int64_t i = 0; i < inputs; ++i) to[o * inputs + i] = matrix[i * outputs + o];
    }
  }
}

void TransposeTo(const TensorView& from, DType dtype, int64_t heads, int64_t inputs,
                 int64_t outputs, std::byte* to) {
  SPIN_CHECK(dtype == DType::kF32 || dtype == DType::kBf16);
  if (dtype == DType::kF32) {
    Transpose(from, dtype, heads, inputs, outputs, reinterpret_cast<float*>(to));
  } else {
    Transpose(from, dtype, heads, inputs, outputs, reinterpret_cast<uint16_t*>(to));
  }
}

// Where the tensors of one layer are, in bytes from the layer's begin; all multiples of 256.
struct Places {
  Places(const SparseModelShape& m, DType dtype, bool use_norm) {
    const int64_t outputs = int64_t{m.num_kv_heads} * m.head_dim;
    wk = outputs * QueryInputs(m) * SizeOf(dtype);
    q_norm = wk + outputs * KeyInputs(m) * SizeOf(dtype);
    k_norm = q_norm + (use_norm ? m.head_dim * 4 : 0);
    bytes = k_norm + (use_norm ? m.head_dim * 4 : 0);
  }
  int64_t wk, q_norm, k_norm, bytes;
};

}  // namespace

absl::StatusOr<SeerGatesInfo> CheckSeerGates(const std::map<std::string, TensorView>& tensors,
                                             const std::map<std::string, std::string>& metadata,
                                             const SparseModelShape& model) {
  const auto text = [&](const char* key) {
    const auto found = metadata.find(key);
    return found == metadata.end() ? std::string() : found->second.substr(0, 100);
  };
  if (text("format") != "seer_attention_gates") {
    return InvalidArgument("metadata 'format' is '%s', not 'seer_attention_gates'", text("format"));
  }
  SeerGatesInfo info;
  if (!absl::SimpleAtoi(text("block"), &info.block_tokens) ||
      (info.block_tokens != 16 && info.block_tokens != 32 && info.block_tokens != 64)) {
    return InvalidArgument("metadata 'block' is '%s', not 16, 32 or 64", text("block"));
  }
  int32_t gate_dim = 0;
  if (!absl::SimpleAtoi(text("gate_dim"), &gate_dim) || gate_dim != model.head_dim) {
    return InvalidArgument("metadata 'gate_dim' is '%s', not the model's head_dim %d",
                           text("gate_dim"), model.head_dim);
  }
  if (text("use_norm") != "true" && text("use_norm") != "false") {
    return InvalidArgument("metadata 'use_norm' is '%s', neither true nor false", text("use_norm"));
  }
  info.use_norm = text("use_norm") == "true";
  const int64_t heads = model.num_kv_heads, d = model.head_dim;
  for (int32_t layer = 0; layer < model.num_layers; ++layer) {
    SPIN_RETURN_IF_ERROR(CheckTensor(tensors, TensorName(layer, "wq"),
                                     {heads, model.num_q_heads / model.num_kv_heads, d, d}));
    SPIN_RETURN_IF_ERROR(CheckTensor(tensors, TensorName(layer, "wk"), {heads, 3 * d, d}));
    if (!info.use_norm) continue;
    SPIN_RETURN_IF_ERROR(CheckTensor(tensors, TensorName(layer, "q_norm"), {d}));
    SPIN_RETURN_IF_ERROR(CheckTensor(tensors, TensorName(layer, "k_norm"), {d}));
  }
  const int64_t expected = int64_t{model.num_layers} * (info.use_norm ? 4 : 2);
  if (static_cast<int64_t>(tensors.size()) != expected) {
    return InvalidArgument("%d tensors; gates of the model's %d layers have %d", tensors.size(),
                           model.num_layers, expected);
  }
  return info;
}

absl::StatusOr<SeerGates> SeerGates::Open(const std::string& path, const SparseModelShape& model) {
  SPIN_ASSIGN_OR_RETURN(SafetensorsFile file, SafetensorsFile::Open(path));
  const auto metadata = file.Metadata();
  if (!metadata.ok()) return Annotate(metadata.status(), path);
  const auto info = CheckSeerGates(file.tensors(), *metadata, model);
  if (!info.ok()) return Annotate(info.status(), path);
  return SeerGates(std::move(file), *info, model);
}

const TensorView& SeerGates::Tensor(int32_t layer, const char* name) const {
  return file_->tensors().at(TensorName(layer, name));
}

int64_t SeerGates::DeviceBytes(DType dtype) const {
  return Places(model_, dtype, info_.use_norm).bytes * model_.num_layers;
}

absl::Status SeerGates::Load(DType dtype, Device& device) {
  SPIN_CHECK(file_.has_value());
  const Places at(model_, dtype, info_.use_norm);
  const int64_t heads = model_.num_kv_heads, d = model_.head_dim;
  SPIN_ASSIGN_OR_RETURN(weights_, device.Allocate(MemoryKind::kDevice, DeviceBytes(dtype)));
  SPIN_ASSIGN_OR_RETURN(const Buffer pinned, device.Allocate(MemoryKind::kPinned, at.bytes));
  const std::unique_ptr<Stream> stream = device.CreateStream("load");
  auto* const from = pinned.as<std::byte>();
  for (int32_t layer = 0; layer < model_.num_layers; ++layer) {
    TransposeTo(Tensor(layer, "wq"), dtype, heads, QueryInputs(model_), d, from);
    TransposeTo(Tensor(layer, "wk"), dtype, heads, KeyInputs(model_), d, from + at.wk);
    std::byte* const to = weights_.as<std::byte>() + layer * at.bytes;
    SeerGate gate = {.wq = to, .wk = to + at.wk};
    if (info_.use_norm) {
      const auto norm = [&](const char* name, int64_t offset) {
        const TensorView& view = Tensor(layer, name);
        ConvertElements(from + offset, DType::kF32, view.bytes.data(), view.dtype, d);
        return reinterpret_cast<const float*>(to + offset);
      };
      gate.q_norm = norm("q_norm", at.q_norm);
      gate.k_norm = norm("k_norm", at.k_norm);
    }
    layers_.push_back(gate);
    device.Copy(to, from, at.bytes, *stream);
    device.Synchronize(*stream);
  }
  file_.reset();
  return absl::OkStatus();
}

}  // namespace spin
