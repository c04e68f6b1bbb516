#include "tests/testing/model_runner.h"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <type_traits>
#include <utility>

#include "common/check.h"
#include "common/mapped_file.h"
#include "models/checkpoint.h"
#include "models/model_config.h"
#include "models/sparse/sparse_registry.h"
#include "models/weights.h"
#include "tests/testing/capturing_device.h"

namespace spin::testing {
namespace {

template <typename T>
T Unwrap(absl::StatusOr<T> value) {
  SPIN_CHECK_OK(value.status());
  return std::move(value).value();
}

constexpr int64_t kWorkAPass = 450;  // several passes a prompt

void NoProgress(int64_t, int64_t) {}

}  // namespace

std::string TestDevice() {
  const char* device = std::getenv("SPIN_TEST_DEVICE");
  return device != nullptr ? device : "cpu";
}

ModelRunner::ModelRunner(const ModelRunnerOptions& options) : max_spills_(options.max_spills) {
  sampling_.temperature = 0;
  ModelConfig config = options.config;
  if (!options.folder.empty()) {
    config = Unwrap(ParseModelConfig(Unwrap(ReadTextFile(options.folder + "/config.json"))));
  }
  backend_ = Unwrap(CreateBackend({.device = options.device,
                                   .threads = options.threads,
                                   .inline_streams = options.inline_streams}));
  if (options.captures_steps && options.device == "cpu") {
    backend_.device = std::make_unique<CapturingDevice>(options.threads, options.inline_streams);
  }
  auto algorithm = Unwrap(MakeSparseAlgorithm(options.sparse, {.num_layers = config.num_layers,
                                                               .num_q_heads = config.num_q_heads,
                                                               .num_kv_heads = config.num_kv_heads,
                                                               .head_dim = config.head_dim}));
  KvCacheOptions cache;
  const KvGeometry geometry =
      MakeGeometry(config, *algorithm, options.dtype, 2 * options.max_batch, options.max_model_len);
  cache.plan = Unwrap(PlanMemory(geometry, options.hbm_bytes, options.host_bytes));
  cache.placement = options.placement;
  cache.min_buffer_ratio = options.min_buffer_ratio;
  cache.max_buffer_ratio = std::max(options.min_buffer_ratio, options.max_buffer_ratio);
  cache.max_model_len = options.max_model_len;
  cache.max_budget_pages = options.max_budget_pages;
  for (int32_t layer = 0; layer < config.num_layers; ++layer) {
    cache.layers.push_back(algorithm->Demand(layer));
  }
  Device& device = *backend_.device;
  ModelWeights weights =
      options.folder.empty()
          ? Unwrap(MakeDummyWeights(config, 1, options.dtype, device, *backend_.ops, NoProgress))
          : Unwrap(LoadWeights(config, Unwrap(Checkpoint::Open(options.folder)), options.dtype,
                               device, *backend_.ops, NoProgress));
  {
    const auto stream = device.CreateStream("test");
    store_ = Unwrap(KvStore::Create(device, *stream, cache.plan));
    device.Synchronize(*stream);
  }
  if (options.poison_free_pages) PoisonFreePages();
  executor_ = Unwrap(ModelExecutor::Create({.max_batch = options.max_batch,
                                            .max_prefill_tokens = options.max_model_len,
                                            .max_model_len = options.max_model_len,
                                            .tile_tokens = options.tile_tokens,
                                            .eviction = options.eviction,
                                            .overlap = options.overlap,
                                            .max_budget_pages = options.max_budget_pages,
                                            .stage_sample_period = options.stage_sample_period},
                                           config, std::move(weights), std::move(algorithm), device,
                                           *backend_.ops, *store_));
  if (options.warm_up) executor_->WarmUp();
  memory_ = std::make_unique<KvCacheManager>(cache);
  first_tokens_.resize(geometry.max_rows);
}

ModelRunner::~ModelRunner() = default;

void ModelRunner::PoisonFreePages() {
  const MemoryPlan& plan = store_->plan();
  const auto stream = backend_.device->CreateStream("test");
  const auto poison = [&](void* data, int64_t bytes) {
    if (bytes > 0) backend_.device->Fill(data, 0xff, bytes, *stream);
  };
  poison(store_->tables().slots, plan.slot_bytes);
  poison(store_->tables().host_pages, plan.host_bytes);
  poison(store_->tables().summaries, plan.summary_bytes);
  poison(store_->tables().key_basis, plan.key_basis_bytes);
  backend_.device->Synchronize(*stream);
}

KvTables ModelRunner::Snapshot() {
  snapshot_.clear();
  KvTables tables = store_->tables();
  const MemoryPlan& plan = store_->plan();
  const KvGeometry& g = plan.geometry;
  const auto stream = backend_.device->CreateStream("test");
  const auto bring = [&](auto*& pointer, int64_t bytes) {
    if (bytes == 0) return;
    snapshot_.push_back(Unwrap(backend_.device->Allocate(MemoryKind::kPinned, bytes)));
    backend_.device->Copy(snapshot_.back().data(), pointer, bytes, *stream);
    pointer = static_cast<std::remove_reference_t<decltype(pointer)>>(snapshot_.back().data());
  };
  const int64_t places = int64_t{g.max_rows} * g.num_layers;
  for (int32_t** directory :
       {&tables.slot_dir, &tables.host_dir, &tables.summary_dir, &tables.meta_dir}) {
    bring(*directory, places * g.max_extents * 4);
  }
  bring(tables.placement, int64_t{g.max_rows} * 4);
  bring(tables.num_slots, places * 4);
  bring(tables.meta, int64_t{plan.num_meta_segments} * g.meta_segment_bytes());
  const int64_t slots = int64_t{plan.num_slot_extents} * g.pages_per_extent();
  bring(tables.slot_owner, slots * 4);
  bring(tables.slot_age, slots);
  bring(tables.slots, plan.slot_bytes);
  bring(tables.host_pages, plan.host_bytes);
  bring(tables.summaries, plan.summary_bytes);
  bring(tables.key_basis, plan.key_basis_bytes);
  backend_.device->Synchronize(*stream);
  return tables;
}

void ModelRunner::Commit() {
  if (memory_->room_is_coming() && executor_->SpillPassed()) memory_->FinishSpills();
  executor_->ApplyTables(memory_->TakeCommands());
  executor_->Spill(
      memory_->TakeSpills(max_spills_ > 0 ? max_spills_ : executor_->limits().max_spills));
}

std::vector<RowId> ModelRunner::Admit(const std::vector<int32_t>& prompt, int64_t reserve_tokens,
                                      int32_t num_sequences, int32_t budget_pages) {
  const auto length = static_cast<int64_t>(prompt.size());
  auto rows = memory_->Admit(length, reserve_tokens, num_sequences, budget_pages);
  while (!rows.has_value() && memory_->room_is_coming()) {
    Commit();
    executor_->AwaitSpill();
    Commit();
    rows = memory_->Admit(length, reserve_tokens, num_sequences, budget_pages);
  }
  SPIN_CHECK(rows.has_value());
  Commit();
  SamplingRow sampling = sampling_;
  sampling.prompt_tokens = static_cast<int32_t>(length);
  for (const RowId row : *rows) {
    executor_->StartRow(row, sampling, prompt, {});
    if (budget_pages > 0) executor_->SetBudget(row, budget_pages);
  }
  return *rows;
}

PassResult ModelRunner::Finish() {
  executor_->Submit();
  memory_->CheckInvariants();
  const PassResult result = executor_->Collect();
  counters_.assign(result.counters.begin(), result.counters.end());
  return result;
}

std::vector<std::vector<SampledToken>> ModelRunner::Prefill(std::vector<PrefillItem> items) {
  std::vector<std::vector<RowId>> rows;
  for (const PrefillItem& item : items) rows.push_back(item.rows);
  executor_->BeginPrefill(std::move(items));
  PassResult result;
  for (bool done = false; !done;) {
    done = executor_->EnqueuePrefill(kWorkAPass);
    if (done) {
      for (const auto& item_rows : rows) memory_->FinishPrefill(item_rows);
      executor_->ApplyTables(memory_->TakeCommands());
    }
    result = Finish();
  }
  std::size_t at = 0;
  for (const auto& item_rows : rows) {
    for (const RowId row : item_rows) {
      SPIN_CHECK_LT(at, result.tokens.size());
      SPIN_CHECK(result.tokens[at].row == row);
      first_tokens_[row.value] = *result.tokens[at++].token;
    }
  }
  SPIN_CHECK_EQ(at, result.tokens.size());
  return {result.prompt_logprobs.begin(), result.prompt_logprobs.end()};
}

std::vector<float> ModelRunner::Score(const std::vector<int32_t>& prompt) {
  return ScoreBatch({prompt}, {true})[0].logprobs;
}

std::vector<ScoredPrompt> ModelRunner::ScoreBatch(const std::vector<std::vector<int32_t>>& prompts,
                                                  const std::vector<bool>& wanted) {
  std::vector<PrefillItem> items;
  std::vector<RowId> rows;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    rows.push_back(Admit(prompts[i], static_cast<int64_t>(prompts[i].size()) + 1, 1)[0]);
    items.push_back(
        {.rows = {rows.back()}, .tokens = prompts[i], .num_prompt_logprobs = wanted[i] ? 0 : -1});
  }
  const auto logprobs = Prefill(std::move(items));
  std::vector<ScoredPrompt> scored(prompts.size());
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    scored[i].next = first_token(rows[i]);
    Release(rows[i]);
    for (const SampledToken& token : logprobs[i]) scored[i].logprobs.push_back(token.logprob);
  }
  return scored;
}

