#include "kernels/cuda/cudnn_attention.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <limits>
#include <map>
#include <string>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "common/check.h"
#include "common/clock.h"
#include "common/logging.h"
#include "kernels/cuda/cudnn_library.h"

// The frontend is 23,000 lines of headers over a dozen C functions, which it finds with dlsym. It takes a minute to
// compile: in this file alone.
#define NV_CUDNN_FRONTEND_USE_DYNAMIC_LOADING
#define NV_CUDNN_FRONTEND_DISABLE_LOGGING  // it would write to stdout
#define CUDNN_FRONTEND_SKIP_JSON_LIB
#include <cudnn_frontend.h>

namespace cudnn_frontend {
void* cudnn_dlhandle = nullptr;  // what the frontend looks functions up in, once
}  // namespace cudnn_frontend

namespace spin::cuda {
namespace {

namespace fe = cudnn_frontend;

constexpr size_t kMinVersion =
    90700;  // the first with bottom-right causal masks for lengths in device memory
constexpr size_t kMaxPlans =
    256;  // a server has one shape of staging: six, and one for each 8K of context
constexpr int32_t kWholeTile = 8192;
constexpr int64_t kMaxWorkspaceBytes = int64_t{64} << 20;
constexpr int64_t kMaxElements = std::numeric_limits<int32_t>::max();  // of a tensor
constexpr uintptr_t kAlignment = 16;                                   // of every pointer

// Lengths of most plans are read from device memory, so that a plan serves all of them; whole tiles behind whole tiles,
// where the time of long prompts goes, have plans of their very shape, which are a sixth faster. Lengths of queries
// and keys are multiples of one step, so all that ever occur are in one constant table: entry i is i steps,
// kAlignment bytes apart.
constexpr int32_t kMaxKeys = 4 << 20;
constexpr size_t kLengthInts = kAlignment / sizeof(int32_t);
constexpr size_t kLengthTableInts = (kMaxKeys / kPieceKeyStep + 1) * kLengthInts;

enum Tensor : int64_t { kQ = 1, kK, kV, kOut, kNumQueries, kNumKeys };

struct FreeDevice {
  void operator()(void* p) const { cudaFree(p); }
};
using DeviceBytes = std::unique_ptr<void, FreeDevice>;

// Null where there is no memory, or for 0 bytes.
DeviceBytes AllocateDevice(size_t bytes) {
  void* p = nullptr;
  if (bytes > 0 && cudaMalloc(&p, bytes) != cudaSuccess) cudaGetLastError();  // clears it
  return DeviceBytes(p);
}

// What a plan is made for. Lengths of keys are data; the capacity of staging is here because it sets the strides.
struct Shape {
  int32_t queries;
  int64_t capacity;  // tokens of staging a head
  int64_t keys;      // of a plan for just so many; 0: their number is data
  int32_t num_q_heads, num_kv_heads, head_dim;
  auto operator<=>(const Shape&) const = default;

