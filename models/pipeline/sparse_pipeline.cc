#include "models/pipeline/sparse_pipeline.h"

#include <cstddef>

#include "common/check.h"

namespace spin {
namespace {

// One layer of one decode step, or of some places of its batch: the stage, and what its stages hand each other.
struct StepPart {
  const ModelContext& model;
  DecodeStage stage;
  StageClock* clock = nullptr;
  int32_t* page_list = nullptr;
  int32_t* list_len = nullptr;
  uint8_t* list_mask = nullptr;
  int32_t max_list = 0;
  int64_t* copy_src = nullptr;
  int32_t* copy_dst = nullptr;
  int32_t* copy_len = nullptr;
  int32_t* ready_tokens = nullptr;
  float* partial = nullptr;
  void* out = nullptr;
};

StepPart WholeStep(const ModelContext& model, int32_t layer, const DecodeRows& decode,
                   const Workspace& workspace, StageClock* clock, Stream& stream) {
  return {.model = model,
          .stage = {.ops = *model.ops,
                    .stream = stream,
                    .layer = layer,
                    .decode = decode,
                    .qkv = workspace.qkv,
                    .rope_table = model.rope_table,
                    .tables = model.tables,
                    .scratch = workspace.select,
                    .row_pages = workspace.row_pages,
                    .index_scratch = workspace.decode_index_scratch,
                    .counters = workspace.counters},
          .clock = clock,
          .page_list = workspace.page_list,
          .list_len = workspace.list_len,
          .list_mask = workspace.list_mask,
          .max_list = workspace.max_list,
          .copy_src = workspace.copy_src,
          .copy_dst = workspace.copy_dst,
          .copy_len = workspace.copy_len,
          .ready_tokens = workspace.ready_tokens,
          .partial = workspace.partial,
          .out = workspace.attention};
}

// The places of one group: every array from its first place on. `group_rows`: [kNumRowGroups] counts on the device.
StepPart Group(StepPart part, int32_t group, const int32_t* group_rows) {
  const KvGeometry& g = part.stage.tables.geometry;
  DecodeRows& decode = part.stage.decode;
  SelectScratch& scratch = part.stage.scratch;
  const int32_t begin = RowGroupBegin(group, decode.max_batch);
  const int64_t streams = int64_t{begin} * g.num_kv_heads;
  const int64_t q_heads = int64_t{begin} * g.num_q_heads;
  decode.max_batch = RowGroupBegin(group + 1, decode.max_batch) - begin;
  decode.num_rows = group_rows + group;
  decode.rows += begin;
  const int64_t head_bytes = g.head_dim * SizeOf(g.dtype);
  part.stage.qkv = static_cast<const std::byte*>(part.stage.qkv) +
                   begin * (g.num_q_heads + 2 * g.num_kv_heads) * head_bytes;
  part.out = static_cast<std::byte*>(part.out) + q_heads * head_bytes;
  if (scratch.scores != nullptr) {  // there are summaries
    scratch.logits += q_heads * g.max_pages();
    scratch.scores += streams * g.max_pages();
  }
  scratch.ids += streams * scratch.max_selected;
  scratch.count += streams;
  if (scratch.page_mask != nullptr) {
    scratch.page_mask += streams * scratch.max_selected;
    part.list_mask += streams * part.max_list;
  }
  if (scratch.estimate != nullptr) {
    scratch.estimate_ids += streams * scratch.max_estimated;
    scratch.estimate_count += streams;
    scratch.estimate += q_heads * (g.head_dim + 2);
  }
  part.page_list += streams * part.max_list;
  part.list_len += streams;
  part.copy_src += streams * part.max_list;
  part.copy_dst += streams * part.max_list;
  part.copy_len += streams;
  part.ready_tokens += streams;
  part.partial += q_heads * (g.head_dim + 2);
  return part;
}

// Residency of the selection, victims for its misses, and the lists that the later stages follow; where what is `ready`
// is to come first in them, so.
void EnqueueLookup(const StepPart& part, const Selection& selection, bool ready_first) {
  part.stage.ops.Lookup({.decode = part.stage.decode,
                         .ids = selection.ids,
                         .count = selection.count,
                         .max_selected = selection.max_selected,
                         .layer = part.stage.layer,
                         .eviction = part.model.eviction,
                         .tables = part.stage.tables,
                         .page_list = part.page_list,
                         .list_len = part.list_len,
                         .max_list = part.max_list,
                         .copy_src = part.copy_src,
                         .copy_dst = part.copy_dst,
                         .copy_len = part.copy_len,
                         .ready_tokens = ready_first ? part.ready_tokens : nullptr,
                         .page_mask = selection.page_mask,
                         .list_mask = part.list_mask,
                         .counters = part.stage.counters},
                        part.stage.stream);
}

// The new token goes to its slot and through to the host. Before the gather: a tail page that is
// fetched then brings the token along.
void EnqueueOffload(const DecodeStage& stage) {
  stage.ops.AppendKv(
      {.decode = stage.decode, .qkv = stage.qkv, .layer = stage.layer, .tables = stage.tables},
      stage.stream);
}

// The missing pages come from the host; keys that stay there are rebuilt.
void EnqueueGather(const StepPart& part, const Selection& selection, Stream& stream) {
  part.stage.ops.GatherPages({.decode = part.stage.decode,
                              .layer = part.stage.layer,
                              .whole_last = selection.whole_last,
                              .list_len = part.list_len,
                              .tables = part.stage.tables,
                              .copy_src = part.copy_src,
                              .copy_dst = part.copy_dst,
                              .copy_len = part.copy_len,
                              .max_list = part.max_list},
                             stream);
  if (selection.whole_last == 0) return;
  part.stage.ops.RebuildKeys({.decode = part.stage.decode,
                              .layer = part.stage.layer,
                              .whole_last = selection.whole_last,
                              .list_len = part.list_len,
                              .tables = part.stage.tables,
                              .rope_table = part.stage.rope_table,
                              .copy_dst = part.copy_dst,
                              .copy_len = part.copy_len,
                              .max_list = part.max_list,
                              .counters = part.stage.counters},
                             stream);
}

void EnqueueAttention(const StepPart& part, const Selection& selection, ListPart list_part) {
  part.stage.ops.PagedAttention(
      {.decode = part.stage.decode,
       .qkv = part.stage.qkv,
       .tables = part.stage.tables,
       .page_list = part.page_list,
       .list_len = part.list_len,
       .max_list = part.max_list,
       .part = list_part,
       .ready_tokens = part.ready_tokens,
       .partial = part.partial,
       .page_mask = selection.page_mask != nullptr ? part.list_mask : nullptr,
       .estimate = selection.estimate,
       .out = part.out},
      part.stage.stream);
}

void EndStage(StageClock* clock, Stage stage, Stream& stream) {
  if (clock != nullptr) clock->Lap(stage, stream);
}

// Select and all of Retrieve but the copies.
Selection EnqueueSelection(const StepPart& part, bool ready_first) {
  Stream& stream = part.stage.stream;
  const Selection selection = part.model.algorithm->Select(part.stage);
  EndStage(part.clock, Stage::kSelect, stream);
  EnqueueLookup(part, selection, ready_first);
  EndStage(part.clock, Stage::kLookup, stream);
  EnqueueOffload(part.stage);
  EndStage(part.clock, Stage::kAppend, stream);
  return selection;
}

// The copies, on their own stream from here on; `event` is which of the gather stream's.
void ForkGather(const StepPart& part, const Selection& selection, GatherStream& gather,
                int32_t event) {
  Device& device = *part.model.device;
  device.Record(*gather.lists_are_there[event], part.stage.stream);
  device.Wait(*gather.stream, *gather.lists_are_there[event]);
  EnqueueGather(part, selection, *gather.stream);
  device.Record(*gather.pages_are_there[event], *gather.stream);
}

void JoinGather(const StepPart& part, const GatherStream& gather, int32_t event) {
  part.model.device->Wait(part.stage.stream, *gather.pages_are_there[event]);
}

// What is ready is attended to while the rest arrives. They touch different slots: victims are not
// selected, and what is not ready is not listed before the join.
Selection EnqueueReadyFirst(const StepPart& part, GatherStream& gather) {
  const Selection selection = EnqueueSelection(part, true);
  ForkGather(part, selection, gather, 0);
  EnqueueAttention(part, selection, ListPart::kReady);
  JoinGather(part, gather, 0);
  EnqueueAttention(part, selection, ListPart::kFetched);
  return selection;
}

// The pages of one group arrive while the next ones are selected for and the ones before are attended to.
Selection EnqueueRowGroups(const StepPart& part, const int32_t* group_rows, GatherStream& gather) {
  Selection selections[kNumRowGroups];
  for (int32_t group = 0; group < kNumRowGroups; ++group) {
    const StepPart some = Group(part, group, group_rows);
    selections[group] = EnqueueSelection(some, false);
    ForkGather(some, selections[group], gather, group);
  }
  for (int32_t group = 0; group < kNumRowGroups; ++group) {
    JoinGather(part, gather, group);
    EnqueueAttention(Group(part, group, group_rows), selections[group], ListPart::kAll);
  }
  return selections[0];  // its arrays begin where the whole step's do
}

Selection EnqueueInOrder(const StepPart& part) {
  const Selection selection = EnqueueSelection(part, false);
  EnqueueGather(part, selection, part.stage.stream);
  EndStage(part.clock, Stage::kGather, part.stage.stream);
  EnqueueAttention(part, selection, ListPart::kAll);
  EndStage(part.clock, Stage::kAttention, part.stage.stream);
  return selection;
}

}  // namespace

void EnqueueDecodeAttention(const ModelContext& model, int32_t layer, const DecodeRows& decode,
                            Workspace& workspace, Stream& stream, GatherStream& gather,
                            StepSchedule schedule, StageClock* clock) {
  SPIN_CHECK(clock == nullptr || schedule == StepSchedule::kInOrder);
  const StepPart part = WholeStep(model, layer, decode, workspace, clock, stream);
  model.algorithm->IndexDecode(part.stage);
  EndStage(clock, Stage::kIndex, stream);
  Selection selection;
  switch (schedule) {
    case StepSchedule::kInOrder:
      selection = EnqueueInOrder(part);
      break;
    case StepSchedule::kReadyFirst:
      selection = EnqueueReadyFirst(part, gather);
      break;
    case StepSchedule::kRowGroups:
      selection = EnqueueRowGroups(part, workspace.group_rows, gather);
      break;
  }
  if (model.observer != nullptr) model.observer->OnAttention(part.stage, selection);
}

void EnqueuePrefillOffload(const ModelContext& model, int32_t layer, const PrefillSlice* slices,
                           int32_t num_slices, const Staging& staging, void* index_scratch,
                           StageClock* clock, Stream& stream) {
  if (model.leaves_out_offload) return;
  const PrefillStage stage = {.ops = *model.ops,
                              .stream = stream,
                              .layer = layer,
                              .rope_table = model.rope_table,
                              .slices = slices,
                              .num_slices = num_slices,
                              .tables = model.tables,
                              .staging = staging,
                              .scratch = index_scratch};
  const int32_t* order = model.algorithm->IndexPrefill(stage);
  EndStage(clock, Stage::kIndex, stream);
  model.ops->Offload({.slices = slices,
                      .num_slices = num_slices,
                      .layer = layer,
                      .tables = model.tables,
                      .staging = staging,
                      .order = order},
                     stream);
  EndStage(clock, Stage::kAppend, stream);
  model.algorithm->IndexOffloaded(stage);
  EndStage(clock, Stage::kIndex, stream);
}

}  // namespace spin