std::vector<std::vector<int32_t>> ModelRunner::Generate(
    const std::vector<std::vector<int32_t>>& prompts, int32_t steps, bool one_prefill_each) {
  std::vector<std::vector<int32_t>> tokens;
  for (const auto& sampled : GenerateSampled(prompts, steps, one_prefill_each)) {
    tokens.emplace_back();
    for (const SampledToken& token : sampled) tokens.back().push_back(token.token);
  }
  return tokens;
}

std::vector<std::vector<SampledToken>> ModelRunner::GenerateSampled(
    const std::vector<std::vector<int32_t>>& prompts, int32_t steps, bool one_prefill_each) {
  std::vector<RowId> rows;
  std::vector<PrefillItem> items;
  for (const auto& prompt : prompts) {
    rows.push_back(Admit(prompt, static_cast<int64_t>(prompt.size()) + steps, 1)[0]);
    items.push_back({.rows = {rows.back()}, .tokens = prompt});
    if (one_prefill_each) Prefill(std::exchange(items, {}));
  }
  if (!items.empty()) Prefill(std::move(items));
  std::vector<std::vector<SampledToken>> tokens;
  for (const RowId row : rows) tokens.push_back({first_token(row)});
  for (int32_t step = 1; step < steps; ++step) {
    const auto sampled = Step(rows);
    for (std::size_t i = 0; i < rows.size(); ++i) tokens[i].push_back(sampled[i]);
  }
  for (const RowId row : rows) Release(row);
  return tokens;
}

std::vector<RowId> ModelRunner::Start(const std::vector<int32_t>& prompt, int64_t reserve_tokens,
                                      int32_t num_sequences, int32_t budget_pages) {
  const auto rows = Admit(prompt, reserve_tokens, num_sequences, budget_pages);
  Prefill({{.rows = rows, .tokens = prompt}});
  return rows;
}

std::vector<SampledToken> ModelRunner::Step(const std::vector<RowId>& rows) {
  Commit();
  executor_->EnqueueDecode(rows);
  memory_->Advance(rows);
  const PassResult result = Finish();
  SPIN_CHECK_EQ(result.tokens.size(), rows.size());
  std::vector<SampledToken> tokens;
  for (const auto& sampled : result.tokens) tokens.push_back(*sampled.token);
  return tokens;
}

void ModelRunner::Release(RowId row) {
  memory_->Release(row);
  executor_->ApplyTables(memory_->TakeCommands());
}

}  // namespace spin::testing
