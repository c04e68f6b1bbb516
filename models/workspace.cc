#include "models/workspace.h"

#include <algorithm>

#include "common/math.h"
#include "models/pipeline/step_schedule.h"

namespace spin {
namespace {

// Prompt log-probabilities take their logits this many positions at a time, at least.
constexpr int32_t kMinLogitsRows = 16;

// Allocates typed buffers into a workspace, remembering the first error; without a device it only counts.
class Allocator {
 public:
  Allocator(Workspace& workspace, Device* device) : workspace_(workspace), device_(device) {}

  template <typename T>
  void Take(T*& pointer, int64_t bytes) {
    if (!status_.ok()) return;
    workspace_.bytes += bytes;
    if (device_ == nullptr) return;
    auto buffer = device_->Allocate(MemoryKind::kDevice, std::max<int64_t>(bytes, 1));
    if (!buffer.ok()) {
      status_ = buffer.status();
      return;
    }
    pointer = static_cast<T*>(buffer->data());
    workspace_.buffers.push_back(*std::move(buffer));
  }

  const absl::Status& status() const { return status_; }

 private:
  Workspace& workspace_;
  Device* device_;
  absl::Status status_;
};

void TakeActivations(const WorkspaceShape& shape, const ModelConfig& config, DType dtype,
                     Workspace& w, Allocator& allocator) {
  const int64_t tokens = std::max(shape.tile_tokens, shape.max_batch);
  const int64_t act = SizeOf(dtype);
  allocator.Take(w.normed, tokens * config.hidden * act);
  allocator.Take(w.qkv, tokens * config.qkv_width() * act);
  allocator.Take(w.attention, tokens * config.q_width() * act);
  allocator.Take(w.gate_up, tokens * 2 * config.intermediate * act);
  allocator.Take(w.activated, tokens * config.intermediate * act);
  allocator.Take(w.decode_residual, int64_t{shape.max_batch} * config.hidden * 4);
  allocator.Take(w.prefill_residual, int64_t{shape.max_prefill_tokens} * config.hidden * 4);
  w.logits_rows = std::max(shape.max_batch, kMinLogitsRows);
  allocator.Take(w.gathered, int64_t{w.logits_rows} * config.hidden * 4);
  allocator.Take(w.logits, int64_t{w.logits_rows} * config.vocab_size * 4);
}

void TakeCacheScratch(const WorkspaceShape& shape, Workspace& w, Allocator& allocator) {
  const KvGeometry& g = shape.geometry;
  const int64_t streams = int64_t{shape.max_batch} * g.num_kv_heads;
  for (Staging& staging : w.staging) {
    staging.num_pages = shape.staging_pages;
    allocator.Take(staging.pages, int64_t{g.num_kv_heads} * shape.staging_pages * g.page_bytes());
  }
  allocator.Take(w.index_scratch, shape.index_scratch_bytes);
  if (g.summary_elements > 0) {
    allocator.Take(w.select.logits, streams * g.group() * g.max_pages() * 4);
    allocator.Take(w.select.scores, streams * g.max_pages() * 4);
  }
  allocator.Take(w.decode_index_scratch, shape.decode_index_scratch_bytes);
  const int64_t partial_bytes =
      int64_t{shape.max_batch} * g.num_q_heads * (g.head_dim + 2) * int64_t{sizeof(float)};
  if (g.partition_tokens != g.page_tokens) {
    allocator.Take(w.select.page_mask, streams * shape.max_selected);
    allocator.Take(w.list_mask, streams * shape.max_list);
  }
  w.select.max_estimated = shape.max_estimated;
  if (shape.max_estimated > 0) {
    allocator.Take(w.select.estimate_ids, streams * shape.max_estimated * 4);
    allocator.Take(w.select.estimate_count, streams * 4);
    allocator.Take(w.select.estimate, partial_bytes);
  }
  w.select.max_selected = shape.max_selected;
  allocator.Take(w.select.ids, streams * shape.max_selected * 4);
  allocator.Take(w.select.count, streams * 4);
  w.max_list = shape.max_list;
  allocator.Take(w.page_list, streams * shape.max_list * 4);
  allocator.Take(w.list_len, streams * 4);
  allocator.Take(w.copy_src, streams * shape.max_list * 8);
  allocator.Take(w.copy_dst, streams * shape.max_list * 4);
  allocator.Take(w.copy_len, streams * 4);
  allocator.Take(w.ready_tokens, streams * 4);
  allocator.Take(w.partial, partial_bytes);
}

void TakeRowState(const WorkspaceShape& shape, const ModelConfig& config, Workspace& w,
                  Allocator& allocator) {
  allocator.Take(w.num_rows, 4);
  allocator.Take(w.group_rows, kNumRowGroups * 4);
  allocator.Take(w.rows, int64_t{shape.max_batch} * 4);
  allocator.Take(w.token, int64_t{shape.max_rows} * 4);
  allocator.Take(w.position, int64_t{shape.max_rows} * 4);
  allocator.Take(w.row_pages, int64_t{shape.max_rows} * 4);
  allocator.Take(w.counters,
                 int64_t{shape.max_rows} * static_cast<int64_t>(sizeof(RetrieveCounters)));
  allocator.Take(w.sampling, int64_t{shape.max_rows} * static_cast<int64_t>(sizeof(SamplingRow)));
  allocator.Take(w.history, int64_t{shape.max_rows} * config.vocab_size * 4);
}

void TakeAll(const WorkspaceShape& shape, const ModelConfig& config, DType dtype, Workspace& w,
             Allocator& allocator) {
  TakeActivations(shape, config, dtype, w, allocator);
  TakeCacheScratch(shape, w, allocator);
  TakeRowState(shape, config, w, allocator);
}

}  // namespace

int64_t WorkspaceBytes(const WorkspaceShape& shape, const ModelConfig& config, DType dtype) {
  Workspace workspace;
  Allocator counter(workspace, nullptr);
  TakeAll(shape, config, dtype, workspace, counter);
  return workspace.bytes;
}

absl::StatusOr<Workspace> MakeWorkspace(const WorkspaceShape& shape, const ModelConfig& config,
                                        DType dtype, Device& device) {
  Workspace workspace;
  Allocator allocator(workspace, &device);
  TakeAll(shape, config, dtype, workspace, allocator);
  SPIN_RETURN_IF_ERROR(allocator.status());
  return workspace;
}

}  // namespace spin
