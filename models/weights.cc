#include "models/weights.h"

#include <absl/functional/function_ref.h>

#include <atomic>
#include <cmath>
#include <cstring>
#include <mutex>
#include <thread>
#include <utility>

#include "common/check.h"
#include "common/hash.h"
#include "common/math.h"
#include "common/random.h"

namespace spin {
namespace {

constexpr int64_t kUploadChunkBytes = 16 << 20;
constexpr int64_t kChunkElements = 4 << 20;

// Rows of one named tensor and the place that they go to.
struct Part {
  std::string name;
  int64_t rows = 0;
  int64_t cols = 0;  // 0: a vector
  enum { kLinear, kVector, kTable } kind = kLinear;
  void* dst = nullptr;
  int32_t n = 0;          // kLinear: outputs of the whole packed weight
  int32_t row_begin = 0;  // kLinear: where the rows go
  bool norm = false;      // dummy: a norm weight, around 1
};

std::vector<int64_t> ShapeOf(const Part& part) {
  return part.cols == 0 ? std::vector<int64_t>{part.rows}
                        : std::vector<int64_t>{part.rows, part.cols};
}

// Gives the bytes of each part: from a checkpoint, or made up. Any thread.
class Source {
 public:
  virtual ~Source() = default;
  // Is the part there, with the right shape?
  virtual absl::Status Check(const Part& part) const = 0;
  // Rows [begin, begin + rows) of a part that Check accepted; valid until the thread's next call.
  virtual TensorView Rows(const Part& part, int64_t begin, int64_t rows) const = 0;
};

class CheckpointSource final : public Source {
 public:
  explicit CheckpointSource(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}
  absl::Status Check(const Part& part) const override {
    return checkpoint_.Find(part.name, ShapeOf(part)).status();
  }
  TensorView Rows(const Part& part, int64_t begin, int64_t rows) const override {
    TensorView view = *checkpoint_.Find(part.name, ShapeOf(part));
    const int64_t row_bytes = DivExact<int64_t>(static_cast<int64_t>(view.bytes.size()), part.rows);
    view.bytes = view.bytes.subspan(static_cast<std::size_t>(begin * row_bytes),
                                    static_cast<std::size_t>(rows * row_bytes));
    view.shape[0] = rows;
    return view;
  }

 private:
  const Checkpoint& checkpoint_;
};

// Normal-like values of standard deviation 1/sqrt(cols) (norms: near 1), cut out of one seeded
// block at an offset that depends on the tensor's name.
class DummySource final : public Source {
 public:
  explicit DummySource(uint64_t seed, int64_t max_elements) : values_(max_elements + kSpread) {
    Random random(seed);
    for (float& value : values_) {
      float sum = 0;
      for (int i = 0; i < 4; ++i) sum += random.Uniform();
      value = (sum - 2.0f) * 1.7320508f;  // four uniforms have a variance of 1/3
    }
  }
  absl::Status Check(const Part&) const override { return absl::OkStatus(); }
  TensorView Rows(const Part& part, int64_t begin, int64_t rows) const override {
    const uint64_t hash = Fnv1a(part.name);
    const int64_t cols = std::max<int64_t>(part.cols, 1);
    const float scale = part.norm ? 0.1f : 1.0f / std::sqrt(static_cast<float>(cols));
    const float shift = part.norm ? 1.0f : 0.0f;
    const int64_t block = static_cast<int64_t>(values_.size()) - kSpread;
    thread_local std::vector<float> scratch;
    scratch.resize(static_cast<std::size_t>(rows * cols));
    const float* from = values_.data() + hash % kSpread;
    for (int64_t i = 0; i < rows * cols;) {
      const int64_t at = (begin * cols + i) % block;
      const int64_t run = std::min(block - at, rows * cols - i);
      for (int64_t k = 0; k < run; ++k) scratch[i + k] = from[at + k] * scale + shift;
      i += run;
    }
    return TensorView{DType::kF32,
                      {rows, cols},
                      std::as_bytes(std::span<const float>(scratch.data(), scratch.size()))};
  }

 private:
  static constexpr int64_t kSpread = 65537;
  std::vector<float> values_;
};

// Copies host bytes to the device through a pinned bounce buffer. One per loader thread.
class Uploader {
 public:
  static absl::StatusOr<Uploader> Create(Device& device) {
    SPIN_ASSIGN_OR_RETURN(Buffer bounce, device.Allocate(MemoryKind::kPinned, kUploadChunkBytes));
    return Uploader(device, std::move(bounce));
  }

  // Converts to `dtype` on the way.
  void Upload(void* dst, DType dtype, const TensorView& tensor) {
    const int64_t elements = static_cast<int64_t>(tensor.bytes.size()) / SizeOf(tensor.dtype);
    const int64_t chunk = kUploadChunkBytes / SizeOf(dtype);
    for (int64_t begin = 0; begin < elements; begin += chunk) {
      const int64_t count = std::min(chunk, elements - begin);
      ConvertElements(bounce_.data(), dtype, tensor.bytes.data() + begin * SizeOf(tensor.dtype),
                      tensor.dtype, count);
      device_.Copy(static_cast<std::byte*>(dst) + begin * SizeOf(dtype), bounce_.data(),
                   count * SizeOf(dtype), *stream_);
      device_.Synchronize(*stream_);
    }
  }

