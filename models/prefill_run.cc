#include "models/prefill_run.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "common/check.h"
#include "common/math.h"
#include "models/batch_sizes.h"
#include "models/pipeline/sparse_pipeline.h"

namespace spin {

absl::StatusOr<std::unique_ptr<PrefillRun>> PrefillRun::Create(const ModelContext& model,
                                                               Workspace& workspace,
                                                               const Limits& limits) {
  SPIN_CHECK_GE(limits.tile_tokens, 1);
  SPIN_CHECK_LE(limits.max_batch, workspace.logits_rows);
  std::unique_ptr<PrefillRun> run(new PrefillRun(model, workspace, limits));
  SPIN_RETURN_IF_ERROR(run->Allocate());
  return run;
}

absl::Status PrefillRun::Allocate() {
  absl::Status status;
  const auto take = [&](auto*& pointer, int64_t count, MemoryKind kind) {
    if (!status.ok()) return;
    auto buffer = model_.device->Allocate(kind, count * static_cast<int64_t>(sizeof(*pointer)));
    if (!buffer.ok()) {
      status = buffer.status();
      return;
    }
    pointer = static_cast<std::decay_t<decltype(pointer)>>(buffer->data());
    buffers_.push_back(*std::move(buffer));
  };
  const int64_t tokens = limits_.max_prefill_tokens;
  const int64_t rows = limits_.max_rows;
  segments_.reserve(static_cast<std::size_t>(rows));
  const auto take_all = [&](Upload& upload, MemoryKind kind) {
    for (int32_t** array :
         {&upload.ids, &upload.positions, &upload.kv_begin, &upload.kv_index, &upload.targets}) {
      take(*array, tokens, kind);
    }
    take(upload.slices, rows, kind);
    for (int32_t** array :
         {&upload.rows, &upload.last_token, &upload.last_position, &upload.counts}) {
      take(*array, rows, kind);
    }
  };
  for (Upload& upload : uploads_) {
    take_all(upload, MemoryKind::kPinned);
    take(upload.logprobs, tokens, MemoryKind::kPinned);
  }
  take_all(device_, MemoryKind::kDevice);
  layer_done_ = model_.device->CreateEvent();
  for (auto& event : offload_done_) event = model_.device->CreateEvent();
  return status;
}

void PrefillRun::PackItems(Upload& upload) {
  const int32_t page_tokens = model_.tables.geometry.page_tokens;
  int32_t page = 0;
  num_tokens_ = 0;
  num_samples_ = 0;
  for (std::size_t i = 0; i < items_.size(); ++i) {
    const PrefillItem& item = items_[i];
    const int32_t length = Narrow<int32_t>(item.tokens.size());
    SPIN_CHECK_GE(length, 1);
    SPIN_CHECK(!item.rows.empty());
    SPIN_CHECK_LE(num_tokens_ + length, limits_.max_prefill_tokens);
    upload.slices[i] = {.row = item.rows[0].value,
                        .token_begin = num_tokens_,
                        .num_tokens = length,
                        .page_begin = page,
                        .prefix_tokens = 0};
    const int32_t kv_begin = page * page_tokens;
    for (int32_t t = 0; t < length; ++t) {
      const int32_t at = num_tokens_ + t;
      upload.ids[at] = item.tokens[t];
      upload.positions[at] = t;
      upload.kv_begin[at] = kv_begin;
      upload.kv_index[at] = kv_begin + t;
      upload.targets[at] = t + 1 < length ? item.tokens[t + 1] : 0;
    }
    num_tokens_ += length;
    page += CeilDiv(length, page_tokens);
    if (!item.sample) continue;
    for (const RowId row : item.rows) {
      SPIN_CHECK_LT(num_samples_, limits_.max_rows);
      upload.rows[num_samples_] = row.value;
      upload.last_token[num_samples_] = num_tokens_ - 1;
      upload.last_position[num_samples_] = length - 1;
      ++num_samples_;
    }
  }
  SPIN_CHECK_LE(page, workspace_.staging[0].num_pages);
  for (int32_t begin = 0, group = 0; begin < num_samples_; begin += limits_.max_batch, ++group) {
    upload.counts[group] = std::min(limits_.max_batch, num_samples_ - begin);
  }
}

void PrefillRun::PackLogprobs() {
  logprob_chunks_.clear();
  const std::span<const PrefillSlice> all = slices();
  for (std::size_t i = 0; i < items_.size(); ++i) {
    if (items_[i].num_prompt_logprobs < 0) continue;
    const int32_t last = all[i].token_begin + all[i].num_tokens - 1;  // predicts no prompt token
    for (int32_t begin = all[i].token_begin; begin < last; begin += workspace_.logits_rows) {
      logprob_chunks_.push_back({.token_begin = begin,
                                 .n = std::min(workspace_.logits_rows, last - begin),
                                 .num_top = items_[i].num_prompt_logprobs});
    }
  }
}

void PrefillRun::Begin(std::vector<PrefillItem> items, StageClock* clock, Stream& compute) {
  SPIN_CHECK(!active());
  SPIN_CHECK(!items.empty());
  SPIN_CHECK_LE(static_cast<int64_t>(items.size()), limits_.max_rows);
  items_ = std::move(items);
  clock_ = clock;
  parity_ ^= 1;
  const Upload& from = uploads_[parity_];
  PackItems(uploads_[parity_]);
  PackLogprobs();
  tiles_per_layer_ = CeilDiv(num_tokens_, limits_.tile_tokens);
  next_tile_ = 0;
  work_left_ = 0;
  for (int64_t tile = 0; tile < total_tiles(); ++tile) work_left_ += TileWork(tile);
  const auto copy = [&](auto* dst, const auto* src, int64_t count) {
    if (count > 0)
      model_.device->Copy(dst, src, count * static_cast<int64_t>(sizeof(*src)), compute);
  };
  copy(device_.ids, from.ids, num_tokens_);
  copy(device_.positions, from.positions, num_tokens_);
  copy(device_.kv_begin, from.kv_begin, num_tokens_);
  copy(device_.kv_index, from.kv_index, num_tokens_);
  copy(device_.targets, from.targets, num_tokens_);
  copy(device_.slices, from.slices, static_cast<int64_t>(items_.size()));
  copy(device_.rows, from.rows, num_samples_);
  copy(device_.last_token, from.last_token, num_samples_);
  copy(device_.counts, from.counts, CeilDiv(num_samples_, limits_.max_batch));
}

// Layer tiles, then log-probability chunks, then one tile that samples.
int64_t PrefillRun::total_tiles() const {
  return layer_tiles() + static_cast<int64_t>(logprob_chunks_.size()) + 1;
}

PrefillRun::Run PrefillRun::TileTokens(int32_t tile) const {
  const int32_t begin = tile * limits_.tile_tokens;
  return {begin, std::min(begin + limits_.tile_tokens, num_tokens_)};
}

// Of `tokens` the shortest run with all whose hidden state is read when they have passed the layer: behind the last
// one only that of a token to be continued, or of those that predict a prompt with log-probabilities.
PrefillRun::Run PrefillRun::ReadAfterLayer(int32_t layer, Run tokens) const {
  if (layer + 1 < model_.config.num_layers) return tokens;
  Run read = {tokens.end, tokens.begin};
  for (std::size_t i = 0; i < items_.size(); ++i) {
    const PrefillSlice& slice = slices()[i];
    const int32_t end = slice.token_begin + slice.num_tokens;
    const int32_t first = items_[i].num_prompt_logprobs < 0 ? end - 1 : slice.token_begin;
    const Run own = {std::max(first, tokens.begin), std::min(end, tokens.end)};
    if (own.size() == 0) continue;
    read = {std::min(read.begin, own.begin), std::max(read.end, own.end)};
  }
  return read;
}

int64_t PrefillRun::TileWork(int64_t tile) const {
  if (tile < layer_tiles()) {
    const Run tokens = TileTokens(static_cast<int32_t>(tile % tiles_per_layer_));
    return ReadAfterLayer(static_cast<int32_t>(tile / tiles_per_layer_), tokens).size();
  }
  const std::size_t chunk = static_cast<std::size_t>(tile - layer_tiles());
  return chunk < logprob_chunks_.size() ? logprob_chunks_[chunk].n : num_samples_;
}

bool PrefillRun::Enqueue(int64_t max_work, Stream& compute, Stream& copy, SampledToken* sampled) {
  SPIN_CHECK(active());
  int64_t work = 0;
  do {
    EnqueueTile(next_tile_, compute, copy, sampled);
    work += TileWork(next_tile_++);
  } while (next_tile_ < total_tiles() && work + TileWork(next_tile_) <= max_work);
  work_left_ -= work;
  return next_tile_ == total_tiles();
}

void PrefillRun::EnqueueTile(int64_t tile, Stream& compute, Stream& copy, SampledToken* sampled) {
  if (tile < layer_tiles()) {
    const int32_t layer = static_cast<int32_t>(tile / tiles_per_layer_);
    const int32_t in_layer = static_cast<int32_t>(tile % tiles_per_layer_);
    EnqueueLayerTile(layer, in_layer, compute);
    if (in_layer == tiles_per_layer_ - 1) EnqueueLayerEnd(layer, compute, copy);
    return;
  }
  const std::size_t chunk = static_cast<std::size_t>(tile - layer_tiles());
  if (chunk < logprob_chunks_.size()) {
    EnqueueLogprobs(logprob_chunks_[chunk], compute);
  } else {
    EnqueueSample(compute, sampled);
  }
}

// The sequences that the run cuts, each with its keys so far.
void PrefillRun::FindSegments(Run tokens) {
  segments_.clear();
  for (const PrefillSlice& slice : slices()) {
    const int32_t first = std::max(tokens.begin, slice.token_begin);
    const int32_t end = std::min(tokens.end, slice.token_begin + slice.num_tokens);
    if (first >= end) continue;
    segments_.push_back({.token_begin = first - tokens.begin,
                         .num_tokens = end - first,
                         .kv_begin = slice.page_begin * model_.tables.geometry.page_tokens,
                         .kv_tokens = slice.prefix_tokens + end - slice.token_begin});
  }
}

void PrefillRun::EnqueueLayerTile(int32_t layer, int32_t tile, Stream& compute) {
  const Run run = TileTokens(tile);
  const Staging& staging = workspace_.staging[layer % 2];
  if (tile == 0 && offload_pending_[layer % 2]) {
    model_.device->Wait(compute, *offload_done_[layer % 2]);
    offload_pending_[layer % 2] = false;
  }
  TokenSpan tokens;
  tokens.n = run.size();
  tokens.residual = workspace_.prefill_residual + int64_t{run.begin} * model_.config.hidden;
  tokens.positions = device_.positions + run.begin;
  if (layer == 0) {
    model_.ops->Embedding({.table = model_.weights.embedding,
                           .dtype = model_.weights.dtype,
                           .ids = device_.ids + run.begin,
                           .decode = {},
                           .n = tokens.n,
                           .hidden = model_.config.hidden,
                           .out = tokens.residual},
                          compute);
  }
  EnqueueQkv(model_, layer, tokens, workspace_, compute);
  model_.ops->StoreKv({.qkv = workspace_.qkv,
                       .kv_index = device_.kv_index + run.begin,
                       .n = tokens.n,
                       .geometry = model_.tables.geometry,
                       .staging = staging},
                      compute);
  const Run read = ReadAfterLayer(layer, run);
  if (read.size() > 0) EnqueueBehindKv(layer, run, read, compute);
}

// Attention, output and MLP of the tokens `read` of the tile `run`, which is in workspace.qkv.
void PrefillRun::EnqueueBehindKv(int32_t layer, Run run, Run read, Stream& compute) {
  const KvGeometry& geometry = model_.tables.geometry;
  const int64_t qkv_bytes = (int64_t{geometry.num_q_heads} + 2 * geometry.num_kv_heads) *
                            geometry.head_dim * SizeOf(model_.weights.dtype);
  const std::byte* qkv = static_cast<const std::byte*>(workspace_.qkv);
  FindSegments(read);
  model_.ops->PrefillAttention({.qkv = qkv + (read.begin - run.begin) * qkv_bytes,
                                .kv_begin = device_.kv_begin + read.begin,
                                .kv_index = device_.kv_index + read.begin,
                                .n = read.size(),
                                .geometry = geometry,
                                .staging = workspace_.staging[layer % 2],
                                .out = workspace_.attention,
                                .segments = segments_.data(),
                                .num_segments = static_cast<int32_t>(segments_.size())},
                               compute);
  TokenSpan tokens;
  tokens.n = read.size();
  tokens.residual = workspace_.prefill_residual + int64_t{read.begin} * model_.config.hidden;
  EnqueueOutputAndMlp(model_, layer, tokens, workspace_, compute);
}

void PrefillRun::EnqueueLayerEnd(int32_t layer, Stream& compute, Stream& copy) {
  model_.device->Record(*layer_done_, compute);
  model_.device->Wait(copy, *layer_done_);
  if (clock_ != nullptr && layer == 0) clock_->Start(copy);
  if (clock_ != nullptr && layer > 0) clock_->Lap(Stage::kRest, copy);
  EnqueuePrefillOffload(model_, layer, device_.slices, static_cast<int32_t>(items_.size()),
                        workspace_.staging[layer % 2], workspace_.index_scratch, clock_, copy);
  model_.device->Record(*offload_done_[layer % 2], copy);
  offload_pending_[layer % 2] = true;
}

void PrefillRun::EnqueueLogprobs(const LogprobChunk& chunk, Stream& compute) {
  EnqueueLogits(model_,
                workspace_.prefill_residual + int64_t{chunk.token_begin} * model_.config.hidden,
                chunk.n, workspace_, compute);
  model_.ops->TokenLogprobs({.logits = workspace_.logits,
                             .target = device_.targets + chunk.token_begin,
                             .n = chunk.n,
                             .vocab = model_.config.vocab_size,
                             .num_top = chunk.num_top,
                             .out = uploads_[parity_].logprobs + chunk.token_begin},
                            compute);
}

void PrefillRun::EnqueueSample(Stream& compute, SampledToken* sampled) {
  const Upload& host = uploads_[parity_];
  for (int32_t begin = 0, group = 0; begin < num_samples_; begin += limits_.max_batch, ++group) {
    const int32_t n = host.counts[group];
    for (int32_t i = begin; i < begin + n; ++i) {
      model_.device->Copy(workspace_.position + host.rows[i], host.last_position + i, 4, compute);
    }
    model_.ops->GatherRows({.in = workspace_.prefill_residual,
                            .index = device_.last_token + begin,
                            .n = n,
                            .width = model_.config.hidden,
                            .out = workspace_.gathered},
                           compute);
    // As many as a decode step has: what those products are known by.
    EnqueueLogits(model_, workspace_.gathered,
                  PlacesOf(model_.device->info(), n, limits_.max_batch), workspace_, compute);
    model_.ops->Sample({.decode = {.max_batch = n,
                                   .num_rows = device_.counts + group,
                                   .rows = device_.rows + begin,
                                   .token = workspace_.token,
                                   .position = workspace_.position},
                        .logits = workspace_.logits,
                        .vocab = model_.config.vocab_size,
                        .sampling = workspace_.sampling,
                        .history = workspace_.history,
                        .out = sampled + begin},
                       compute);
  }
}

void PrefillRun::Finish(Stream& compute) {
  SPIN_CHECK(active());
  for (int i = 0; i < 2; ++i) {
    if (offload_pending_[i]) model_.device->Wait(compute, *offload_done_[i]);
    offload_pending_[i] = false;
  }
  items_.clear();
  clock_ = nullptr;
}

}  // namespace spin
