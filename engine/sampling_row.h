// From a request's sampling parameters to what the device reads for one of its rows.
#pragma once

#include <cstdint>
#include <span>

#include "common/ids.h"
#include "engine/sampling_params.h"
#include "kernels/params.h"

namespace spin {

// The seed of a request: its own, or one drawn for its id from the engine's seed, so that the order
// in which requests arrive does not matter.
uint64_t RequestSeed(const SamplingParams& sampling, RequestId id, uint64_t engine_seed);

// The seed of sequence `index` of n: the request's own for the first, so that n does not change it;
// derived for others.
uint64_t SequenceSeed(uint64_t request_seed, int32_t index);

// Fills `row`. `prompt_tokens` is the length of the client's prompt, also after a preemption.
// REQUIRES: Validate passed, and the model's end-of-sequence tokens plus stop_token_ids are at most
// kMaxStopTokens.
void FillSamplingRow(const SamplingParams& sampling, uint64_t seed, int32_t prompt_tokens,
                     std::span<const int32_t> eos_token_ids, SamplingRow& row);

}  // namespace spin