 private:
  Uploader(Device& device, Buffer bounce)
      : device_(device), stream_(device.CreateStream("load")), bounce_(std::move(bounce)) {}

  Device& device_;
  std::unique_ptr<Stream> stream_;
  Buffer bounce_;
};

// Lays the weights out: allocates every buffer and lists the parts that fill them.
class Builder {
 public:
  Builder(const ModelConfig& config, DType dtype, Device& device, Ops& ops)
      : config_(config), device_(device), ops_(ops) {
    weights_.dtype = dtype;
  }

  absl::Status Build() {
    const int64_t vocab = config_.vocab_size;
    const int64_t hidden = config_.hidden;
    SPIN_ASSIGN_OR_RETURN(void* table, Allocate(vocab * hidden * SizeOf(weights_.dtype)));
    weights_.embedding = table;
    parts_.push_back({"model.embed_tokens.weight", vocab, hidden, Part::kTable, table});
    for (int32_t i = 0; i < config_.num_layers; ++i) {
      SPIN_RETURN_IF_ERROR(BuildLayer(absl::StrFormat("model.layers.%d.", i)));
    }
    SPIN_ASSIGN_OR_RETURN(weights_.final_norm, Vector("model.norm.weight", config_.hidden));
    const char* head = config_.tied_embeddings ? "model.embed_tokens.weight" : "lm_head.weight";
    SPIN_ASSIGN_OR_RETURN(weights_.lm_head, Linear(hidden, {{head, vocab}}));
    return absl::OkStatus();
  }

  ModelWeights& weights() { return weights_; }
  const std::vector<Part>& parts() const { return parts_; }

 private:
  absl::Status BuildLayer(const std::string& prefix) {
    LayerWeights layer;
    const int64_t hidden = config_.hidden;
    SPIN_ASSIGN_OR_RETURN(layer.input_norm,
                          Vector(prefix + "input_layernorm.weight", config_.hidden));
    SPIN_ASSIGN_OR_RETURN(
        layer.qkv, Linear(hidden, {{prefix + "self_attn.q_proj.weight", config_.q_width()},
                                   {prefix + "self_attn.k_proj.weight", config_.kv_width()},
                                   {prefix + "self_attn.v_proj.weight", config_.kv_width()}}));
    if (config_.qk_norm) {
      SPIN_ASSIGN_OR_RETURN(layer.q_norm,
                            Vector(prefix + "self_attn.q_norm.weight", config_.head_dim));
      SPIN_ASSIGN_OR_RETURN(layer.k_norm,
                            Vector(prefix + "self_attn.k_norm.weight", config_.head_dim));
    }
    SPIN_ASSIGN_OR_RETURN(
        layer.output, Linear(config_.q_width(), {{prefix + "self_attn.o_proj.weight", hidden}}));
    SPIN_ASSIGN_OR_RETURN(layer.post_attention_norm,
                          Vector(prefix + "post_attention_layernorm.weight", config_.hidden));
    SPIN_ASSIGN_OR_RETURN(layer.gate_up,
                          Linear(hidden, {{prefix + "mlp.gate_proj.weight", config_.intermediate},
                                          {prefix + "mlp.up_proj.weight", config_.intermediate}}));
    SPIN_ASSIGN_OR_RETURN(
        layer.down, Linear(config_.intermediate, {{prefix + "mlp.down_proj.weight", hidden}}));
    weights_.layers.push_back(layer);
    return absl::OkStatus();
  }

  absl::StatusOr<void*> Allocate(int64_t bytes) {
    SPIN_ASSIGN_OR_RETURN(Buffer buffer, device_.Allocate(MemoryKind::kDevice, bytes));
    weights_.bytes += bytes;
    void* data = buffer.data();
    weights_.buffers.push_back(std::move(buffer));
    return data;
  }

  absl::StatusOr<const float*> Vector(const std::string& name, int64_t length) {
    SPIN_ASSIGN_OR_RETURN(void* data, Allocate(length * 4));
    Part part{name, length, 0, Part::kVector, data};
    part.norm = true;
    parts_.push_back(std::move(part));
    return static_cast<const float*>(data);
  }

  absl::StatusOr<Weight> Linear(int64_t k,
                                const std::vector<std::pair<std::string, int64_t>>& tensors) {
    Weight weight;
    weight.k = Narrow<int32_t>(k);
    weight.dtype = weights_.dtype;
    for (const auto& [name, rows] : tensors) weight.n += Narrow<int32_t>(rows);
    SPIN_ASSIGN_OR_RETURN(void* data,
                          Allocate(ops_.PackedWeightBytes(weight.n, weight.k, weight.dtype)));
    weight.data = data;
    int32_t row = 0;
    for (const auto& [name, rows] : tensors) {
      Part part{name, rows, k, Part::kLinear, data};
      part.n = weight.n;
      part.row_begin = row;
      parts_.push_back(std::move(part));
      row += Narrow<int32_t>(rows);
    }
    return weight;
  }

