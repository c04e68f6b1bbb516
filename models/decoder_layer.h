// One transformer block around its attention, in terms of Ops; and the head of the model. Prefill
// and decode share it.
#pragma once

#include <cstdint>

#include "models/model_context.h"
#include "models/workspace.h"

namespace spin {

// The tokens that a call works on: a prefill tile with their positions, or the rows of a decode
// step.
struct TokenSpan {
  int32_t n = 0;
  float* residual = nullptr;           // [n][H]
  const int32_t* positions = nullptr;  // [n], or null: `decode` says which
  DecodeRows decode;
};

// residual -> norm -> q, k, v -> (q/k norm) -> RoPE, into workspace.qkv.
void EnqueueQkv(const ModelContext& model, int32_t layer, const TokenSpan& tokens,
                Workspace& workspace, Stream& stream);

// workspace.attention -> output projection -> residual -> norm -> SwiGLU -> residual.
void EnqueueOutputAndMlp(const ModelContext& model, int32_t layer, const TokenSpan& tokens,
                         Workspace& workspace, Stream& stream);

// The four products of a layer alone, on `n` tokens of whatever the workspace holds: a device that times products does
// so when it meets their shapes. `residual` [n][H] is garbage afterwards.
void EnqueueProducts(const ModelContext& model, int32_t n, float* residual, Workspace& workspace,
                     Stream& stream);

// residual [n][H] -> final norm -> workspace.logits [n][V]. REQUIRES: n <= workspace.logits_rows.
void EnqueueLogits(const ModelContext& model, const float* residual, int32_t n,
                   Workspace& workspace, Stream& stream);

}  // namespace spin