  int64_t row() const { return (num_q_heads + int64_t{2} * num_kv_heads) * head_dim; }  // of qkv
  int64_t out_row() const { return int64_t{num_q_heads} * head_dim; }
  int64_t plane() const { return capacity * head_dim; }  // keys or values of a head
};

struct Plan {
  fe::graph::Graph graph;
  bool usable = false;
};

// Element (head, token, channel) of a [1][heads][tokens][d] tensor is at head * head_stride + token * token_stride +
// channel.
fe::graph::Tensor_attributes Describe(Tensor id, const char* name, int64_t heads, int64_t tokens,
                                      int64_t d, int64_t head_stride, int64_t token_stride) {
  const int64_t batch_stride = std::max(heads * head_stride, tokens * token_stride);
  return fe::graph::Tensor_attributes()
      .set_uid(id)
      .set_name(name)
      .set_dim({1, heads, tokens, d})
      .set_stride({batch_stride, head_stride, token_stride, 1});
}

fe::graph::Tensor_attributes DescribeLength(Tensor id, const char* name) {
  return fe::graph::Tensor_attributes()
      .set_uid(id)
      .set_name(name)
      .set_dim({1, 1, 1, 1})
      .set_stride({1, 1, 1, 1})
      .set_data_type(fe::DataType_t::INT32);
}

void DescribeAttention(const Shape& s, fe::graph::Graph& graph) {
  const int64_t d = s.head_dim;
  graph.set_io_data_type(fe::DataType_t::BFLOAT16)
      .set_intermediate_data_type(fe::DataType_t::FLOAT)
      .set_compute_data_type(fe::DataType_t::FLOAT);
  auto q = graph.tensor(Describe(kQ, "q", s.num_q_heads, s.queries, d, d, s.row()));
  const int64_t keys = s.keys > 0 ? s.keys : s.capacity;
  auto k = graph.tensor(Describe(kK, "k", s.num_kv_heads, keys, d, 2 * s.plane(), d));
  auto v = graph.tensor(Describe(kV, "v", s.num_kv_heads, keys, d, 2 * s.plane(), d));
  auto options = fe::graph::SDPA_attributes()
                     .set_name("prefill_attention")
                     .set_generate_stats(false)
                     .set_attn_scale(1.0f / std::sqrt(static_cast<float>(s.head_dim)))
                     .set_diagonal_alignment(fe::DiagonalAlignment_t::BOTTOM_RIGHT)
                     .set_diagonal_band_right_bound(0);
  if (s.keys == 0) {
    options.set_padding_mask(true)
        .set_seq_len_q(graph.tensor(DescribeLength(kNumQueries, "num_queries")))
        .set_seq_len_kv(graph.tensor(DescribeLength(kNumKeys, "num_keys")));
  }
  auto [out, stats] = graph.sdpa(q, k, v, options);
  out->set_output(true)
      .set_uid(kOut)
      .set_dim({1, s.num_q_heads, s.queries, d})
      .set_stride({s.queries * s.out_row(), d, s.out_row(), 1});
}

// The status of a call of the frontend, which throws some errors and returns others.
template <typename Call>
absl::Status Try(const char* what, Call call) {
  try {
    const fe::error_object error = call();
    if (error.code == fe::error_code_t::OK) return absl::OkStatus();
    return Internal("%s: %s", what, error.err_msg);
  } catch (const std::exception& e) {
    return Internal("%s: %s", what, e.what());
  }
}

class CudnnAttentionImpl final : public CudnnAttention {
 public:
  ~CudnnAttentionImpl() override {
    plans_.clear();
    if (handle_ != nullptr) fe::detail::destroy_handle(handle_);
  }

  absl::Status Open(int device);
  void Prepare(const KvGeometry& geometry, int32_t staging_pages, int32_t tile_tokens) override;
  bool Run(const PrefillAttentionParams& p, const PrefillSegment& piece,
           cudaStream_t stream) override;

 private:
  static Shape ShapeOf(const KvGeometry& g, int32_t staging_pages, int32_t queries, int64_t keys);
  static bool Serves(const KvGeometry& g, const Shape& shape);
  Plan* FindOrBuild(const Shape& shape);
  absl::Status Build(const Shape& shape, Plan& plan);
  absl::Status Enqueue(Plan& plan, const Shape& shape, const PrefillAttentionParams& p,
                       const PrefillSegment& piece, cudaStream_t stream);
  void* Length(int32_t tokens) const {
    return static_cast<int32_t*>(lengths_.get()) + tokens / kPieceKeyStep * kLengthInts;
  }