  const ModelConfig& config_;
  Device& device_;
  Ops& ops_;
  ModelWeights weights_;
  std::vector<Part> parts_;
};

// Fills a part in chunks of rows: what is made up, or converted, at one time stays small.
absl::Status FillPart(const Part& part, const Source& source, DType dtype, Ops& ops,
                      Uploader& uploader) {
  SPIN_RETURN_IF_ERROR(source.Check(part));
  const int64_t cols = std::max<int64_t>(part.cols, 1);
  const int64_t chunk =
      RoundUp<int64_t>(std::max<int64_t>(kChunkElements / cols, 1), ops.WeightRowAlignment());
  for (int64_t begin = 0; begin < part.rows; begin += chunk) {
    const int64_t rows = std::min(chunk, part.rows - begin);
    const TensorView tensor = source.Rows(part, begin, rows);
    if (part.kind == Part::kLinear) {
      SPIN_RETURN_IF_ERROR(ops.PackWeight(part.dst, part.n, Narrow<int32_t>(part.cols), dtype,
                                          part.row_begin + Narrow<int32_t>(begin),
                                          Narrow<int32_t>(rows), tensor.bytes.data(),
                                          tensor.dtype));
    } else {
      const DType to = part.kind == Part::kVector ? DType::kF32 : dtype;
      uploader.Upload(static_cast<std::byte*>(part.dst) + begin * cols * SizeOf(to), to, tensor);
    }
  }
  return absl::OkStatus();
}

// Parts are independent where their rows are aligned to the packing; fused weights of unaligned
// rows are filled by one thread, so threads take whole runs of parts with one destination.
absl::Status FillAll(const std::vector<Part>& parts, const Source& source, DType dtype,
                     Device& device, Ops& ops, LoadProgress progress) {
  int64_t total = 0;
  for (const Part& part : parts) total += part.rows * std::max<int64_t>(part.cols, 1);
  std::mutex mutex;  // guards next, done, status
  std::size_t next = 0;
  int64_t done = 0;
  absl::Status status;
  const auto take = [&](std::size_t& begin, std::size_t& end) {
    const std::lock_guard lock(mutex);
    if (!status.ok() || next == parts.size()) return false;
    begin = next++;
    while (next < parts.size() && parts[next].dst == parts[begin].dst) ++next;
    end = next;
    return true;
  };
  const auto work = [&] {
    auto uploader = Uploader::Create(device);
    std::size_t begin = 0;
    std::size_t end = 0;
    while (take(begin, end)) {
      for (std::size_t i = begin; i < end; ++i) {
        const absl::Status filled =
            uploader.ok() ? FillPart(parts[i], source, dtype, ops, *uploader) : uploader.status();
        const std::lock_guard lock(mutex);
        if (!filled.ok() && status.ok()) status = filled;
        done += parts[i].rows * std::max<int64_t>(parts[i].cols, 1);
        progress(done, total);
      }
    }
  };
  std::vector<std::thread> threads;
  const unsigned count = std::clamp(std::thread::hardware_concurrency(), 1u, 16u);
  for (unsigned i = 0; i < count; ++i) threads.emplace_back(work);
  for (std::thread& thread : threads) thread.join();
  return status;
}

absl::StatusOr<ModelWeights> Load(const ModelConfig& config, const Source& source, DType dtype,
                                  Device& device, Ops& ops, LoadProgress progress) {
  SPIN_CHECK(dtype != DType::kF16);
  Builder builder(config, dtype, device, ops);
  SPIN_RETURN_IF_ERROR(builder.Build());
  SPIN_RETURN_IF_ERROR(FillAll(builder.parts(), source, dtype, device, ops, progress));
  return std::move(builder.weights());
}

}  // namespace

int64_t WeightBytes(const ModelConfig& config, DType dtype) {
  // A tied embedding is stored twice: as a table of rows, and in the layout of a linear layer.
  const int64_t table = int64_t{config.vocab_size} * config.hidden;
  return (config.num_parameters() + (config.tied_embeddings ? table : 0)) * SizeOf(dtype);
}

absl::StatusOr<ModelWeights> LoadWeights(const ModelConfig& config, const Checkpoint& checkpoint,
                                         DType dtype, Device& device, Ops& ops,
                                         LoadProgress progress) {
  return Load(config, CheckpointSource(checkpoint), dtype, device, ops, progress);
}

absl::StatusOr<ModelWeights> MakeDummyWeights(const ModelConfig& config, uint64_t seed, DType dtype,
                                              Device& device, Ops& ops, LoadProgress progress) {
  constexpr int64_t kBlock = 1 << 20;
  return Load(config, DummySource(seed, kBlock), dtype, device, ops, progress);
}

}  // namespace spin
