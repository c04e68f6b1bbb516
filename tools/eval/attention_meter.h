// How much of the true attention a selection holds, layer by layer: the mass of the selected pages, of the best pages
// there are of that number, and how many of those were selected. Of a page under a mask the tokens that it names count,
// in the overlap, too; the best pages then are as many as hold so many tokens. What is estimated counts for nothing.
//
// Measures a decode step while it is enqueued (StepObserver::OnAttention), at its own pace.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "common/status.h"
#include "kernels/device.h"
#include "models/pipeline/stage.h"
#include "tools/eval/page_reader.h"

namespace spin::eval {

// Of one layer.
struct LayerRecall {
  std::vector<double>
      mass;  // a (step, row, query head): share of the attention within the selected pages
  std::vector<double>
      oracle;  // the same of the best pages, equally many a KV head, the last page among them
  std::vector<double>
      overlap;  // a (step, row, KV head): share of those best pages that were selected
};

struct RecallSummary {
  double mean = 0, p5 = 0;  // of mass
  double oracle = 0;        // mean
  double overlap = 0;       // mean
  double relative() const {
    return oracle > 0 ? mean / oracle : 0;
  }  // index error apart from budget error
};

RecallSummary Summarize(const LayerRecall& layer);
RecallSummary Summarize(const std::vector<LayerRecall>& layers);  // all samples together

class AttentionMeter {
 public:
  // For steps of at most `max_batch` rows and selections of at most `max_selected` pages. `device` outlives the meter.
  static absl::StatusOr<std::unique_ptr<AttentionMeter>> Create(Device& device,
                                                                const KvGeometry& geometry,
                                                                int32_t max_batch,
                                                                int32_t max_selected);

  // Adds all rows of the step's layer. Waits for the stage's stream.
  void Measure(const DecodeStage& stage, const Selection& selection);

  const std::vector<LayerRecall>& layers() const { return layers_; }

 private:
  AttentionMeter(Device& device, int32_t num_layers, std::unique_ptr<PageReader> reader, Buffer ids,
                 Buffer count, Buffer masks)
      : device_(device),
        reader_(std::move(reader)),
        ids_(std::move(ids)),
        count_(std::move(count)),
        masks_(std::move(masks)),
        layers_(static_cast<size_t>(num_layers)) {}

  void MeasureRow(const DecodeStage& stage, const Selection& selection, int32_t place);

  Device& device_;
  std::unique_ptr<PageReader> reader_;
  Buffer ids_, count_, masks_;  // pinned: one selection
  std::vector<LayerRecall> layers_;
};

}  // namespace spin::eval
