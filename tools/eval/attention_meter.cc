#include "tools/eval/attention_meter.h"

#include <algorithm>
#include <bit>
#include <numeric>
#include <span>

#include "common/check.h"
#include "common/math.h"
#include "tools/eval/attention_mass.h"
#include "tools/eval/logit_distance.h"

namespace spin::eval {
namespace {

// The pages that one stream attends to.
std::vector<int32_t> Selected(const Selection& selection, const int32_t* ids, const int32_t* count,
                              int64_t stream, int32_t num_pages) {
  if (selection.ids == nullptr) {
    std::vector<int32_t> all(static_cast<size_t>(num_pages));
    std::iota(all.begin(), all.end(), 0);
    return all;
  }
  const int32_t* first = ids + stream * selection.max_selected;
  return {first, first + count[stream]};
}

// Tokens of the listed pages that the masks name.
int64_t NumTokens(std::span<const uint8_t> masks) {
  int64_t tokens = 0;
  for (const uint8_t mask : masks) tokens += std::popcount(mask);
  return tokens;
}

}  // namespace

absl::StatusOr<std::unique_ptr<AttentionMeter>> AttentionMeter::Create(Device& device,
                                                                       const KvGeometry& geometry,
                                                                       int32_t max_batch,
                                                                       int32_t max_selected) {
  const int64_t streams = int64_t{max_batch} * geometry.num_kv_heads;
  SPIN_ASSIGN_OR_RETURN(std::unique_ptr<PageReader> reader, PageReader::Create(device, geometry));
  SPIN_ASSIGN_OR_RETURN(Buffer ids,
                        device.Allocate(MemoryKind::kPinned, streams * max_selected * 4));
  SPIN_ASSIGN_OR_RETURN(Buffer count, device.Allocate(MemoryKind::kPinned, streams * 4));
  SPIN_ASSIGN_OR_RETURN(Buffer masks, device.Allocate(MemoryKind::kPinned, streams * max_selected));
  return std::unique_ptr<AttentionMeter>(new AttentionMeter(device, geometry.num_layers,
                                                            std::move(reader), std::move(ids),
                                                            std::move(count), std::move(masks)));
}

void AttentionMeter::Measure(const DecodeStage& stage, const Selection& selection) {
  const int32_t rows = reader_->NumRows(stage);
  const int64_t streams = int64_t{rows} * stage.tables.geometry.num_kv_heads;
  if (selection.ids != nullptr) {
    SPIN_CHECK_LE(streams * selection.max_selected * 4, ids_.bytes());
    device_.Copy(ids_.data(), selection.ids, streams * selection.max_selected * 4, stage.stream);
    device_.Copy(count_.data(), selection.count, streams * 4, stage.stream);
    if (selection.page_mask != nullptr) {
      device_.Copy(masks_.data(), selection.page_mask, streams * selection.max_selected,
                   stage.stream);
    }
    device_.Synchronize(stage.stream);
  }
  for (int32_t place = 0; place < rows; ++place) MeasureRow(stage, selection, place);
}

void AttentionMeter::MeasureRow(const DecodeStage& stage, const Selection& selection,
                                int32_t place) {
  const KvGeometry& geometry = stage.tables.geometry;
  LayerRecall& layer = layers_[static_cast<size_t>(stage.layer)];
  LayerView view;
  reader_->Read(stage, place, view);
  const std::vector<float> token_mass = TokenMass(view, geometry);
  const std::vector<float> mass = SumByPage(token_mass, geometry);
  const int32_t pages = view.num_pages(geometry.page_tokens);
  const auto tokens = static_cast<size_t>(view.position) + 1;
  for (int32_t kv_head = 0; kv_head < geometry.num_kv_heads; ++kv_head) {
    const int64_t stream = int64_t{place} * geometry.num_kv_heads + kv_head;
    const std::vector<int32_t> selected =
        Selected(selection, ids_.as<int32_t>(), count_.as<int32_t>(), stream, pages);
    auto count = static_cast<int32_t>(selected.size());
    std::span<const uint8_t> masks;
    if (selection.page_mask != nullptr) {
      masks = {masks_.as<uint8_t>() + stream * selection.max_selected, selected.size()};
      count = static_cast<int32_t>(CeilDiv(NumTokens(masks), geometry.page_tokens));
    }
    const std::vector<int32_t> best = BestPages(GroupMass(mass, geometry, kv_head), count);
    layer.overlap.push_back(masks.empty() ? Overlap(selected, best)
                                          : MaskedOverlap(selected, masks, best, view.position + 1,
                                                          geometry.page_tokens));
    for (int32_t i = 0; i < geometry.group(); ++i) {
      const auto head = static_cast<size_t>(kv_head * geometry.group() + i);
      const std::span<const float> by_page(mass.data() + head * static_cast<size_t>(pages),
                                           static_cast<size_t>(pages));
      const std::span<const float> by_token(token_mass.data() + head * tokens, tokens);
      layer.mass.push_back(masks.empty()
                               ? MassOf(by_page, selected)
                               : MaskedMassOf(by_token, selected, masks, geometry.page_tokens));
      layer.oracle.push_back(MassOf(by_page, best));
    }
  }
}

RecallSummary Summarize(const LayerRecall& layer) {
  return {.mean = Mean(layer.mass),
          .p5 = Percentile(layer.mass, 5),
          .oracle = Mean(layer.oracle),
          .overlap = Mean(layer.overlap)};
}

RecallSummary Summarize(const std::vector<LayerRecall>& layers) {
  LayerRecall all;
  for (const LayerRecall& layer : layers) {
    all.mass.insert(all.mass.end(), layer.mass.begin(), layer.mass.end());
    all.oracle.insert(all.oracle.end(), layer.oracle.begin(), layer.oracle.end());
    all.overlap.insert(all.overlap.end(), layer.overlap.begin(), layer.overlap.end());
  }
  return Summarize(all);
}

}  // namespace spin::eval
