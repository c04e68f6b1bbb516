#include "engine/engine_core.h"

#include <algorithm>
#include <utility>

#include "common/check.h"
#include "engine/sampling_row.h"

namespace spin {

EngineCore::EngineCore(const EngineOptions& options, Executor* executor, KvCacheManager* memory,
                       const Tokenizer* tokenizer, const Clock* clock, Inbox* inbox,
                       EngineMetrics* metrics)
    : options_(options),
      executor_(executor),
      memory_(memory),
      tokenizer_(tokenizer),
      clock_(clock),
      inbox_(inbox),
      metrics_(metrics),
      stall_budget_ns_(static_cast<int64_t>(options.max_decode_stall_ms * 1e6)),
      scheduler_(options, executor->limits(), memory) {
  for (PassRecord& pass : passes_) {
    pass.entries.reserve(static_cast<std::size_t>(2 * options.max_num_seqs));
  }
}

bool EngineCore::Step() {
  const bool got_input = DrainInputs();
  const bool spilled = FinishSpills();
  const bool launched = Plan();
  if (launched || memory_->room_is_coming()) Commit();
  if (launched) Launch();
  const bool collected = Collect(launched);
  Emit();
  Retire();
  const bool worked = got_input || spilled || launched || collected;
  if (worked) {
    Publish();
    if (idle()) CheckInvariants();
  } else if (memory_->room_is_coming()) {
    executor_->AwaitSpill();  // there is nothing else to wait for
  }
  return worked || !idle();
}

bool EngineCore::DrainInputs() {
  inbox_->TakeAll(inputs_);
  for (Submission& submission : inputs_.submissions) {
    const RequestId id = submission.request.id;
    auto request = std::make_unique<LiveRequest>(std::move(submission.request), submission.resolved,
                                                 submission.arrival_ns, tokenizer_,
                                                 options_.eos_token_ids, options_.seed);
    scheduler_.Enqueue(request.get());
    const bool is_new = requests_.emplace(id, std::move(request)).second;
    SPIN_CHECK(is_new);
  }
  for (const RequestId id : inputs_.cancelled) {
    const auto it = requests_.find(id);
    if (it != requests_.end() && !it->second->finished()) {
      Abort(*it->second, FinishReason::kAbort);
    }
  }
  if (inputs_.abort_all) {
    for (auto& [id, request] : requests_) {
      if (request->finished()) continue;
      Fail(*request, Unavailable("The server shut down before this request was finished"),
           FinishReason::kAbort);
    }
  }
  DropAbandonedPrefill();
  return !inputs_.empty();
}

void EngineCore::DropAbandonedPrefill() {
  if (!scheduler_.PrefillAbandoned()) return;
  SPIN_CHECK(executor_->prefill_active());
  executor_->CancelPrefill();
  scheduler_.DropPrefill();
}

// Before the plan, which finds the room that demotions have made.
bool EngineCore::FinishSpills() {
  if (!memory_->room_is_coming() || !executor_->SpillPassed()) return false;
  memory_->FinishSpills();
  return true;
}

// True: there is something to launch.
bool EngineCore::Plan() {
  batch_ = &scheduler_.Plan(clock_->NowNs());
  for (Sequence* sequence : batch_->exhausted) FinishWithLength(*sequence);
  for (LiveRequest* request : batch_->refused) {
    Fail(*request, FailedPrecondition("The memory budgets can never hold this request"),
         FinishReason::kError);
  }
  return !batch_->decode.empty() || !scheduler_.prefill().empty();
}

void EngineCore::Commit() {
  executor_->ApplyTables(memory_->TakeCommands());
  executor_->Spill(memory_->TakeSpills(executor_->limits().max_spills));
  if (batch_->starts_prefill) BeginPrefill();
}

void EngineCore::BeginPrefill() {
  const int64_t now_ns = clock_->NowNs();
  std::vector<PrefillItem> items;
  for (const PrefillUnit& unit : scheduler_.prefill()) {
    LiveRequest& live = *unit.request;
    const SamplingParams& sampling = live.request.sampling;
    const bool first_time = live.queued;
    if (first_time) {
      live.queued = false;
      live.admitted_ns = now_ns;
      inbox_->LeaveQueue();
      metrics_->OnAdmitted(now_ns - live.arrival_ns);
    }
    PrefillItem item;
    item.tokens = live.request.prompt;
    const std::vector<int32_t>& generated = unit.sequences.front()->generated;
    item.tokens.insert(item.tokens.end(), generated.begin(), generated.end());
    if (first_time) item.num_prompt_logprobs = sampling.prompt_logprobs.value_or(-1);
    item.sample = !live.scores_only();
    for (const Sequence* sequence : unit.sequences) {
      FillSamplingRow(sampling, SequenceSeed(live.seed, sequence->index),
                      static_cast<int32_t>(live.prompt_tokens()), options_.eos_token_ids,
                      sampling_row_);
      executor_->StartRow(sequence->row, sampling_row_, live.request.prompt, sequence->generated);
      if (live.budget_pages > 0) executor_->SetBudget(sequence->row, live.budget_pages);
      item.rows.push_back(sequence->row);
    }
    items.push_back(std::move(item));
  }
  executor_->BeginPrefill(std::move(items));
}

void EngineCore::Launch() {
  SPIN_CHECK_LT(passes_in_flight_, Executor::kMaxPassesInFlight);
  const int next = (oldest_pass_ + passes_in_flight_) % Executor::kMaxPassesInFlight;
  PassRecord& pass = passes_[static_cast<std::size_t>(next)];
  pass.entries.clear();
  pass.prefilled.clear();
  pass.prefill_work = 0;
  pass.prompt_tokens = 0;
  pass.reads = {};
  pass.writes = {};
  if (!scheduler_.prefill().empty()) LaunchPrefill(pass);
  if (!batch_->decode.empty()) LaunchDecode(pass);
  executor_->Submit();
  ++passes_in_flight_;
}

// The same bound with and without decoding rows: it is also how soon a cancellation acts.
void EngineCore::LaunchPrefill(PassRecord& pass) {
  const int64_t left = executor_->prefill_work_left();
  const bool done = executor_->EnqueuePrefill(WorkForPass(prefill_work_ns_, stall_budget_ns_));
  pass.prefill_work = done ? left : left - executor_->prefill_work_left();
  if (!done) return;
  for (const PrefillUnit& unit : scheduler_.prefill()) {
    LiveRequest& live = *unit.request;
    pass.prefilled.push_back(&live);
    if (live.first_token_ns == 0) pass.prompt_tokens += live.prompt_tokens();
    const Sequence& first = *unit.sequences.front();
    const auto tokens = live.prompt_tokens() + static_cast<int64_t>(first.generated.size());
    pass.writes += memory_->WritesOf(first.row, 0, tokens);
    for (Sequence* sequence : unit.sequences) {
      pass.entries.push_back({.sequence = sequence,
                              .row = sequence->row,
                              .sampled = !live.scores_only(),
                              .prefilled = true});
      ++sequence->in_flight;
    }
  }
  scheduler_.FinishPrefill();
}

void EngineCore::LaunchDecode(PassRecord& pass) {
  executor_->EnqueueDecode(batch_->decode_rows);
  memory_->Advance(batch_->decode_rows);
  for (Sequence* sequence : batch_->decode) {
    const int64_t length = memory_->length(sequence->row);
    pass.reads += memory_->ReadsOf(length, sequence->request->budget_pages);
    pass.writes += memory_->WritesOf(sequence->row, length - 1, length);
    pass.entries.push_back({.sequence = sequence, .row = sequence->row});
    ++sequence->in_flight;
  }
}

bool EngineCore::Collect(bool launched) {
  if (passes_in_flight_ == (launched ? 1 : 0)) return false;
  const PassResult result = executor_->Collect();
  const PassRecord& pass = passes_[static_cast<std::size_t>(oldest_pass_)];
  oldest_pass_ = (oldest_pass_ + 1) % Executor::kMaxPassesInFlight;
  --passes_in_flight_;
  MeasurePrefill(pass, result);
  TakeResult(pass, result, clock_->NowNs());
  return true;
}

void EngineCore::MeasurePrefill(const PassRecord& pass, const PassResult& result) {
  if (pass.prefill_work == 0) return;
  const double measured =
      static_cast<double>(result.prefill_ns) / static_cast<double>(pass.prefill_work);
  // Tokens late in a prompt attend to more of it, and a token of a short one costs more: follow the recent ones.
  prefill_work_ns_ = prefill_work_ns_ == 0 ? measured : (prefill_work_ns_ + measured) / 2;
}

void EngineCore::TakeResult(const PassRecord& pass, const PassResult& result, int64_t now_ns) {
  TakePromptLogprobs(pass, result);
  std::size_t next = 0;
  int64_t generated = 0;
  for (const PassEntry& entry : pass.entries) {
    Sequence& sequence = *entry.sequence;
    --sequence.in_flight;
    SPIN_CHECK_GE(sequence.in_flight, 0);
    const bool alive = sequence.state != SequenceState::kFinished;
    if (alive && sequence.request->request.wants_summary) Tally(entry, result);
    if (!entry.sampled) {
      if (alive) FinishWithLength(sequence);
      continue;
    }
    SPIN_CHECK_LT(next, result.tokens.size());
    const PassResult::Sampled& sampled = result.tokens[next++];
    SPIN_CHECK_EQ(sampled.row, entry.row);
    if (!alive) continue;  // it stopped, or was cancelled, while this step was in flight
    TakeToken(sequence, *sampled.token, now_ns);
    ++generated;
  }
  SPIN_CHECK_EQ(next, result.tokens.size());
  metrics_->OnPass(pass.prompt_tokens, generated);
  uint64_t spared = 0;
  for (const RetrieveCounters& row : result.counters) spared += row.spared;
  metrics_->OnTraffic(
      pass.reads, pass.writes,
      static_cast<int64_t>(spared - spared_pages_) * memory_->geometry().page_bytes());
  spared_pages_ = spared;
}

// Before the token is taken: with its last one the row is given back.
void EngineCore::Tally(const PassEntry& entry, const PassResult& result) const {
  Sequence& sequence = *entry.sequence;
  const RetrieveCounters& row = result.counters[static_cast<std::size_t>(entry.row.value)];
  // Preempted since: it is where it was when last seen.
  const Placement placement =
      sequence.row == entry.row ? memory_->placement(entry.row) : sequence.tally.placement;
  if (entry.prefilled) return sequence.tally.OnPrefill(placement, row);
  const int64_t length =
      sequence.request->prompt_tokens() + static_cast<int64_t>(sequence.generated.size());
  sequence.tally.OnStep(placement, row, memory_->ReadsOf(length, sequence.request->budget_pages));
}

void EngineCore::TakePromptLogprobs(const PassRecord& pass, const PassResult& result) {
  if (result.prompt_logprobs.empty()) return;
  SPIN_CHECK_EQ(result.prompt_logprobs.size(), pass.prefilled.size());
  for (std::size_t i = 0; i < pass.prefilled.size(); ++i) {
    if (pass.prefilled[i]->finished() || result.prompt_logprobs[i].empty()) continue;
    pass.prefilled[i]->pending.prompt_logprobs = result.prompt_logprobs[i];
  }
}

void EngineCore::TakeToken(Sequence& sequence, const SampledToken& token, int64_t now_ns) {
  LiveRequest& live = *sequence.request;
  if (live.first_token_ns == 0) {
    live.first_token_ns = now_ns;
    metrics_->OnFirstToken(now_ns - live.arrival_ns, now_ns - live.admitted_ns);
  }
  if (!sequence.generated.empty()) {
    metrics_->OnInterTokenLatency(now_ns - sequence.last_token_ns);
  }
  sequence.last_token_ns = now_ns;
  sequence.generated.push_back(token.token);
  SequenceDelta& delta = Touch(sequence);
  sequence.stop.Push(token, delta);
  if (delta.finish == FinishReason::kNone) return;
  if (delta.finish == FinishReason::kLength) live.reached_length = true;
  scheduler_.Finish(sequence);
}

SequenceDelta& EngineCore::Touch(Sequence& sequence) {
  LiveRequest& live = *sequence.request;
  if (!live.has_pending) touched_.push_back(&live);
  return live.DeltaOf(sequence.index);
}

void EngineCore::FinishWithLength(Sequence& sequence) {
  sequence.stop.Finish(FinishReason::kLength, Touch(sequence));
  sequence.request->reached_length = true;
  scheduler_.Finish(sequence);
}

void EngineCore::Emit() {
  for (LiveRequest* live : touched_) {
    if (!live->has_pending) continue;  // failed meanwhile
    live->has_pending = false;
    RequestOutput output = std::exchange(live->pending, RequestOutput{});
    output.finished = live->finished();
    if (output.finished && live->request.wants_summary) {
      output.summary = live->Summary(clock_->NowNs(), memory_->geometry());
    }
    const bool listening = live->request.sink->OnOutput(std::move(output));
    if (live->finished()) {
      End(*live, live->reached_length ? FinishReason::kLength : FinishReason::kStop);
    } else if (!listening) {
      Abort(*live, FinishReason::kAbort);
    }
  }
  touched_.clear();
}

void EngineCore::Abort(LiveRequest& request, FinishReason reason) {
  SPIN_CHECK(!request.finished());
  for (Sequence& sequence : request.sequences) scheduler_.Finish(sequence);
  request.has_pending = false;
  End(request, reason);
}

void EngineCore::Fail(LiveRequest& request, const absl::Status& error, FinishReason reason) {
  Abort(request, reason);
  RequestOutput output;
  output.finished = true;
  output.error = error;
  request.request.sink->OnOutput(std::move(output));
}

// The request has ended for its client; it is kept until no pass in flight names it.
void EngineCore::End(LiveRequest& request, FinishReason reason) {
  SPIN_CHECK(request.finished());
  const int64_t now_ns = clock_->NowNs();
  int64_t generated = 0;
  for (const Sequence& sequence : request.sequences) {
    generated += static_cast<int64_t>(sequence.generated.size());
  }
  const int64_t decode_ns = request.first_token_ns == 0 ? -1 : now_ns - request.first_token_ns;
  metrics_->OnFinished(reason, now_ns - request.arrival_ns, decode_ns, request.prompt_tokens(),
                       generated);
  if (std::exchange(request.queued, false)) inbox_->LeaveQueue();
  retiring_.push_back(&request);
}

void EngineCore::Retire() {
  std::erase_if(retiring_, [this](LiveRequest* live) {
    if (!live->unreferenced()) return false;
    const RequestId id = live->request.id;
    requests_.erase(id);
    inbox_->Retire(id);
    return true;
  });
}

void EngineCore::Publish() {
  metrics_->Publish({.running = scheduler_.num_running(),
                     .waiting = inbox_->waiting(),
                     .preempted = scheduler_.num_preempted(),
                     .kv = memory_->usage()},
                    scheduler_.preemptions());
}

void EngineCore::CheckInvariants() const {
  scheduler_.CheckInvariants();
  memory_->CheckInvariants();
  SPIN_CHECK_EQ(!scheduler_.prefill().empty(), executor_->prefill_active());
  int32_t waiting = 0;
  int32_t rows = 0;
  for (const auto& [id, live] : requests_) {
    SPIN_CHECK_EQ(id, live->request.id);
    SPIN_CHECK(!live->has_pending);
    int32_t unfinished = 0;
    for (const Sequence& sequence : live->sequences) {
      if (sequence.state != SequenceState::kFinished) ++unfinished;
      if (sequence.row != kNoRow) ++rows;
      SPIN_CHECK_LE(sequence.in_flight, passes_in_flight_);
      if (live->queued) SPIN_CHECK(sequence.state == SequenceState::kWaiting);
    }
    SPIN_CHECK_EQ(unfinished, live->unfinished);
    if (live->queued) ++waiting;
  }
  SPIN_CHECK_EQ(waiting, scheduler_.num_waiting());
  SPIN_CHECK_LE(waiting, inbox_->waiting());
  const KvUsage usage = memory_->usage();
  SPIN_CHECK_EQ(rows, usage.resident_rows + usage.tiered_rows + usage.suspended_rows);
  if (idle()) {
    SPIN_CHECK_EQ(usage.slot_extents, 0);
    SPIN_CHECK_EQ(usage.host_extents, 0);
  }
}

}  // namespace spin