  cudnnHandle_t handle_ = nullptr;
  int sm_version_ = 0;
  DeviceBytes lengths_;    // [kLengthTableInts]
  DeviceBytes workspace_;  // all plans', one after the other
  int64_t workspace_bytes_ = 0;
  std::map<Shape, std::unique_ptr<Plan>> plans_;
};

absl::Status CudnnAttentionImpl::Open(int device) {
  int major = 0, minor = 0;
  if (cudaSetDevice(device) != cudaSuccess ||
      cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) != cudaSuccess ||
      cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) != cudaSuccess) {
    return Unavailable("CUDA device %d does not answer", device);
  }
  if (major != 9 && major != 10) {
    return Unimplemented("cuDNN is used on compute capability 9 and 10; this is %d.%d", major,
                         minor);
  }
  sm_version_ = major * 10 + minor;
  SPIN_ASSIGN_OR_RETURN(fe::cudnn_dlhandle, OpenCudnnLibrary());
  try {
    const size_t version = fe::detail::get_backend_version();
    if (version < kMinVersion) {
      return FailedPrecondition("cuDNN is version %d, at least %d is needed", version, kMinVersion);
    }
    if (fe::detail::create_handle(&handle_) != CUDNN_STATUS_SUCCESS) {
      handle_ = nullptr;
      return Unavailable("cuDNN makes no handle on this device");
    }
  } catch (const std::exception& e) {
    return Unavailable("cuDNN is incomplete: %s", e.what());
  }
  std::vector<int32_t> lengths(kLengthTableInts);
  for (size_t i = 0; i < lengths.size(); i += kLengthInts) {
    lengths[i] = static_cast<int32_t>(i / kLengthInts) * kPieceKeyStep;
  }
  const size_t bytes = lengths.size() * sizeof(int32_t);
  lengths_ = AllocateDevice(bytes);
  if (lengths_ == nullptr ||
      cudaMemcpy(lengths_.get(), lengths.data(), bytes, cudaMemcpyHostToDevice) != cudaSuccess) {
    return ResourceExhausted("no device memory for cuDNN's %d bytes of lengths", bytes);
  }
  return absl::OkStatus();
}

Shape CudnnAttentionImpl::ShapeOf(const KvGeometry& g, int32_t staging_pages, int32_t queries,
                                  int64_t keys) {
  return {.queries = queries,
          .capacity = int64_t{staging_pages} * g.page_tokens,
          .keys = queries == kWholeTile && keys % kWholeTile == 0 ? keys : 0,
          .num_q_heads = g.num_q_heads,
          .num_kv_heads = g.num_kv_heads,
          .head_dim = g.head_dim};
}

// What is asked of cuDNN at all; whether it can is for Build to find out.
bool CudnnAttentionImpl::Serves(const KvGeometry& g, const Shape& s) {
  return g.dtype == DType::kBf16 && (g.head_dim == 64 || g.head_dim == 128) &&
         s.capacity <= kMaxKeys && s.queries * s.row() <= kMaxElements &&
         g.num_kv_heads * 2 * s.plane() <= kMaxElements;
}

absl::Status CudnnAttentionImpl::Build(const Shape& shape, Plan& plan) {
  // The frontend would ask the runtime library's .so otherwise, and this program may be linked without one.
  plan.graph.set_sm_version(sm_version_);
  int64_t workspace_bytes = 0;
  SPIN_RETURN_IF_ERROR(Try("plan", [&] {
    DescribeAttention(shape, plan.graph);
    return plan.graph.build(handle_, {fe::HeurMode_t::A});
  }));
  SPIN_RETURN_IF_ERROR(
      Try("workspace", [&] { return plan.graph.get_workspace_size(workspace_bytes); }));
  if (workspace_bytes > kMaxWorkspaceBytes) {
    return ResourceExhausted("the plan wants %d bytes of workspace", workspace_bytes);
  }
  if (workspace_bytes > workspace_bytes_) {
    DeviceBytes larger = AllocateDevice(static_cast<size_t>(workspace_bytes));
    if (larger == nullptr) {
      return ResourceExhausted("no device memory for %d bytes of workspace", workspace_bytes);
    }
    workspace_ = std::move(larger);
    workspace_bytes_ = workspace_bytes;
  }
  return absl::OkStatus();
}

// Null where cuDNN cannot, which is logged the first time.
Plan* CudnnAttentionImpl::FindOrBuild(const Shape& shape) {
  auto found = plans_.find(shape);
  if (found == plans_.end()) {
    if (plans_.size() == kMaxPlans) return nullptr;
    found = plans_.emplace(shape, std::make_unique<Plan>()).first;
    const absl::Status status = Build(shape, *found->second);
    found->second->usable = status.ok();
    if (!status.ok()) {
      SPIN_LOG(WARNING, "prefill of %d tokens, %d/%d heads of %d, goes without cuDNN: %s",
               shape.queries, shape.num_q_heads, shape.num_kv_heads, shape.head_dim,
               MessageOf(status));
    }
  }
  return found->second->usable ? found->second.get() : nullptr;
}

