#include "tests/testing/engine_harness.h"

#include <algorithm>
#include <utility>

#include "common/check.h"
#include "common/math.h"
#include "common/random.h"
#include "engine/sampling_row.h"

namespace spin {
namespace {

KvCacheOptions MemoryOptions(const HarnessOptions& o) {
  KvCacheOptions options;
  options.plan.geometry = {.num_layers = o.num_layers,
                           .num_kv_heads = 1,
                           .num_q_heads = 1,
                           .head_dim = 64,
                           .page_tokens = 16,
                           .max_rows = o.max_rows,
                           .max_extents = CeilDiv(o.max_model_len, kExtentTokens),
                           .summary_elements = 0,
                           .dtype = DType::kBf16};
  options.plan.num_slot_extents = o.slot_extents;
  options.plan.num_host_extents = o.host_extents;
  options.plan.num_meta_segments = o.host_extents;
  options.placement = o.placement;
  options.max_model_len = o.max_model_len;
  options.reserve_step_tokens = o.reserve_step_tokens;
  LayerDemand demand;
  if (o.sparse) demand = {.whole_context = false, .fixed_pages = 2, .selectable_pages = 6};
  options.layers.assign(static_cast<std::size_t>(o.num_layers), demand);
  return options;
}

FakeExecutor::Options DeviceOptions(const HarnessOptions& o) {
  FakeExecutor::Options options;
  options.limits = {.max_rows = o.max_rows,
                    .max_batch = o.max_rows,
                    .max_prefill_tokens = o.max_prefill_tokens,
                    .max_model_len = o.max_model_len,
                    .vocab_size = o.vocab_size,
                    .page_tokens = 16,
                    .max_spills = o.max_spills};
  options.max_spill_polls = o.max_spill_polls;
  options.num_layers = o.num_layers;
  options.collect_sleep_ns = o.collect_sleep_ns;
  return options;
}

}  // namespace

FakeTokenizer::FakeTokenizer(int vocab_size) {
  words_.push_back("</s>");
  for (int t = 1; t < vocab_size; ++t) words_.push_back(" " + std::to_string(t));
}

std::vector<TokenId> FakeTokenizer::Encode(std::string_view text, bool) const {
  std::vector<TokenId> ids;
  if (const auto id = FindToken(text); id.has_value()) ids.push_back(*id);
  return ids;
}

std::string FakeTokenizer::Decode(std::span<const TokenId> ids, bool skip_special_tokens) const {
  std::string text;
  for (const TokenId id : ids) {
    if (!skip_special_tokens || !IsSpecial(id)) text += TokenBytes(id);
  }
  return text;
}

std::string_view FakeTokenizer::TokenBytes(TokenId id) const {
  return words_.at(static_cast<std::size_t>(id));
}

std::optional<TokenId> FakeTokenizer::FindToken(std::string_view content) const {
  const auto found = std::find(words_.begin(), words_.end(), content);
  if (found == words_.end()) return std::nullopt;
  return static_cast<TokenId>(found - words_.begin());
}

RecordingSink::RecordingSink(int32_t n, int64_t refuse_at)
    : sequences(static_cast<std::size_t>(n)), refuse_at_(refuse_at) {}

bool RecordingSink::OnOutput(RequestOutput output) {
  SPIN_CHECK(!finished && !refused);
  for (SequenceDelta& delta : output.deltas) {
    SequenceRecord& sequence = sequences.at(static_cast<std::size_t>(delta.index));
    SPIN_CHECK(sequence.finish == FinishReason::kNone);
    for (const SampledToken& token : delta.tokens) sequence.tokens.push_back(token.token);
    sequence.text += delta.text;
    sequence.finish = delta.finish;
    sequence.stop_string = delta.stop_string;
    sequence.stop_token = delta.stop_token;
  }
  if (!output.prompt_logprobs.empty()) {
    SPIN_CHECK(prompt_logprobs.empty() && num_outputs == 0);
    prompt_logprobs = std::move(output.prompt_logprobs);
  }
  error = output.error;
  SPIN_CHECK(!output.summary.has_value() || (output.finished && error.ok()));
  summary = output.summary;
  SPIN_CHECK(error.ok() || output.finished);
  finished = output.finished;
  refused = num_outputs++ == refuse_at_;
  return !refused;
}

HarnessOptions DefaultHarness() {
  HarnessOptions options;
  options.engine.max_queue = 64;
  options.engine.max_num_seqs = 16;
  options.engine.max_batched_tokens = 1024;
  options.engine.eos_token_ids = {0};
  options.engine.max_model_len = options.max_model_len;
  options.engine.seed = 17;
  return options;
}

EngineHarness::EngineHarness(const HarnessOptions& options_in)
    : options(options_in),
      tokenizer(options.vocab_size),
      memory(MemoryOptions(options)),
      executor(DeviceOptions(options), &memory, options.real_time ? nullptr : &fake_clock),
      engine(options.engine,
             {.executor = &executor,
              .memory = &memory,
              .tokenizer = options.has_tokenizer ? &tokenizer : nullptr,
              .clock = options.real_time ? static_cast<const Clock*>(&real_clock) : &fake_clock,
              .metrics = &metrics}) {}

Request EngineHarness::MakeRequest(int32_t prompt_tokens, std::optional<int32_t> max_tokens,
                                   uint64_t seed) {
  Request request;
  request.id = engine.NextRequestId();
  Random random(seed);
  for (int32_t i = 0; i < prompt_tokens; ++i) {
    request.prompt.push_back(
        static_cast<int32_t>(random.Below(static_cast<uint32_t>(options.vocab_size))));
  }
  request.sampling.max_tokens = max_tokens;
  request.sampling.seed = seed;
  request.sampling.ignore_eos = true;
  return request;
}

std::shared_ptr<RecordingSink> EngineHarness::Submit(Request request, int64_t refuse_at) {
  auto sink = std::make_shared<RecordingSink>(request.sampling.n, refuse_at);
  request.sink = sink;
  SPIN_CHECK_OK(engine.Submit(std::move(request)));
  return sink;
}

void EngineHarness::RunUntilIdle(int64_t max_steps) {
  while (engine.Step()) {
    engine.CheckInvariants();
    SPIN_CHECK_GT(--max_steps, 0);
  }
}

void EngineHarness::Steps(int count) {
  for (int i = 0; i < count; ++i) {
    engine.Step();
    engine.CheckInvariants();
  }
}

SequenceRecord EngineHarness::Expected(const Request& request, int32_t index) const {
  const SamplingParams& sampling = request.sampling;
  SamplingRow row;
  FillSamplingRow(sampling,
                  SequenceSeed(RequestSeed(sampling, request.id, options.engine.seed), index),
                  static_cast<int32_t>(request.prompt.size()), options.engine.eos_token_ids, row);
  const auto room = options.max_model_len - static_cast<int32_t>(request.prompt.size());
  const auto most = static_cast<std::size_t>(sampling.max_tokens.value_or(room));
  const int32_t* stops_end = row.stop_tokens + row.num_stop_tokens;
  SequenceRecord record;
  record.finish = FinishReason::kLength;
  uint64_t history = FakeHistory(request.prompt);
  std::string text;
  while (record.tokens.size() < most) {
    const auto generated = static_cast<int64_t>(record.tokens.size());
    const int32_t token = FakeToken(history, row, generated, options.vocab_size);
    history = FakeAppend(history, token);
    record.tokens.push_back(token);
    if (std::find<const int32_t*>(row.stop_tokens, stops_end, token) != stops_end &&
        generated >= sampling.min_tokens) {
      record.finish = FinishReason::kStop;
      if (token != 0 || sampling.ignore_eos) record.stop_token = token;
      break;
    }
    text += tokenizer.Decode({&token, 1}, sampling.skip_special_tokens);
    for (const std::string& stop : sampling.stop) {
      const auto at = text.find(stop);
      if (at == std::string::npos) continue;
      record.finish = FinishReason::kStop;
      record.stop_string = stop;
      text.resize(at);
    }
    if (record.finish == FinishReason::kStop) break;
  }
  record.text = options.has_tokenizer ? text : "";
  return record;
}

bool EngineHarness::Matches(const Request& request, const RecordingSink& sink) const {
  if (!sink.finished || !sink.error.ok()) return false;
  for (int32_t i = 0; i < request.sampling.n; ++i) {
    const SequenceRecord expected = Expected(request, i);
    const SequenceRecord& actual = sink.sequences[static_cast<std::size_t>(i)];
    if (actual.tokens != expected.tokens || actual.text != expected.text ||
        actual.finish != expected.finish || actual.stop_string != expected.stop_string ||
        actual.stop_token != expected.stop_token) {
      return false;
    }
  }
  return true;
}

}  // namespace spin
