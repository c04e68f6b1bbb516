// The pure rules of order and room.
#include "engine/schedule_policy.h"

#include <catch2/catch.hpp>

namespace spin {
namespace {

WaitingFacts New(int64_t arrival_us, int64_t tokens, uint64_t id, int32_t priority = 0) {
  return {.priority = priority,
          .admission = 0,
          .due_us = DueUs(arrival_us * 1000, tokens, 100),
          .id = RequestId{id},
          .index = 0};
}

constexpr SchedulePolicy kFcfs = SchedulePolicy::kFcfs;
constexpr SchedulePolicy kPriority = SchedulePolicy::kPriority;

TEST_CASE("equal prompts go in order of arrival, ties by id") {
  CHECK(AdmitBefore(kFcfs, New(0, 10, 1), New(1, 10, 2)));
  CHECK_FALSE(AdmitBefore(kFcfs, New(1, 10, 2), New(0, 10, 1)));
  CHECK(AdmitBefore(kFcfs, New(0, 10, 1), New(0, 10, 2)));
  CHECK_FALSE(AdmitBefore(kFcfs, New(0, 10, 1), New(0, 10, 1)));
}

TEST_CASE("a short prompt passes a long one until the long one has aged") {
  const WaitingFacts long_prompt = New(0, 10000, 1);  // due after a second
  CHECK(AdmitBefore(kFcfs, New(900'000, 10, 2), long_prompt));
  CHECK(AdmitBefore(kFcfs, long_prompt, New(1'000'000, 10, 2)));
}

TEST_CASE("a blocked request may be passed until it is due, a preempted sequence never") {
  const WaitingFacts blocked = New(0, 10000, 1);
  CHECK(MayBePassed(blocked, 999'999));
  CHECK_FALSE(MayBePassed(blocked, 1'000'000));
  WaitingFacts preempted = blocked;
  preempted.admission = 3;
  CHECK_FALSE(MayBePassed(preempted, 0));
}

TEST_CASE("preempted sequences go before new requests, oldest admission first") {
  WaitingFacts old_one = New(500, 5000, 7);
  old_one.admission = 1;
  WaitingFacts young = New(0, 1, 3);
  young.admission = 2;
  CHECK(AdmitBefore(kFcfs, old_one, young));
  CHECK(AdmitBefore(kFcfs, young, New(0, 1, 1)));
  WaitingFacts sibling = old_one;
  sibling.index = 1;
  CHECK(AdmitBefore(kFcfs, old_one, sibling));
}

TEST_CASE("priority comes first under its policy and counts for nothing under the other") {
  const WaitingFacts urgent = New(1000, 10, 2, -1);
  WaitingFacts preempted = New(0, 10, 1, 0);
  preempted.admission = 1;
  CHECK(AdmitBefore(kPriority, urgent, preempted));
  CHECK(AdmitBefore(kFcfs, preempted, urgent));
  CHECK(MayPreempt(kPriority, -1, 0));
  CHECK_FALSE(MayPreempt(kPriority, 0, 0));
  CHECK_FALSE(MayPreempt(kFcfs, -1, 0));
}

TEST_CASE("the victim is the lowest priority's latest admitted") {
  const RunningFacts old_low{.priority = 5, .admission = 1, .index = 0};
  const RunningFacts young_low{.priority = 5, .admission = 3, .index = 0};
  const RunningFacts young_high{.priority = 1, .admission = 4, .index = 0};
  CHECK(KeepBefore(kPriority, young_high, old_low));
  CHECK(KeepBefore(kPriority, old_low, young_low));
  CHECK(KeepBefore(kFcfs, young_low, young_high));
}

TEST_CASE("prefill work fills the stall budget, at least one") {
  CHECK(WorkForPass(0, 50) == 1);
  CHECK(WorkForPass(10, 50) == 5);
  CHECK(WorkForPass(0.5, 50) == 100);
  CHECK(WorkForPass(80, 50) == 1);
  CHECK(WorkForPass(1e-300, 50) > 0);
}

}  // namespace
}  // namespace spin
