#include "models/pass.h"

namespace spin {

absl::Status Pass::Allocate(Device& device, int64_t arena_bytes, int32_t max_rows,
                            int32_t max_batch, Pass& pass) {
  SPIN_ASSIGN_OR_RETURN(Buffer arena, device.Allocate(MemoryKind::kPinned, arena_bytes));
  pass.arena = PinnedArena(std::move(arena));
  const int64_t outputs =
      (int64_t{max_rows} + max_batch) * static_cast<int64_t>(sizeof(SampledToken));
  SPIN_ASSIGN_OR_RETURN(pass.outputs, device.Allocate(MemoryKind::kPinned, outputs));
  SPIN_ASSIGN_OR_RETURN(
      pass.counters,
      device.Allocate(MemoryKind::kPinned, max_rows * int64_t{sizeof(RetrieveCounters)}));
  for (auto* event : {&pass.begin, &pass.prefill_begin, &pass.prefill_end, &pass.decode_end}) {
    *event = device.CreateEvent();
  }
  pass.prefill_rows.reserve(max_rows);
  pass.decode_rows.reserve(max_batch);
  pass.sampled.reserve(max_rows + max_batch);
  return absl::OkStatus();
}

void Pass::Reset() {
  arena.Reset();
  prefill_rows.clear();
  decode_rows.clear();
  logprob_ranges.clear();
  begins_prefill = false;
  has_prefill = false;
  times_step = false;
  ends_timed_batch = false;
}

void Pass::Harvest(int32_t max_rows) {
  sampled.clear();
  prompt_logprobs.clear();
  const SampledToken* out = outputs.as<SampledToken>();
  for (std::size_t i = 0; i < prefill_rows.size(); ++i)
    sampled.push_back({prefill_rows[i], out + i});
  out += max_rows;
  for (std::size_t i = 0; i < decode_rows.size(); ++i) sampled.push_back({decode_rows[i], out + i});
  for (const auto& [first, count] : logprob_ranges) {
    prompt_logprobs.emplace_back(first, first + count);
  }
}

}  // namespace spin