void CudnnAttentionImpl::Prepare(const KvGeometry& geometry, int32_t staging_pages,
                                 int32_t tile_tokens) {
  const RealClock clock;
  const int64_t begin_ns = clock.NowNs();
  int plans = 0;
  for (int32_t queries = kPieceMinQueries; queries <= std::min(tile_tokens, kPieceMaxQueries);
       queries *= 2) {
    const Shape shape = ShapeOf(geometry, staging_pages, queries, kPieceKeyStep);
    if (Serves(geometry, shape) && FindOrBuild(shape) != nullptr) ++plans;
  }
  const int64_t capacity = int64_t{staging_pages} * geometry.page_tokens;
  for (int64_t keys = kWholeTile; keys <= capacity; keys += kWholeTile) {
    const Shape shape = ShapeOf(geometry, staging_pages, kWholeTile, keys);
    if (Serves(geometry, shape) && FindOrBuild(shape) != nullptr) ++plans;
  }
  SPIN_LOG(INFO, "cuDNN %d: %d plans for prefill in %.1f s", fe::detail::get_backend_version(),
           plans, static_cast<double>(clock.NowNs() - begin_ns) * 1e-9);
}

absl::Status CudnnAttentionImpl::Enqueue(Plan& plan, const Shape& shape,
                                         const PrefillAttentionParams& p,
                                         const PrefillSegment& piece, cudaStream_t stream) {
  constexpr int64_t kSize = 2;  // bf16
  char* q = static_cast<char*>(const_cast<void*>(p.qkv)) + piece.token_begin * shape.row() * kSize;
  char* keys =
      static_cast<char*>(p.staging.pages) + int64_t{piece.kv_begin} * shape.head_dim * kSize;
  char* out = static_cast<char*>(p.out) + piece.token_begin * shape.out_row() * kSize;
  for (const char* pointer : {q, keys, out}) {
    SPIN_CHECK_EQ(reinterpret_cast<uintptr_t>(pointer) % kAlignment, 0u);
  }
  std::unordered_map<int64_t, void*> pointers = {
      {kQ, q},
      {kK, keys},
      {kV, keys + shape.plane() * kSize},
      {kOut, out},
  };
  if (shape.keys == 0) {
    pointers[kNumQueries] = Length(piece.num_tokens);
    pointers[kNumKeys] = Length(piece.kv_tokens);
  }
  return Try("execute", [&]() -> fe::error_object {
    if (fe::detail::set_stream(handle_, stream) != CUDNN_STATUS_SUCCESS) {
      return {fe::error_code_t::CUDNN_BACKEND_API_FAILED, "cudnnSetStream"};
    }
    return plan.graph.execute(handle_, pointers, workspace_.get());
  });
}

bool CudnnAttentionImpl::Run(const PrefillAttentionParams& p, const PrefillSegment& piece,
                             cudaStream_t stream) {
  SPIN_CHECK_EQ(piece.num_tokens % kPieceKeyStep, 0);
  SPIN_CHECK_EQ(piece.kv_tokens % kPieceKeyStep, 0);
  const Shape shape = ShapeOf(p.geometry, p.staging.num_pages, piece.num_tokens, piece.kv_tokens);
  SPIN_CHECK_LE(piece.kv_begin + int64_t{piece.kv_tokens}, shape.capacity);
  if (!Serves(p.geometry, shape)) return false;
  Plan* plan = FindOrBuild(shape);
  if (plan == nullptr) return false;
  const absl::Status status = Enqueue(*plan, shape, p, piece, stream);
  if (!status.ok()) {
    SPIN_LOG(WARNING, "cuDNN failed, prefill goes on without: %s", MessageOf(status));
    plan->usable = false;  // kept: what it enqueued before may still run
    return false;
  }
  pieces_run_.fetch_add(1, std::memory_order_relaxed);
  return true;
}

}  // namespace

absl::StatusOr<std::unique_ptr<CudnnAttention>> CudnnAttention::Load(int device) {
  auto attention = std::make_unique<CudnnAttentionImpl>();
  SPIN_RETURN_IF_ERROR(attention->Open(device));
  return std::unique_ptr<CudnnAttention>(std::move(attention));
}

}  // namespace spin::cuda
