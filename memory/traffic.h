// What decode steps and prefills read and write of the KV cache, computed from lengths. For accounting alone: nothing
// is decided by it, and what only the device knows (misses, what a threshold spares) it counts (RetrieveCounters).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/kv_layout.h"
#include "memory/admission.h"

namespace spin {

// What one decode step reads of a sequence, over all layers. What a threshold spares is in it; retrieved clusters count
// with their mean size.
struct StepReads {
  int64_t attended_tokens = 0;  // by each KV head, summed over the layers
  int64_t attention_bytes = 0;  // keys and values of them, of all KV heads
  int64_t summary_bytes = 0;    // of summaries that Select scores: as much of each as scoring reads
  int64_t estimate_bytes = 0;   // records of the clusters that are attended to by their means

  StepReads& operator+=(const StepReads& other);
};

// What is written while a sequence is prefilled or goes a step, over all layers and KV heads.
struct CacheWrites {
  int64_t index_bytes = 0;    // summaries, and what keys are rebuilt from
  int64_t offload_bytes = 0;  // keys and values, to the host

  CacheWrites& operator+=(const CacheWrites& other);
};

// Tokens [from, to) of a sequence: those of its prefill (from 0 to all of them), or the one of a step.
struct StoredTokens {
  int64_t from = 0, to = 0;
  int64_t prefill_tokens = 0;  // of the sequence's prefill
  bool tiered = false;
};

class Traffic {
 public:
  // REQUIRES: one demand a layer.
  Traffic(const KvGeometry& geometry, std::span<const LayerDemand> layers);

  // Of a step of a sequence of `tokens` >= 1, the new one among them; `budget_pages` as Footprint has it.
  StepReads Reads(int64_t tokens, int32_t budget_pages = 0) const;
  // REQUIRES: 0 <= from <= to.
  CacheWrites Writes(const StoredTokens& stored) const;

 private:
  StepReads StreamReads(const LayerDemand& demand, int64_t tokens, int32_t budget_pages) const;
  bool HasFactors(const StoredTokens& stored) const;
  int64_t SummaryBytes(const LayerDemand& demand, const StoredTokens& stored) const;
  int64_t NewlySettled(const StoredTokens& stored) const;  // extents

  KvGeometry geometry_;
  std::vector<LayerGroup> groups_;
};

}  // namespace spin
