#include "engine/schedule_policy.h"

#include <algorithm>
#include <tuple>

#include "common/check.h"

namespace spin {

int64_t DueUs(int64_t arrival_ns, int64_t prompt_tokens, double aging_us_per_token) {
  const double patience = static_cast<double>(prompt_tokens) * aging_us_per_token;
  return arrival_ns / 1000 + static_cast<int64_t>(patience);
}

bool AdmitBefore(SchedulePolicy policy, const WaitingFacts& a, const WaitingFacts& b) {
  if (policy == SchedulePolicy::kPriority && a.priority != b.priority) {
    return a.priority < b.priority;
  }
  const bool a_ran = a.admission != 0;
  const bool b_ran = b.admission != 0;
  if (a_ran != b_ran) return a_ran;
  if (a_ran) return std::tie(a.admission, a.index) < std::tie(b.admission, b.index);
  return std::tie(a.due_us, a.id) < std::tie(b.due_us, b.id);
}

bool MayBePassed(const WaitingFacts& blocked, int64_t now_us) {
  return blocked.admission == 0 && now_us < blocked.due_us;
}

bool KeepBefore(SchedulePolicy policy, const RunningFacts& a, const RunningFacts& b) {
  if (policy == SchedulePolicy::kPriority && a.priority != b.priority) {
    return a.priority < b.priority;
  }
  return std::tie(a.admission, a.index) < std::tie(b.admission, b.index);
}

bool MayPreempt(SchedulePolicy policy, int32_t waiting_priority, int32_t running_priority) {
  return policy == SchedulePolicy::kPriority && waiting_priority < running_priority;
}

int64_t WorkForPass(double work_ns, int64_t budget_ns) {
  constexpr double kMost = 1e15;  // beyond any batch
  if (work_ns <= 0) return 1;
  return static_cast<int64_t>(std::clamp(static_cast<double>(budget_ns) / work_ns, 1.0, kMost));
}

}  // namespace spin
