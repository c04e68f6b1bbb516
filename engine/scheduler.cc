#include "engine/scheduler.h"

#include <algorithm>
#include <limits>

#include "common/check.h"

namespace spin {
namespace {

// Refusals of the memory manager before a pass stops trying: each try looks at all pools.
constexpr int kMaxRefusals = 8;

int64_t TokensToPrefill(const LiveRequest& request, const Sequence* sequence) {
  const auto generated = sequence == nullptr ? 0 : sequence->generated.size();
  return request.prompt_tokens() + static_cast<int64_t>(generated);
}

}  // namespace

Scheduler::Scheduler(const EngineOptions& options, const ExecutorLimits& limits,
                     KvCacheManager* memory)
    : options_(options),
      max_sequences_(MaxSequences(options, limits)),
      max_batch_tokens_(std::min(options.max_batched_tokens, limits.max_prefill_tokens)),
      memory_(memory) {
  SPIN_CHECK_GE(max_sequences_, 1);
  const auto room = static_cast<std::size_t>(max_sequences_);
  running_.reserve(room);
  suspended_.reserve(room);
  batch_.decode.reserve(room);
  batch_.decode_rows.reserve(room);
}

int32_t Scheduler::MaxSequences(const EngineOptions& options, const ExecutorLimits& limits) {
  return std::min({options.max_num_seqs, limits.max_batch, limits.max_rows});
}

void Scheduler::Enqueue(LiveRequest* request) {
  Insert({.request = request,
          .sequence = nullptr,
          .facts = {.priority = request->request.priority,
                    .admission = 0,
                    .due_us = DueUs(request->arrival_ns, request->prompt_tokens(),
                                    options_.aging_us_per_token),
                    .id = request->request.id,
                    .index = 0}});
}

void Scheduler::Insert(const Waiting& waiting) {
  const auto before = [this](const Waiting& a, const Waiting& b) {
    return AdmitBefore(options_.policy, a.facts, b.facts);
  };
  waiting_.insert(std::upper_bound(waiting_.begin(), waiting_.end(), waiting, before), waiting);
}

const ScheduledBatch& Scheduler::Plan(int64_t now_ns) {
  batch_.Clear();
  awaits_room_ = false;
  GrowRunning();
  ResumeSuspended();
  if (prefill_.empty() && !awaits_room_) AdmitWaiting(now_ns / 1000);
  CollectDecodeRows();
  for (const Waiting& waiting : requeued_) Insert(waiting);
  requeued_.clear();
  memory_->HandOutSlots(SomeoneWaits());
  return batch_;
}

// For room, as far as one can know: a seat is free for who is in the queue, or a sequence has given
// way or could not grow.
bool Scheduler::SomeoneWaits() const {
  const bool seats = num_running() < max_sequences_;
  return awaits_room_ || !suspended_.empty() || (seats && !waiting_.empty()) ||
         std::any_of(running_.begin(), running_.end(), [](const auto* s) { return s->stalled; });
}

void Scheduler::AdmitWaiting(int64_t now_us) {
  int refusals = 0;
  for (std::size_t i = 0; i < waiting_.size() && refusals < kMaxRefusals;) {
    const Waiting waiting = waiting_[i];
    const Admission result = TryAdmit(waiting);
    if (result != Admission::kBlocked) {
      waiting_.erase(waiting_.begin() + static_cast<std::ptrdiff_t>(i));
      continue;
    }
    ++refusals;
    if (memory_->room_is_coming() || !MayBePassed(waiting.facts, now_us)) break;
    ++i;
  }
  batch_.starts_prefill = !prefill_.empty();
}

Scheduler::Admission Scheduler::TryAdmit(const Waiting& waiting) {
  LiveRequest& request = *waiting.request;
  const int64_t tokens = TokensToPrefill(request, waiting.sequence);
  const int32_t n = waiting.sequence != nullptr ? 1 : request.request.sampling.n;
  if (HeldBack(waiting)) return Admission::kBlocked;
  if (!prefill_.empty() && prefill_tokens_ + tokens > max_batch_tokens_) return Admission::kBlocked;
  if (!MakeSeats(waiting, n)) return Admission::kBlocked;

  auto rows = AdmitRows(waiting, tokens, n);
  if (!rows.has_value()) {
    const bool alone =
        running_.empty() && suspended_.empty() && prefill_.empty() && !memory_->room_is_coming();
    if (!alone || !requeued_.empty()) return Admission::kBlocked;
    // Nobody will ever make room: what was generated is all that memory can hold.
    if (waiting.sequence == nullptr) {
      batch_.refused.push_back(&request);
      return Admission::kRemoved;
    }
    batch_.exhausted.push_back(waiting.sequence);
    return Admission::kRemoved;
  }
  SPIN_CHECK_EQ(rows->size(), static_cast<std::size_t>(n));
  prefill_tokens_ += tokens;
  StartPrefill(waiting, *rows);
  return Admission::kAdmitted;
}

// What gave way, in this pass or before, has the first claim on room; only a better priority goes
// ahead of it.
bool Scheduler::HeldBack(const Waiting& waiting) const {
  const auto goes_first = [&](const Waiting& other) {
    return AdmitBefore(options_.policy, other.facts, waiting.facts);
  };
  if (std::any_of(requeued_.begin(), requeued_.end(), goes_first)) return true;
  return !suspended_.empty() && !MayPreempt(options_.policy, waiting.facts.priority,
                                            suspended_.front()->request->request.priority);
}

bool Scheduler::MakeSeats(const Waiting& waiting, int32_t n) {
  const int32_t missing = num_running() + n - max_sequences_;
  const auto takeable = [&](const Sequence* s) {
    return MayPreempt(options_.policy, waiting.facts.priority, s->request->request.priority);
  };
  if (std::count_if(running_.begin(), running_.end(), takeable) < missing) return false;
  for (int32_t i = 0; i < missing; ++i) Preempt(*running_.back());
  return true;
}

std::optional<std::vector<RowId>> Scheduler::AdmitRows(const Waiting& waiting, int64_t tokens,
                                                       int32_t n) {
  const LiveRequest& request = *waiting.request;
  const int64_t most = request.prompt_tokens() + request.max_tokens;
  const bool client_limit = request.request.sampling.max_tokens.has_value();
  const int64_t reserve =
      client_limit ? most : std::min(most, memory_->ReservationTokens(tokens, std::nullopt));
  auto rows = memory_->Admit(tokens, reserve, n, request.budget_pages);
  while (!rows.has_value() && PreemptFor(waiting))
    rows = memory_->Admit(tokens, reserve, n, request.budget_pages);
  // Alone, a preempted sequence takes what there is.
  if (!rows.has_value() && waiting.sequence != nullptr && num_running() == 0 &&
      suspended_.empty() && !memory_->room_is_coming()) {
    rows = memory_->Admit(tokens, std::min(most, tokens + 1), n, request.budget_pages);
  }
  return rows;
}

bool Scheduler::PreemptFor(const Waiting& waiting) {
  if (memory_->room_is_coming()) return false;
  Sequence* victim = NextVictim();
  if (victim == nullptr ||
      !MayPreempt(options_.policy, waiting.facts.priority, victim->request->request.priority)) {
    return false;
  }
  Preempt(*victim);
  return true;
}

void Scheduler::StartPrefill(const Waiting& waiting, const std::vector<RowId>& rows) {
  LiveRequest& request = *waiting.request;
  if (request.admission == 0) request.admission = next_admission_++;
  PrefillUnit unit{.request = &request, .sequences = {}};
  if (waiting.sequence != nullptr) {
    unit.sequences.push_back(waiting.sequence);
  } else {
    for (Sequence& sequence : request.sequences) unit.sequences.push_back(&sequence);
  }
  for (std::size_t i = 0; i < rows.size(); ++i) {
    SPIN_CHECK_EQ(unit.sequences[i]->in_flight, 0);
    unit.sequences[i]->row = rows[i];
    unit.sequences[i]->MoveTo(SequenceState::kPrefilling);
  }
  prefill_.push_back(std::move(unit));
}

void Scheduler::CollectDecodeRows() {
  for (Sequence* sequence : running_) {
    if (sequence->stalled || !sequence->wants_step()) continue;
    batch_.decode.push_back(sequence);
    batch_.decode_rows.push_back(sequence->row);
  }
}

bool Scheduler::PrefillAbandoned() const {
  return !prefill_.empty() && std::all_of(prefill_.begin(), prefill_.end(), [](const auto& unit) {
    return unit.request->finished();
  });
}

void Scheduler::FinishPrefill() {
  SPIN_CHECK(!prefill_.empty());
  for (const PrefillUnit& unit : prefill_) {
    if (unit.request->finished()) {
      ReleaseRows(unit);
      continue;
    }
    std::vector<RowId> rows;
    for (Sequence* sequence : unit.sequences) rows.push_back(sequence->row);
    memory_->FinishPrefill(rows);
    for (Sequence* sequence : unit.sequences) {
      sequence->MoveTo(SequenceState::kRunning);
      InsertOrdered(running_, sequence);
    }
  }
  prefill_.clear();
  prefill_tokens_ = 0;
}

void Scheduler::DropPrefill() {
  SPIN_CHECK(PrefillAbandoned());
  for (const PrefillUnit& unit : prefill_) ReleaseRows(unit);
  prefill_.clear();
  prefill_tokens_ = 0;
}

void Scheduler::ReleaseRows(const PrefillUnit& unit) {
  for (Sequence* sequence : unit.sequences) {
    memory_->Release(sequence->row);
    sequence->row = kNoRow;
  }
}

void Scheduler::Finish(Sequence& sequence) {
  switch (sequence.state) {
    case SequenceState::kWaiting:
    case SequenceState::kPreempted:
      // A new request has one entry for all its sequences; the first of them takes it out.
      std::erase_if(waiting_, [&](const Waiting& w) {
        return w.sequence == &sequence || (w.sequence == nullptr && w.request == sequence.request);
      });
      break;
    case SequenceState::kPrefilling:
      break;  // the row stays with the batch
    case SequenceState::kRunning:
    case SequenceState::kSuspended:
      std::erase(sequence.state == SequenceState::kRunning ? running_ : suspended_, &sequence);
      memory_->Release(sequence.row);
      sequence.row = kNoRow;
      break;
    case SequenceState::kFinished:
      return;
  }
  sequence.MoveTo(SequenceState::kFinished);
}

int32_t Scheduler::prefilling() const {
  std::size_t count = 0;
  for (const PrefillUnit& unit : prefill_) count += unit.sequences.size();
  return static_cast<int32_t>(count);
}

int32_t Scheduler::num_running() const {
  return static_cast<int32_t>(running_.size()) + prefilling();
}

int32_t Scheduler::num_waiting() const {
  return static_cast<int32_t>(std::count_if(
      waiting_.begin(), waiting_.end(), [](const Waiting& w) { return w.sequence == nullptr; }));
}

int32_t Scheduler::num_preempted() const {
  return static_cast<int32_t>(waiting_.size() + suspended_.size()) - num_waiting();
}

void Scheduler::CheckInvariants() const {
  const auto keep_ordered = [this](const Sequence* a, const Sequence* b) {
    return IsBetter(*a, *b);
  };
  SPIN_CHECK(std::is_sorted(running_.begin(), running_.end(), keep_ordered));
  SPIN_CHECK(std::is_sorted(suspended_.begin(), suspended_.end(), keep_ordered));
  SPIN_CHECK(std::is_sorted(waiting_.begin(), waiting_.end(), [this](const auto& a, const auto& b) {
    return AdmitBefore(options_.policy, a.facts, b.facts);
  }));
  SPIN_CHECK_LE(num_running(), max_sequences_);
  SPIN_CHECK(requeued_.empty());
  for (const Sequence* s : running_) {
    SPIN_CHECK(s->state == SequenceState::kRunning);
    const int64_t stored = s->request->prompt_tokens() + std::max(s->launched() - 1, 0);
    SPIN_CHECK_EQ(memory_->length(s->row), stored);
    SPIN_CHECK_LE(stored, memory_->reserved_tokens(s->row));
  }
  for (const Sequence* s : suspended_) {
    SPIN_CHECK(s->state == SequenceState::kSuspended);
    SPIN_CHECK_GE(s->row.value, 0);
  }
  for (const Waiting& w : waiting_) {
    if (w.sequence != nullptr) {
      SPIN_CHECK(w.sequence->state == SequenceState::kPreempted);
      SPIN_CHECK(w.sequence->row == kNoRow);
    } else {
      SPIN_CHECK(w.request->sequences.front().state == SequenceState::kWaiting);
    }
  }
  for (const PrefillUnit& unit : prefill_) {
    for (const Sequence* s : unit.sequences) {
      SPIN_CHECK_GE(s->row.value, 0);
      SPIN_CHECK(s->state == SequenceState::kPrefilling || s->state == SequenceState::kFinished);
    }
  }
}

}  // namespace spin
