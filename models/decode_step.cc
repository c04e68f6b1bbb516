#include "models/decode_step.h"

#include "models/decoder_layer.h"

namespace spin {

void EnqueueDecodeStep(const ModelContext& model, const DecodeRows& decode, StepSchedule schedule,
                       StageClock* clock, Workspace& workspace, Stream& compute,
                       GatherStream& gather, SampledToken* out) {
  if (clock != nullptr) clock->Start(compute);
  TokenSpan tokens;
  tokens.n = decode.max_batch;
  tokens.residual = workspace.decode_residual;
  tokens.decode = decode;
  model.ops->Embedding({.table = model.weights.embedding,
                        .dtype = model.weights.dtype,
                        .ids = nullptr,
                        .decode = decode,
                        .n = decode.max_batch,
                        .hidden = model.config.hidden,
                        .out = tokens.residual},
                       compute);
  for (int32_t layer = 0; layer < model.config.num_layers; ++layer) {
    EnqueueQkv(model, layer, tokens, workspace, compute);
    if (clock != nullptr) clock->Lap(Stage::kRest, compute);
    EnqueueDecodeAttention(model, layer, decode, workspace, compute, gather, schedule, clock);
    EnqueueOutputAndMlp(model, layer, tokens, workspace, compute);
  }
  EnqueueLogits(model, tokens.residual, tokens.n, workspace, compute);
  if (model.observer != nullptr) {
    model.observer->OnLogits(decode, workspace.logits, model.config.vocab_size, compute);
  }
  model.ops->Sample({.decode = decode,
                     .logits = workspace.logits,
                     .vocab = model.config.vocab_size,
                     .sampling = workspace.sampling,
                     .history = workspace.history,
                     .out = out},
                    compute);
  if (clock != nullptr) clock->Lap(Stage::kRest, compute);
}

}  // namespace spin
