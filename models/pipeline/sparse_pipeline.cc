#include "models/pipeline/sparse_pipeline.h"

namespace spin {
namespace {

// Residency of the selection, victims for its misses, and the lists that the later stages follow.
void EnqueueLookup(const ModelContext& model, const DecodeStage& stage, const Selection& selection,
                   Workspace& workspace, RetrieveCounters* counters) {
  stage.ops.Lookup({.decode = stage.decode,
                    .ids = selection.ids,
                    .count = selection.count,
                    .max_selected = selection.max_selected,
                    .layer = stage.layer,
                    .eviction = model.eviction,
                    .tables = stage.tables,
                    .page_list = workspace.page_list,
                    .list_len = workspace.list_len,
                    .max_list = workspace.max_list,
                    .copy_src = workspace.copy_src,
                    .copy_dst = workspace.copy_dst,
                    .copy_len = workspace.copy_len,
                    .counters = counters},
                   stage.stream);
}

// The new token goes to its slot and through to the host; the missing pages come from the host. In
// this order: a tail page that is fetched then brings the token along.
void EnqueueOffloadAndRetrieve(const DecodeStage& stage, Workspace& workspace,
                               RetrieveCounters* counters) {
  stage.ops.AppendKv(
      {.decode = stage.decode, .qkv = stage.qkv, .layer = stage.layer, .tables = stage.tables},
      stage.stream);
  stage.ops.GatherPages({.decode = stage.decode,
                         .tables = stage.tables,
                         .copy_src = workspace.copy_src,
                         .copy_dst = workspace.copy_dst,
                         .copy_len = workspace.copy_len,
                         .max_list = workspace.max_list,
                         .counters = counters},
                        stage.stream);
}

void EnqueueAttention(const DecodeStage& stage, Workspace& workspace) {
  stage.ops.PagedAttention({.decode = stage.decode,
                            .qkv = stage.qkv,
                            .tables = stage.tables,
                            .page_list = workspace.page_list,
                            .list_len = workspace.list_len,
                            .max_list = workspace.max_list,
                            .out = workspace.attention},
                           stage.stream);
}

}  // namespace

void EnqueueDecodeAttention(const ModelContext& model, int32_t layer, const DecodeRows& decode,
                            Workspace& workspace, RetrieveCounters* counters, Stream& stream) {
  const DecodeStage stage = {.ops = *model.ops,
                             .stream = stream,
                             .layer = layer,
                             .decode = decode,
                             .qkv = workspace.qkv,
                             .rope_table = model.rope_table,
                             .tables = model.tables,
                             .scratch = workspace.select};
  model.algorithm->IndexDecode(stage);
  const Selection selection = model.algorithm->Select(stage);
  EnqueueLookup(model, stage, selection, workspace, counters);
  EnqueueOffloadAndRetrieve(stage, workspace, counters);
  EnqueueAttention(stage, workspace);
}

void EnqueuePrefillOffload(const ModelContext& model, int32_t layer, const PrefillSlice* slices,
                           int32_t num_slices, const Staging& staging, Stream& stream) {
  model.algorithm->IndexPrefill({.ops = *model.ops,
                                 .stream = stream,
                                 .layer = layer,
                                 .rope_table = model.rope_table,
                                 .slices = slices,
                                 .num_slices = num_slices,
                                 .tables = model.tables,
                                 .staging = staging});
  model.ops->Offload({.slices = slices,
                      .num_slices = num_slices,
                      .layer = layer,
                      .tables = model.tables,
                      .staging = staging},
                     stream);
}

}  // namespace spin
