#include "tools/eval/forced_decode.h"

#include <algorithm>
#include <utility>

#include "common/check.h"

namespace spin::eval {
namespace {

// Brings the logits of each step to the host and, where asked, shows its attention to a meter.
class StepTap final : public StepObserver {
 public:
  StepTap(Device& device, Buffer logits) : device_(device), logits_(std::move(logits)) {}

  void Watch(AttentionMeter* meter) { meter_ = meter; }

  void OnAttention(const DecodeStage& stage, const Selection& selection) override {
    if (meter_ != nullptr) meter_->Measure(stage, selection);
  }
  void OnLogits(const DecodeRows& decode, const float* logits, int32_t vocab,
                Stream& stream) override {
    const int64_t bytes = int64_t{decode.max_batch} * vocab * 4;
    SPIN_CHECK_LE(bytes, logits_.bytes());
    vocab_ = vocab;
    device_.Copy(logits_.data(), logits, bytes, stream);
  }

  // Of batch place `place` of the last step, once it has been collected.
  std::span<const float> logits(size_t place) const {
    const auto width = static_cast<size_t>(vocab_);
    return {logits_.as<float>() + place * width, width};
  }

 private:
  Device& device_;
  Buffer logits_;  // pinned
  AttentionMeter* meter_ = nullptr;
  int32_t vocab_ = 0;
};

// The last of the evenly spread steps is the last step.
bool IsMeasured(int32_t step, const ForcedOptions& options) {
  const int64_t done = int64_t{step} * options.num_measured / options.num_forced;
  return int64_t{step + 1} * options.num_measured / options.num_forced > done;
}

// The forced tokens of documents whose prompts are in `rows` ([document][variant]), under one variant.
void RunVariant(Session& session, size_t variant, StepTap& tap, std::span<const Tokens> documents,
                const std::vector<std::vector<RowId>>& rows, const ForcedOptions& options,
                absl::FunctionRef<void(size_t document, int32_t step)> on_step) {
  std::vector<RowId> batch;
  for (const auto& copies : rows) batch.push_back(copies[variant]);
  for (int32_t step = 0; step < options.num_forced; ++step) {
    const bool measured = !options.meters.empty() && IsMeasured(step, options);
    tap.Watch(measured ? options.meters[variant] : nullptr);
    const auto left = static_cast<size_t>(options.num_forced - step);
    for (size_t i = 0; i < batch.size(); ++i) {
      session.Force(batch[i], documents[i][documents[i].size() - left]);
    }
    session.Step(variant, batch);
    for (size_t i = 0; i < batch.size(); ++i) on_step(i, step);
  }
}

absl::Status RunBatch(Session& session, StepTap& tap, std::span<const Tokens> documents,
                      size_t first, const ForcedOptions& options, LogitsSink sink) {
  std::vector<std::vector<RowId>> rows;
  for (const Tokens& tokens : documents) {
    SPIN_CHECK_GT(static_cast<int64_t>(tokens.size()), int64_t{options.num_forced});
    const std::span<const int32_t> prompt(tokens.data(),
                                          tokens.size() - static_cast<size_t>(options.num_forced));
    SPIN_ASSIGN_OR_RETURN(std::vector<RowId> copies, session.Start(prompt, options.num_forced));
    rows.push_back(std::move(copies));
  }
  session.Observe(&tap);
  for (size_t variant = 0; variant < session.num_variants(); ++variant) {
    RunVariant(session, variant, tap, documents, rows, options, [&](size_t document, int32_t step) {
      sink(variant, first + document, step, tap.logits(document));
    });
  }
  session.Observe(nullptr);
  for (const auto& copies : rows) session.Release(copies);
  return absl::OkStatus();
}

}  // namespace

absl::Status ForcedDecode(Session& session, std::span<const Tokens> documents,
                          const ForcedOptions& options, LogitsSink sink) {
  const auto batch = static_cast<size_t>(session.batch());
  const int64_t bytes = int64_t{session.batch()} * session.plan().folder.config.vocab_size * 4;
  SPIN_ASSIGN_OR_RETURN(Buffer logits, session.device().Allocate(MemoryKind::kPinned, bytes));
  StepTap tap(session.device(), std::move(logits));
  for (size_t first = 0; first < documents.size(); first += batch) {
    const size_t count = std::min(batch, documents.size() - first);
    SPIN_RETURN_IF_ERROR(
        RunBatch(session, tap, documents.subspan(first, count), first, options, sink));
  }
  return absl::OkStatus();
}

}  // namespace spin::eval
