#include "models/pipeline/sparse_pipeline.h"

namespace spin {
namespace {

// Residency of the selection, victims for its misses, and the lists that the later stages follow; with `ready_tokens`
// what is ready comes first in them.
void EnqueueLookup(const ModelContext& model, const DecodeStage& stage, const Selection& selection,
                   const Workspace& workspace, int32_t* ready_tokens, RetrieveCounters* counters) {
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
                    .ready_tokens = ready_tokens,
                    .counters = counters},
                   stage.stream);
}

// The new token goes to its slot and through to the host. Before the gather: a tail page that is
// fetched then brings the token along.
void EnqueueOffload(const DecodeStage& stage) {
  stage.ops.AppendKv(
      {.decode = stage.decode, .qkv = stage.qkv, .layer = stage.layer, .tables = stage.tables},
      stage.stream);
}

// The missing pages come from the host.
void EnqueueGather(const DecodeStage& stage, const Workspace& workspace, RetrieveCounters* counters,
                   Stream& stream) {
  stage.ops.GatherPages({.decode = stage.decode,
                         .tables = stage.tables,
                         .copy_src = workspace.copy_src,
                         .copy_dst = workspace.copy_dst,
                         .copy_len = workspace.copy_len,
                         .max_list = workspace.max_list,
                         .counters = counters},
                        stream);
}

void EnqueueAttention(const DecodeStage& stage, const Workspace& workspace, ListPart part) {
  stage.ops.PagedAttention({.decode = stage.decode,
                            .qkv = stage.qkv,
                            .tables = stage.tables,
                            .page_list = workspace.page_list,
                            .list_len = workspace.list_len,
                            .max_list = workspace.max_list,
                            .part = part,
                            .ready_tokens = workspace.ready_tokens,
                            .partial = workspace.partial,
                            .out = workspace.attention},
                           stage.stream);
}

// Retrieve and Attention in order.
void EnqueueSerial(const ModelContext& model, const DecodeStage& stage, const Selection& selection,
                   const Workspace& workspace, RetrieveCounters* counters) {
  EnqueueLookup(model, stage, selection, workspace, nullptr, counters);
  EnqueueOffload(stage);
  EnqueueGather(stage, workspace, counters, stage.stream);
  EnqueueAttention(stage, workspace, ListPart::kAll);
}

// What is ready is attended to while the rest arrives. They touch different slots: victims are not
// selected, and what is not ready is not listed before the join.
void EnqueueOverlapped(const ModelContext& model, const DecodeStage& stage,
                       const Selection& selection, const Workspace& workspace,
                       RetrieveCounters* counters, GatherStream& gather) {
  Device& device = *model.device;
  EnqueueLookup(model, stage, selection, workspace, workspace.ready_tokens, counters);
  EnqueueOffload(stage);
  device.Record(*gather.lists_are_there, stage.stream);
  device.Wait(*gather.stream, *gather.lists_are_there);
  EnqueueGather(stage, workspace, counters, *gather.stream);
  device.Record(*gather.pages_are_there, *gather.stream);
  EnqueueAttention(stage, workspace, ListPart::kReady);
  device.Wait(stage.stream, *gather.pages_are_there);
  EnqueueAttention(stage, workspace, ListPart::kFetched);
}

}  // namespace

void EnqueueDecodeAttention(const ModelContext& model, int32_t layer, const DecodeRows& decode,
                            Workspace& workspace, RetrieveCounters* counters, Stream& stream,
                            GatherStream* gather) {
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
  if (gather != nullptr) {
    EnqueueOverlapped(model, stage, selection, workspace, counters, *gather);
  } else {
    EnqueueSerial(model, stage, selection, workspace, counters);
  }
  if (model.observer != nullptr) model.observer->OnAttention(stage, selection);
}

void EnqueuePrefillOffload(const ModelContext& model, int32_t layer, const PrefillSlice* slices,
                           int32_t num_slices, const Staging& staging, void* index_scratch,
                           Stream& stream) {
  model.algorithm->IndexPrefill({.ops = *model.ops,
                                 .stream = stream,
                                 .layer = layer,
                                 .rope_table = model.rope_table,
                                 .slices = slices,
                                 .num_slices = num_slices,
                                 .tables = model.tables,
                                 .staging = staging,
                                 .scratch = index_scratch});
  model.ops->Offload({.slices = slices,
                      .num_slices = num_slices,
                      .layer = layer,
                      .tables = model.tables,
                      .staging = staging},
                     stream);
}

}  // namespace spin
