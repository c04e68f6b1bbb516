#include "models/decoder_layer.h"

#include "common/check.h"

namespace spin {
namespace {

void EnqueueNorm(const ModelContext& model, const float* in, const float* weight, int32_t n,
                 Workspace& workspace, Stream& stream) {
  model.ops->RmsNorm({.in = in,
                      .weight = weight,
                      .eps = model.config.rms_norm_eps,
                      .n = n,
                      .hidden = model.config.hidden,
                      .out = workspace.normed,
                      .out_dtype = model.weights.dtype},
                     stream);
}

// c = a w^T in the activation type.
void EnqueueLinear(const ModelContext& model, const void* a, const Weight& w, int32_t n, void* c,
                   Stream& stream) {
  model.ops->Gemm({.a = a, .lda = w.k, .w = w, .m = n, .c = c, .ldc = w.n, .c_dtype = w.dtype},
                  stream);
}

// residual += a w^T.
void EnqueueResidual(const ModelContext& model, const void* a, const Weight& w, int32_t n,
                     float* residual, Stream& stream) {
  model.ops->Gemm({.a = a,
                   .lda = w.k,
                   .w = w,
                   .m = n,
                   .c = residual,
                   .ldc = w.n,
                   .c_dtype = DType::kF32,
                   .accumulate = true},
                  stream);
}

}  // namespace

void EnqueueQkv(const ModelContext& model, int32_t layer, const TokenSpan& tokens,
                Workspace& workspace, Stream& stream) {
  const LayerWeights& weights = model.weights.layers[layer];
  EnqueueNorm(model, tokens.residual, weights.input_norm, tokens.n, workspace, stream);
  EnqueueLinear(model, workspace.normed, weights.qkv, tokens.n, workspace.qkv, stream);
  model.ops->Rope({.qkv = workspace.qkv,
                   .dtype = model.weights.dtype,
                   .n = tokens.n,
                   .positions = tokens.positions,
                   .decode = tokens.decode,
                   .num_q_heads = model.config.num_q_heads,
                   .num_kv_heads = model.config.num_kv_heads,
                   .head_dim = model.config.head_dim,
                   .q_norm = weights.q_norm,
                   .k_norm = weights.k_norm,
                   .eps = model.config.rms_norm_eps,
                   .table = model.rope_table},
                  stream);
}

void EnqueueOutputAndMlp(const ModelContext& model, int32_t layer, const TokenSpan& tokens,
                         Workspace& workspace, Stream& stream) {
  const LayerWeights& weights = model.weights.layers[layer];
  EnqueueResidual(model, workspace.attention, weights.output, tokens.n, tokens.residual, stream);
  EnqueueNorm(model, tokens.residual, weights.post_attention_norm, tokens.n, workspace, stream);
  EnqueueLinear(model, workspace.normed, weights.gate_up, tokens.n, workspace.gate_up, stream);
  model.ops->SiluMul({.gate_up = workspace.gate_up,
                      .out = workspace.activated,
                      .dtype = model.weights.dtype,
                      .n = tokens.n,
                      .width = model.config.intermediate},
                     stream);
  EnqueueResidual(model, workspace.activated, weights.down, tokens.n, tokens.residual, stream);
}

void EnqueueProducts(const ModelContext& model, int32_t n, float* residual, Workspace& workspace,
                     Stream& stream) {
  const LayerWeights& weights = model.weights.layers[0];  // those of the others have its shapes
  EnqueueLinear(model, workspace.normed, weights.qkv, n, workspace.qkv, stream);
  EnqueueResidual(model, workspace.attention, weights.output, n, residual, stream);
  EnqueueLinear(model, workspace.normed, weights.gate_up, n, workspace.gate_up, stream);
  EnqueueResidual(model, workspace.activated, weights.down, n, residual, stream);
}

void EnqueueLogits(const ModelContext& model, const float* residual, int32_t n,
                   Workspace& workspace, Stream& stream) {
  SPIN_CHECK_LE(n, workspace.logits_rows);
  EnqueueNorm(model, residual, model.weights.final_norm, n, workspace, stream);
  const Weight& head = model.weights.lm_head;
  model.ops->Gemm({.a = workspace.normed,
                   .lda = head.k,
                   .w = head,
                   .m = n,
                   .c = workspace.logits,
                   .ldc = head.n,
                   .c_dtype = DType::kF32},
                  stream);
}

}  // namespace spin
