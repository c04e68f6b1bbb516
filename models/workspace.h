// Every activation and scratch buffer of the forward pass, sized once from the limits. Nothing
// grows afterwards.
//
// The tile buffers serve prefill tiles and decode steps in turn (one compute stream orders them);
// the residual streams are separate, since a prefill lives across many decode steps.
#pragma once

#include <cstdint>
#include <vector>

#include "common/status.h"
#include "kernels/device.h"
#include "kernels/params.h"
#include "models/model_config.h"
#include "models/pipeline/stage.h"

namespace spin {

struct WorkspaceShape {
  int32_t max_batch = 0;           // rows of a decode step
  int32_t max_rows = 0;            // rows of the tables
  int32_t tile_tokens = 0;         // tokens of a prefill tile
  int32_t max_prefill_tokens = 0;  // tokens of a prefill batch
  int32_t staging_pages = 0;       // of a head
  int64_t index_scratch_bytes = 0;
  int64_t decode_index_scratch_bytes = 0;
  int32_t max_list = 0;       // pages that one stream may list in a step
  int32_t max_selected = 0;   // pages that one Select may return
  int32_t max_estimated = 0;  // partitions that it may leave to an estimate
  KvGeometry geometry;
};

struct Workspace {
  // [tokens][...] with tokens = max(tile_tokens, max_batch); act is the model's dtype
  void* normed = nullptr;     // [tokens][H] act
  void* qkv = nullptr;        // [tokens][(Hq + 2 Hkv) d] act
  void* attention = nullptr;  // [tokens][Hq d] act
  void* gate_up = nullptr;    // [tokens][2 I] act
  void* activated = nullptr;  // [tokens][I] act

  float* decode_residual = nullptr;   // [max_batch][H]
  float* prefill_residual = nullptr;  // [max_prefill_tokens][H]
  float* gathered = nullptr;          // [logits_rows][H]: rows of the residual that get logits
  float* logits = nullptr;            // [logits_rows][V]
  int32_t logits_rows = 0;

  Staging
      staging[2];  // one layer of a prefill batch each; Offload of one runs under the next layer

  void* index_scratch = nullptr;  // of Index at the end of a prefilled layer; the copy stream's
  void* decode_index_scratch = nullptr;
  SelectScratch select;
  int32_t* page_list = nullptr;     // [max_batch][Hkv][max_list]
  int32_t* list_len = nullptr;      // [max_batch][Hkv]
  uint8_t* list_mask = nullptr;     // [max_batch][Hkv][max_list], where partitions are no pages
  int64_t* copy_src = nullptr;      // [max_batch][Hkv][max_list]
  int32_t* copy_dst = nullptr;      // [max_batch][Hkv][max_list]
  int32_t* copy_len = nullptr;      // [max_batch][Hkv]
  int32_t* ready_tokens = nullptr;  // [max_batch][Hkv]
  float* partial = nullptr;         // [max_batch][Hq][d + 2]: attention to what is ready
  int32_t max_list = 0;
  RetrieveCounters* counters = nullptr;  // [max_rows], since start; zero at first

  // Row state; see DecodeRows and SampleParams.
  int32_t* num_rows = nullptr;      // [1]
  int32_t* group_rows = nullptr;    // [kNumRowGroups] of them in each group (step_schedule.h)
  int32_t* rows = nullptr;          // [max_batch]
  int32_t* token = nullptr;         // [max_rows]
  int32_t* position = nullptr;      // [max_rows]
  SamplingRow* sampling = nullptr;  // [max_rows]
  int32_t* row_pages = nullptr;     // [max_rows] a row's own budget, see SelectTopKParams
  uint32_t* history = nullptr;      // [max_rows][V]

  int64_t bytes = 0;
  std::vector<Buffer> buffers;  // what the pointers point into
};

// Device memory that MakeWorkspace takes.
int64_t WorkspaceBytes(const WorkspaceShape& shape, const ModelConfig& config, DType dtype);

absl::StatusOr<Workspace> MakeWorkspace(const WorkspaceShape& shape, const ModelConfig& config,
                                        DType dtype, Device& device);

}  // namespace spin
