// Who goes first and who gives way: pure functions on plain facts.
//
// FCFS with aging: a waiting prompt's rank is tokens x aging_us_per_token minus the microseconds it
// has waited; the lowest rank goes first. All ranks fall at the same speed, so their order is that
// of a fixed number, the due time:
//
//   due = arrival + tokens x aging            rank(now) = due - now
//
// A request is passed only by requests with an earlier due time, or, while it cannot be admitted,
// by any before it is due; from then on it holds back everything behind it. So nothing waits for
// ever.
#pragma once

#include <cstdint>

#include "common/ids.h"
#include "engine/engine_options.h"

namespace spin {

// What decides the place of a waiting request, or of a preempted sequence that waits to be
// prefilled again.
struct WaitingFacts {
  int32_t priority = 0;    // lower first; only kPriority looks at it
  uint64_t admission = 0;  // order of its first admission; 0: never admitted
  int64_t due_us = 0;
  RequestId id;
  int32_t index = 0;  // of the sequence, where only one waits
};

// What decides who keeps running.
struct RunningFacts {
  int32_t priority = 0;
  uint64_t admission = 0;
  int32_t index = 0;
};

int64_t DueUs(int64_t arrival_ns, int64_t prompt_tokens, double aging_us_per_token);

// Strict total order of the queue: priority, then what was admitted before (oldest first), then due
// time.
bool AdmitBefore(SchedulePolicy policy, const WaitingFacts& a, const WaitingFacts& b);

// `blocked` cannot be admitted now; may those behind it be tried?
bool MayBePassed(const WaitingFacts& blocked, int64_t now_us);

// Strict total order of the running sequences; the last of them is the victim when room is needed:
// the lowest priority, and in it the latest admitted.
bool KeepBefore(SchedulePolicy policy, const RunningFacts& a, const RunningFacts& b);

// May a waiting request take room from a running one?
bool MayPreempt(SchedulePolicy policy, int32_t waiting_priority, int32_t running_priority);

// Prefill work for one pass (Executor counts it): what fits into `budget_ns` at `work_ns` each (0: not measured yet),
// at least 1.
int64_t WorkForPass(double work_ns, int64_t budget_ns);

}  // namespace spin
