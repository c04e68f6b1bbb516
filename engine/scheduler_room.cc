// Room: growth of full rows, and who gives way. The other half of engine/scheduler.h.
//
// A row grows best first; what it lacks is taken from the worst, so the best sequence always goes
// on and the whole never stands still. A Tiered victim first gives back its slots (its KV stays on
// the host), then everything, but for as long as slots alone are short nobody is prefilled again who
// has no slots to give. A row that is itself the worst waits in place: giving itself up would buy it
// nothing. While demotions make room nobody gives way: it may be enough.
#include <algorithm>

#include "common/check.h"
#include "engine/scheduler.h"

namespace spin {
bool Scheduler::IsBetter(const Sequence& a, const Sequence& b) const {
  const auto facts = [](const Sequence& s) {
    return RunningFacts{.priority = s.request->request.priority,
                        .admission = s.request->admission,
                        .index = s.index};
  };
  return KeepBefore(options_.policy, facts(a), facts(b));
}

void Scheduler::InsertOrdered(std::vector<Sequence*>& list, Sequence* sequence) {
  const auto before = [this](const Sequence* a, const Sequence* b) { return IsBetter(*a, *b); };
  list.insert(std::upper_bound(list.begin(), list.end(), sequence, before), sequence);
}

void Scheduler::GrowRunning() {
  // Victims come from the end of the list, so the index stays good.
  for (std::size_t i = 0; i < running_.size(); ++i) {
    Sequence& sequence = *running_[i];
    sequence.stalled = false;
    if (!sequence.wants_step()) continue;
    if (memory_->length(sequence.row) < memory_->reserved_tokens(sequence.row)) continue;
    sequence.stalled = !GrowOne(sequence);
  }
}

bool Scheduler::GrowOne(Sequence& sequence) {
  const int64_t target = GrowthTarget(sequence);
  while (!memory_->Grow(sequence.row, target)) {
    if (memory_->room_is_coming()) {
      awaits_room_ = true;
      return false;
    }
    Sequence* victim = NextVictim();
    SPIN_CHECK(victim != nullptr);
    if (victim != &sequence) {
      Preempt(*victim);
      continue;
    }
    if (!OnlyHolder(sequence)) return false;
    if (memory_->Grow(sequence.row, memory_->length(sequence.row) + 1)) return true;
    // It has all the memory there is. The tokens in flight are its last.
    if (sequence.in_flight == 0) {
      batch_.exhausted.push_back(&sequence);
    } else {
      sequence.stop.LimitTokens(sequence.launched());
    }
    return false;
  }
  return true;
}

int64_t Scheduler::GrowthTarget(const Sequence& sequence) const {
  const LiveRequest& request = *sequence.request;
  const int64_t length = memory_->length(sequence.row);
  const int64_t most = request.prompt_tokens() + request.max_tokens;
  SPIN_CHECK_LT(length, most);
  return std::max(length + 1, std::min(most, memory_->ReservationTokens(length, std::nullopt)));
}

// Of what it was refused last: nobody else holds any of it.
bool Scheduler::OnlyHolder(const Sequence& sequence) const {
  const bool slots_alone =
      memory_->placement(sequence.row) == Placement::kTiered && memory_->short_of_slots_alone();
  return prefill_.empty() && (suspended_.empty() || slots_alone) && running_.size() == 1 &&
         running_.front() == &sequence;
}

Sequence* Scheduler::Worst() const {
  if (running_.empty() && suspended_.empty()) return nullptr;
  if (suspended_.empty()) return running_.back();
  if (running_.empty()) return suspended_.back();
  return IsBetter(*suspended_.back(), *running_.back()) ? running_.back() : suspended_.back();
}

// Who gives way to whoever was refused last. Where slots alone are short, those that are suspended
// have none to give; the worst of those that run is suspended beside them.
Sequence* Scheduler::NextVictim() const {
  const bool suspending_helps = !running_.empty() && memory_->short_of_slots_alone() &&
                                memory_->placement(running_.back()->row) == Placement::kTiered;
  return suspending_helps ? running_.back() : Worst();
}

void Scheduler::Preempt(Sequence& victim) {
  ++preemptions_;
  if (victim.state == SequenceState::kSuspended) {
    SPIN_CHECK_EQ(suspended_.back(), &victim);
    suspended_.pop_back();
    Requeue(victim);
    return;
  }
  SPIN_CHECK_EQ(running_.back(), &victim);
  running_.pop_back();
  if (memory_->placement(victim.row) == Placement::kTiered) {
    memory_->Suspend(victim.row);
    victim.MoveTo(SequenceState::kSuspended);
    InsertOrdered(suspended_, &victim);
  } else {
    Requeue(victim);
  }
}

void Scheduler::Requeue(Sequence& sequence) {
  memory_->Release(sequence.row);
  sequence.row = kNoRow;
  sequence.MoveTo(SequenceState::kPreempted);
  requeued_.push_back({.request = sequence.request,
                       .sequence = &sequence,
                       .facts = {.priority = sequence.request->request.priority,
                                 .admission = sequence.request->admission,
                                 .due_us = 0,
                                 .id = sequence.request->request.id,
                                 .index = sequence.index}});
}

void Scheduler::ResumeSuspended() {
  while (!suspended_.empty() && num_running() < max_sequences_) {
    Sequence& sequence = *suspended_.front();
    if (!memory_->Resume(sequence.row)) {
      if (memory_->room_is_coming()) {
        awaits_room_ = true;
      } else if (running_.empty() && prefill_.empty()) {
        // With nothing to wait for, what the worst keeps on the host must be in the way.
        Preempt(*suspended_.back());
      }
      return;
    }
    suspended_.erase(suspended_.begin());
    sequence.MoveTo(SequenceState::kRunning);
    // Not yet checked for growth: its next step is in the next pass.
    sequence.stalled = true;
    InsertOrdered(running_, &sequence);
  }
}

}  // namespace spin
