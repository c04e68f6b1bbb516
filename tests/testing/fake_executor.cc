#include "tests/testing/fake_executor.h"

#include <algorithm>
#include <chrono>
#include <set>
#include <thread>
#include <utility>

#include "common/check.h"
#include "common/math.h"

namespace spin {
namespace {

// splitmix64's finaliser: every bit of the input moves half of the output's bits.
uint64_t Mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

}  // namespace

uint64_t FakeAppend(uint64_t history, int32_t token) {
  return Mix(history ^ (static_cast<uint64_t>(token) + 1));
}

uint64_t FakeHistory(std::span<const int32_t> tokens) {
  uint64_t history = 0;
  for (const int32_t token : tokens) history = FakeAppend(history, token);
  return history;
}

RetrieveCounters FakeCounts(int64_t length) {
  const auto n = static_cast<uint64_t>(length);
  return {.hits = n % 7, .misses = n % 3, .evictions = n % 2, .spared = n % 5};
}

int32_t FakeToken(uint64_t history, const SamplingRow& sampling, int64_t generated,
                  int32_t vocab_size) {
  const uint64_t seed = sampling.temperature > 0 ? sampling.seed : 0;
  const int32_t* stop_end = sampling.stop_tokens + sampling.num_stop_tokens;
  for (uint64_t draw = 0;; ++draw) {
    const auto token =
        static_cast<int32_t>(Mix(history ^ Mix(seed + draw)) % static_cast<uint64_t>(vocab_size));
    const bool banned =
        generated < sampling.min_tokens &&
        std::find<const int32_t*>(sampling.stop_tokens, stop_end, token) != stop_end;
    if (!banned) return token;
  }
}

FakeExecutor::FakeExecutor(const Options& options, const KvCacheManager* memory, FakeClock* clock)
    : options_(options),
      memory_(memory),
      clock_(clock),
      rows_(static_cast<std::size_t>(options.limits.max_rows)),
      counters_(rows_.size()) {}

FakeExecutor::Row& FakeExecutor::At(RowId row) {
  SPIN_CHECK(row.value >= 0 && row.value < options_.limits.max_rows);
  Row& entry = rows_[static_cast<std::size_t>(row.value)];
  SPIN_CHECK(entry.held);
  return entry;
}

int64_t FakeExecutor::held_rows() const {
  return std::count_if(rows_.begin(), rows_.end(), [](const Row& row) { return row.held; });
}

RetrieveCounters FakeExecutor::total_counts() const {
  RetrieveCounters total;
  for (const RetrieveCounters& row : counters_) total += row;
  return total;
}

void FakeExecutor::ApplyTables(std::span<const TableCommand> commands) {
  SPIN_CHECK(!open_.has_prefill && !open_.has_decode);
  for (const TableCommand& command : commands) {
    CheckNotSpilling(command);
    if (command.kind == TableCommandKind::kSpillExtent) open_.spill_ns += options_.spill_extent_ns;
    if (command.kind != TableCommandKind::kSetPlacement) continue;
    Row& row = rows_.at(static_cast<std::size_t>(command.row));
    const bool held = command.value != static_cast<int32_t>(Placement::kNone);
    if (held && row.held) continue;  // demoted
    row = Row{};
    row.held = held;
  }
}

// A copy under way reads its slots and writes its host pages: nobody else may have them.
void FakeExecutor::CheckNotSpilling(const TableCommand& command) const {
  if (command.value == kAbsent) return;
  for (const TableCommand& copy : spill_) {
    SPIN_CHECK(command.kind != TableCommandKind::kSetSlotExtent || command.value != copy.value);
    SPIN_CHECK(command.kind != TableCommandKind::kSetHostExtent || command.value != copy.index);
  }
}

void FakeExecutor::Spill(std::span<const TableCommand> copies) {
  if (copies.empty()) return;
  SPIN_CHECK(spill_.empty());
  SPIN_CHECK_LE(static_cast<int64_t>(copies.size()), int64_t{options_.limits.max_spills});
  for (const TableCommand& copy : copies) SPIN_CHECK(copy.kind == TableCommandKind::kSpillExtent);
  spill_.assign(copies.begin(), copies.end());
  spill_polls_left_ =
      static_cast<int32_t>(random_.Below(static_cast<uint32_t>(options_.max_spill_polls)));
  num_spills_ += static_cast<int64_t>(copies.size());
}

bool FakeExecutor::SpillPassed() {
  if (spill_polls_left_-- > 0) return false;
  spill_polls_left_ = 0;
  spill_.clear();
  return true;
}

void FakeExecutor::AwaitSpill() {
  spill_polls_left_ = 0;
  const int64_t ns = static_cast<int64_t>(spill_.size()) * options_.spill_extent_ns;
  spill_wait_ns_ += ns;
  if (clock_ != nullptr) clock_->AdvanceNs(ns);
}

void FakeExecutor::StartRow(RowId id, const SamplingRow& sampling, std::span<const int32_t> prompt,
                            std::span<const int32_t> generated) {
  Row& row = At(id);
  SPIN_CHECK_EQ(row.ready_pass, -1);
  SPIN_CHECK_EQ(static_cast<int64_t>(prompt.size()), int64_t{sampling.prompt_tokens});
  row.started = true;
  row.budget = 0;
  row.sampling = sampling;
  row.started_with = FakeHistory(prompt);
  for (const int32_t token : generated) row.started_with = FakeAppend(row.started_with, token);
  row.started_tokens = static_cast<int64_t>(prompt.size() + generated.size());
}

void FakeExecutor::SetBudget(RowId id, int32_t pages) {
  Row& row = At(id);
  SPIN_CHECK(row.started && row.ready_pass == -1);
  SPIN_CHECK_GE(pages, 1);
  row.budget = pages;
}

void FakeExecutor::BeginPrefill(std::vector<PrefillItem> items) {
  SPIN_CHECK(!prefill_active());
  SPIN_CHECK(!items.empty());
  int64_t tokens = 0;
  std::set<RowId> seen;
  for (const PrefillItem& item : items) {
    SPIN_CHECK(!item.rows.empty());
    SPIN_CHECK(!item.tokens.empty());
    const auto count = static_cast<int64_t>(item.tokens.size());
    SPIN_CHECK_LE(count, options_.limits.max_model_len);
    SPIN_CHECK_LE(count, memory_->reserved_tokens(item.rows.front()));
    tokens += count;
    const uint64_t history = FakeHistory(item.tokens);
    for (const RowId id : item.rows) {
      SPIN_CHECK(seen.insert(id).second);
      const Row& row = At(id);
      SPIN_CHECK(row.started && row.ready_pass == -1);
      SPIN_CHECK_EQ(row.started_with, history);
      SPIN_CHECK_EQ(row.started_tokens, count);
    }
  }
  SPIN_CHECK(items.size() == 1 || tokens <= options_.limits.max_prefill_tokens);
  items_ = std::move(items);
  prefill_tokens_ = tokens;
  next_tile_ = 0;
  work_left_ = tokens * options_.num_layers;
  ++num_prefills_;
}

void FakeExecutor::CancelPrefill() {
  SPIN_CHECK(prefill_active());
  items_.clear();
  work_left_ = 0;
  ++num_cancelled_prefills_;
}

// Of the next tile.
int64_t FakeExecutor::TileTokens() const {
  const int64_t in_layer = next_tile_ % CeilDiv<int64_t>(prefill_tokens_, options_.tile_tokens);
  return std::min<int64_t>(options_.tile_tokens, prefill_tokens_ - in_layer * options_.tile_tokens);
}

bool FakeExecutor::EnqueuePrefill(int64_t max_work) {
  SPIN_CHECK(prefill_active());
  SPIN_CHECK_GE(max_work, 1);
  SPIN_CHECK(!open_.has_prefill && !open_.has_decode);
  open_.has_prefill = true;
  int64_t work = 0;
  do {
    const int64_t tokens = TileTokens();
    work += tokens;
    open_.prefill_ns += options_.tile_ns / 8 * (1 + 7 * tokens / options_.tile_tokens);
    ++next_tile_;
  } while (work < work_left_ && work + TileTokens() <= max_work);
  work_left_ -= work;
  if (work_left_ > 0) return false;
  FinishPrefill();
  return true;
}

void FakeExecutor::FinishPrefill() {
  bool scored = false;
  for (const PrefillItem& item : items_) {
    const uint64_t history = FakeHistory(item.tokens);
    for (const RowId id : item.rows) {
      Row& row = At(id);
      row.ready_pass = next_pass_;
      row.history = history;
      row.length = static_cast<int64_t>(item.tokens.size());
      if (item.sample) Sample(id);
    }
    scored = scored || item.num_prompt_logprobs >= 0;
  }
  if (scored) {
    for (const PrefillItem& item : items_) open_.prompt_logprobs.push_back(ScorePrompt(item));
  }
  items_.clear();
}

std::vector<SampledToken> FakeExecutor::ScorePrompt(const PrefillItem& item) const {
  std::vector<SampledToken> scores;
  if (item.num_prompt_logprobs < 0) return scores;
  for (std::size_t i = 1; i < item.tokens.size(); ++i) {
    SampledToken score;
    score.token = item.tokens[i];
    score.logprob = -static_cast<float>(i);
    scores.push_back(score);
  }
  return scores;
}

// The device feeds the sampled token to the row's next step.
void FakeExecutor::Sample(RowId id) {
  Row& row = At(id);
  const int64_t generated = row.length - row.sampling.prompt_tokens;
  SPIN_CHECK_GE(generated, 0);
  row.token = FakeToken(row.history, row.sampling, generated, options_.limits.vocab_size);
  SampledToken sampled;
  sampled.token = row.token;
  sampled.logprob = -1;
  sampled.num_top = std::max(row.sampling.num_logprobs, 0);
  open_.rows.push_back(id);
  open_.tokens.push_back(sampled);
}

void FakeExecutor::EnqueueDecode(std::span<const RowId> rows) {
  SPIN_CHECK(!open_.has_decode);
  SPIN_CHECK(!rows.empty());
  SPIN_CHECK_LE(static_cast<int64_t>(rows.size()), int64_t{options_.limits.max_batch});
  open_.has_decode = true;
  open_.decoded = static_cast<int64_t>(rows.size());
  decoded_rows_ += open_.decoded;
  if (!spill_.empty()) decoded_beside_spills_ += open_.decoded;
  const int64_t waited_ns = std::exchange(spill_wait_ns_, 0) + open_.spill_ns;
  longest_spill_wait_ns_ = std::max(longest_spill_wait_ns_, waited_ns);
  const std::set<RowId> distinct(rows.begin(), rows.end());
  SPIN_CHECK_EQ(distinct.size(), rows.size());
  for (const RowId id : rows) {
    Row& row = At(id);
    SPIN_CHECK_GE(row.ready_pass, 0);
    SPIN_CHECK_LT(row.ready_pass, next_pass_);
    SPIN_CHECK_EQ(memory_->length(id), row.length);
    SPIN_CHECK_LT(row.length, memory_->reserved_tokens(id));
    row.history = FakeAppend(row.history, row.token);
    ++row.length;
    if (memory_->placement(id) == Placement::kTiered) {
      counters_[static_cast<std::size_t>(id.value)] += FakeCounts(row.length);
    }
    Sample(id);
  }
}

void FakeExecutor::Submit() {
  SPIN_CHECK(open_.has_prefill || open_.has_decode);
  SPIN_CHECK_LT(submitted_.size(), static_cast<std::size_t>(kMaxPassesInFlight));
  if (open_.has_decode) {
    longest_prefill_beside_decode_ns_ =
        std::max(longest_prefill_beside_decode_ns_, open_.prefill_ns);
  }
  open_.counters = counters_;
  submitted_.push_back(std::exchange(open_, Pass{}));
  ++next_pass_;
}

PassResult FakeExecutor::Collect() {
  SPIN_CHECK(!submitted_.empty());
  collected_ = std::move(submitted_.front());
  submitted_.pop_front();
  sampled_.clear();
  for (std::size_t i = 0; i < collected_.rows.size(); ++i) {
    sampled_.push_back({.row = collected_.rows[i], .token = &collected_.tokens[i]});
  }
  PassResult result;
  result.tokens = sampled_;
  result.prompt_logprobs = collected_.prompt_logprobs;
  result.counters = collected_.counters;
  result.prefill_ns = collected_.prefill_ns;
  if (collected_.has_decode) {
    result.decode_ns =
        options_.decode_ns + collected_.decoded * options_.decode_row_ns + collected_.spill_ns;
  }
  if (clock_ != nullptr) clock_->AdvanceNs(result.prefill_ns + result.decode_ns);
  if (options_.collect_sleep_ns > 0) {
    std::this_thread::sleep_for(std::chrono::nanoseconds(options_.collect_sleep_ns));
  }
  return result;
}

}  // namespace spin
