#include "models/model_executor.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <optional>
#include <utility>

#include "common/check.h"
#include "common/math.h"
#include "models/batch_sizes.h"
#include "models/decode_step.h"
#include "models/decoder_layer.h"
#include "models/executor_shape.h"
#include "models/pass.h"
#include "models/pipeline/sparse_pipeline.h"
#include "models/prefill_run.h"
#include "models/rope_table.h"
#include "models/spill_copies.h"
#include "models/workspace.h"

namespace spin {
namespace {

constexpr int64_t kMaxCommandsPerLaunch = 16384;
constexpr int64_t kMaxMarkTokens = 65536;

}  // namespace

struct ModelExecutor::Impl {
  Device* device_ptr = nullptr;
  Ops* ops_ptr = nullptr;
  std::unique_ptr<SparseAlgorithm> algorithm;
  ModelContext model;
  ModelExecutorOptions options;
  ExecutorLimits limits;
  Buffer rope_table;
  Workspace workspace;
  std::unique_ptr<Stream> compute, copy;
  std::unique_ptr<PrefillRun> prefill;
  std::unique_ptr<SpillCopies> spill;
  std::unique_ptr<GatherStream> gather;
  std::optional<OverlapPolicy> overlap;
  std::optional<StageClock> step_clock, prefill_clock;  // where stages are timed
  int64_t untimed_steps = 0;                            // since the last timed one
  // Of the collected passes.
  std::atomic<uint64_t> hits = 0, misses = 0, evictions = 0, rebuilt = 0, spared = 0;

  Pass passes[kMaxPassesInFlight];
  int64_t submitted = 0;
  int64_t collected = 0;
  bool open = false;                    // the current pass has begun
  std::vector<RowId> last_decode_rows;  // what workspace.rows holds

  Device& device() { return *device_ptr; }
  Ops& ops() { return *ops_ptr; }

  Pass& Current();
  template <typename T>
  T* TakePinned(int64_t count);
  absl::Status Prepare(ModelWeights weights, const ModelConfig& config, KvStore& store);
  int32_t PlacesOf(int32_t num_rows) const;
  // Where pass number `pass` (modulo kMaxPassesInFlight) has what its decode step samples.
  SampledToken* DecodeOutputs(int64_t pass) {
    return passes[pass].outputs.as<SampledToken>() + limits.max_rows;
  }
  void UploadRows(std::span<const RowId> rows);
  bool TimesStep();
  void EnqueueStep(int32_t max_batch, StepSchedule schedule, StageClock* clock, SampledToken* out);
  void ReplayStep(int32_t max_batch, StepSchedule schedule, int64_t pass);
  void MarkTokens(RowId row, std::span<const int32_t> tokens, bool generated);
  void Publish(std::span<const RetrieveCounters> rows);
};

// The pass that work is enqueued into; begins it when there is none.
Pass& ModelExecutor::Impl::Current() {
  Pass& pass = passes[submitted % kMaxPassesInFlight];
  if (!open) {
    SPIN_CHECK_LT(submitted - collected, int64_t{kMaxPassesInFlight});
    pass.Reset();
    device().Record(*pass.begin, *compute);
    open = true;
  }
  return pass;
}

// Pinned room in the current pass. When the arena is full, waits until the device has read what is
// in it.
template <typename T>
T* ModelExecutor::Impl::TakePinned(int64_t count) {
  PinnedArena& arena = Current().arena;
  T* room = arena.Take<T>(count);
  if (room == nullptr) {
    device().Synchronize(*compute);
    arena.Reset();
    room = arena.Take<T>(count);
  }
  SPIN_CHECK(room != nullptr);
  return room;
}

absl::Status ModelExecutor::Impl::Prepare(ModelWeights weights, const ModelConfig& config,
                                          KvStore& store) {
  Device& device = *device_ptr;
  const KvGeometry& geometry = store.tables().geometry;
  compute = device.CreateStream("compute");
  copy = device.CreateStream("copy");
  spill = std::make_unique<SpillCopies>(&device, store.tables());
  gather = std::make_unique<GatherStream>(device);
  // Without a host tier nothing is ever missing.
  overlap.emplace(options.overlap,
                  device.info().overlaps_streams && store.tables().host_pages != nullptr,
                  config.num_layers, config.num_q_heads);
  model.config = config;
  model.weights = std::move(weights);
  model.device = &device;
  model.ops = ops_ptr;
  model.tables = store.tables();
  model.algorithm = algorithm.get();
  model.eviction = options.eviction;

  SPIN_RETURN_IF_ERROR(algorithm->Load(model.weights.dtype, device));
  const std::vector<float> table =
      BuildRopeTable(config.rope, config.head_dim, options.max_model_len);
  const int64_t table_bytes = static_cast<int64_t>(table.size() * sizeof(float));
  SPIN_ASSIGN_OR_RETURN(rope_table, device.Allocate(MemoryKind::kDevice, table_bytes));
  {
    SPIN_ASSIGN_OR_RETURN(const Buffer pinned, device.Allocate(MemoryKind::kPinned, table_bytes));
    std::memcpy(pinned.data(), table.data(), static_cast<std::size_t>(table_bytes));
    device.Copy(rope_table.data(), pinned.data(), table_bytes, *compute);
    device.Synchronize(*compute);
  }
  model.rope_table = rope_table.as<float>();

  SPIN_ASSIGN_OR_RETURN(workspace, MakeWorkspace(ShapeOf(options, *algorithm, geometry, *ops_ptr),
                                                 config, model.weights.dtype, device));
  SPIN_ASSIGN_OR_RETURN(prefill,
                        PrefillRun::Create(model, workspace,
                                           {.tile_tokens = options.tile_tokens,
                                            .max_prefill_tokens = limits.max_prefill_tokens,
                                            .max_rows = limits.max_rows,
                                            .max_batch = limits.max_batch}));
  if (options.stage_sample_period > 0) {
    step_clock.emplace(&device, config.num_layers * kNumStages + 1);
    prefill_clock.emplace(&device, config.num_layers * 4);
  }
  const int64_t arena_bytes =
      kMaxCommandsPerLaunch * static_cast<int64_t>(sizeof(TableCommand)) + kMaxMarkTokens * 4 +
      int64_t{limits.max_rows} * static_cast<int64_t>(sizeof(SamplingRow)) + (1 << 20);
  for (Pass& pass : passes) {
    SPIN_RETURN_IF_ERROR(
        Pass::Allocate(device, arena_bytes, limits.max_rows, limits.max_batch, pass));
  }
  // A step without rows, until the first ones come.
  device.Fill(workspace.num_rows, 0, sizeof(int32_t), *compute);
  device.Fill(workspace.group_rows, 0, kNumRowGroups * sizeof(int32_t), *compute);
  device.Fill(workspace.rows, 0, limits.max_batch * int64_t{sizeof(int32_t)}, *compute);
  device.Fill(workspace.position, 0, limits.max_rows * int64_t{sizeof(int32_t)}, *compute);
  device.Fill(workspace.history, 0, int64_t{limits.max_rows} * config.vocab_size * 4, *compute);
  device.Fill(workspace.counters, 0, limits.max_rows * int64_t{sizeof(RetrieveCounters)}, *compute);
  device.Synchronize(*compute);
  return absl::OkStatus();
}

// Places that a step of so many rows has.
int32_t ModelExecutor::Impl::PlacesOf(int32_t num_rows) const {
  return spin::PlacesOf(device_ptr->info(), num_rows, limits.max_batch);
}

// Brings the batch's rows to the device, when they are not the last step's.
void ModelExecutor::Impl::UploadRows(std::span<const RowId> rows) {
  if (std::ranges::equal(rows, last_decode_rows)) return;
  const int32_t n = Narrow<int32_t>(rows.size());
  int32_t* pinned = TakePinned<int32_t>(n + 1 + kNumRowGroups);
  int32_t* groups = pinned + n + 1;
  pinned[0] = n;
  for (int32_t i = 0; i < n; ++i) pinned[1 + i] = rows[i].value;
  const auto begin = [&](int32_t group) { return std::min(n, RowGroupBegin(group, PlacesOf(n))); };
  for (int32_t group = 0; group < kNumRowGroups; ++group) {
    groups[group] = begin(group + 1) - begin(group);
  }
  device().Copy(workspace.num_rows, pinned, 4, *compute);
  device().Copy(workspace.rows, pinned + 1, int64_t{n} * 4, *compute);
  device().Copy(workspace.group_rows, groups, kNumRowGroups * 4, *compute);
  last_decode_rows.assign(rows.begin(), rows.end());
}

// Whether the step that is enqueued now is timed: one of so many, but none before the last one has been read.
bool ModelExecutor::Impl::TimesStep() {
  if (!step_clock.has_value()) return false;
  if (++untimed_steps < options.stage_sample_period || step_clock->busy()) return false;
  untimed_steps = 0;
  return true;
}

void ModelExecutor::Impl::EnqueueStep(int32_t max_batch, StepSchedule schedule, StageClock* clock,
                                      SampledToken* out) {
  EnqueueDecodeStep(model,
                    {.max_batch = max_batch,
                     .num_rows = workspace.num_rows,
                     .rows = workspace.rows,
                     .token = workspace.token,
                     .position = workspace.position},
                    schedule, clock, workspace, *compute, *gather, out);
}

// Each pass has outputs of its own, hence captured steps of its own: one a batch size and schedule.
void ModelExecutor::Impl::ReplayStep(int32_t max_batch, StepSchedule schedule, int64_t pass) {
  const uint64_t place =
      static_cast<uint64_t>(max_batch) * kMaxPassesInFlight + static_cast<uint64_t>(pass);
  device().Replay(kNumStepSchedules * place + static_cast<uint64_t>(schedule), *compute,
                  [&] { EnqueueStep(max_batch, schedule, nullptr, DecodeOutputs(pass)); });
}

void ModelExecutor::Impl::MarkTokens(RowId row, std::span<const int32_t> tokens, bool generated) {
  while (!tokens.empty()) {
    const int64_t n = std::min<int64_t>(kMaxMarkTokens, static_cast<int64_t>(tokens.size()));
    int32_t* pinned = TakePinned<int32_t>(n);
    std::copy_n(tokens.begin(), n, pinned);
    ops().MarkPrompt({.ids = pinned,
                      .generated = generated,
                      .n = static_cast<int32_t>(n),
                      .row = row.value,
                      .history = workspace.history,
                      .vocab = model.config.vocab_size},
                     *compute);
    tokens = tokens.subspan(static_cast<std::size_t>(n));
  }
}

void ModelExecutor::Impl::Publish(std::span<const RetrieveCounters> rows) {
  RetrieveCounters counted;
  for (const RetrieveCounters& row : rows) counted += row;
  hits.store(counted.hits, std::memory_order_relaxed);
  misses.store(counted.misses, std::memory_order_relaxed);
  evictions.store(counted.evictions, std::memory_order_relaxed);
  rebuilt.store(counted.rebuilt, std::memory_order_relaxed);
  spared.store(counted.spared, std::memory_order_relaxed);
  overlap->Observe(counted.Bytes(static_cast<uint64_t>(model.tables.geometry.page_bytes())));
}

ModelExecutor::ModelExecutor(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

ModelExecutor::~ModelExecutor() {
  impl_->device().Synchronize(*impl_->compute);
  impl_->device().Synchronize(*impl_->copy);
}

absl::StatusOr<std::unique_ptr<ModelExecutor>> ModelExecutor::Create(
    const ModelExecutorOptions& options, const ModelConfig& config, ModelWeights weights,
    std::unique_ptr<SparseAlgorithm> algorithm, Device& device, Ops& ops, KvStore& store) {
  const KvGeometry& geometry = store.tables().geometry;
  SPIN_CHECK_GE(options.max_model_len, 1);
  SPIN_CHECK_GE(options.tile_tokens, 16);
  SPIN_CHECK_LE(options.max_batch, geometry.max_rows);
  auto impl = std::make_unique<Impl>();
  impl->device_ptr = &device;
  impl->ops_ptr = &ops;
  impl->algorithm = std::move(algorithm);
  impl->options = options;
  impl->limits = {.max_rows = geometry.max_rows,
                  .max_batch = options.max_batch,
                  .max_prefill_tokens = MaxPrefillTokens(options),
                  .max_model_len = options.max_model_len,
                  .vocab_size = config.vocab_size,
                  .page_tokens = geometry.page_tokens,
                  .max_spills = SpillCopies::MaxExtents(geometry)};
  SPIN_RETURN_IF_ERROR(impl->Prepare(std::move(weights), config, store));
  return std::unique_ptr<ModelExecutor>(new ModelExecutor(std::move(impl)));
}

int32_t ModelExecutor::WarmUp() {
  Impl& impl = *impl_;
  SPIN_CHECK(impl.submitted == 0 && !impl.open);
  int32_t captured = 0;
  if (impl.device().info().captures_steps) {
    for (const int32_t n :
         WarmTiles(std::min(impl.options.tile_tokens, impl.limits.max_prefill_tokens))) {
      EnqueueProducts(impl.model, n, impl.workspace.prefill_residual, impl.workspace,
                      *impl.compute);
    }
    for (const int32_t places : WarmBatches(impl.limits.max_batch)) {
      for (int32_t i = 0; i < kNumStepSchedules * kMaxPassesInFlight; ++i) {
        const auto schedule = static_cast<StepSchedule>(i / kMaxPassesInFlight);
        if (!impl.overlap->MayChoose(schedule, places)) continue;
        // As it is, then captured.
        impl.ReplayStep(places, schedule, i % kMaxPassesInFlight);
        impl.ReplayStep(places, schedule, i % kMaxPassesInFlight);
        ++captured;
      }
    }
    impl.device().Synchronize(*impl.compute);
  }
  impl.ops().EndWarmUp();
  return captured;
}

const ExecutorLimits& ModelExecutor::limits() const {
  return impl_->limits;
}

void ModelExecutor::ApplyTables(std::span<const TableCommand> commands) {
  while (!commands.empty()) {
    const int64_t n =
        std::min<int64_t>(kMaxCommandsPerLaunch, static_cast<int64_t>(commands.size()));
    TableCommand* pinned = impl_->TakePinned<TableCommand>(n);
    std::copy_n(commands.begin(), n, pinned);
    impl_->ops().UpdateTables({.commands = pinned,
                               .num_commands = static_cast<int32_t>(n),
                               .tables = impl_->model.tables,
                               .history = impl_->workspace.history,
                               .vocab = impl_->model.config.vocab_size},
                              *impl_->compute);
    commands = commands.subspan(static_cast<std::size_t>(n));
  }
}

void ModelExecutor::Spill(std::span<const TableCommand> copies) {
  impl_->spill->Enqueue(copies, *impl_->compute, *impl_->copy);
}

bool ModelExecutor::SpillPassed() {
  return impl_->spill->Passed();
}

void ModelExecutor::AwaitSpill() {
  impl_->spill->Await();
}

void ModelExecutor::StartRow(RowId row, const SamplingRow& sampling,
                             std::span<const int32_t> prompt, std::span<const int32_t> generated) {
  SamplingRow* pinned = impl_->TakePinned<SamplingRow>(1);
  *pinned = sampling;
  impl_->device().Copy(impl_->workspace.sampling + row.value, pinned, sizeof(SamplingRow),
                       *impl_->compute);
  impl_->device().Fill(impl_->workspace.row_pages + row.value, 0, sizeof(int32_t), *impl_->compute);
  const bool penalties = sampling.presence_penalty != 0 || sampling.frequency_penalty != 0 ||
                         sampling.repetition_penalty != 1;
  if (!penalties) return;
  const TableCommand clear = {.kind = TableCommandKind::kClearHistory, .row = row.value};
  ApplyTables({&clear, 1});
  impl_->MarkTokens(row, prompt, false);
  impl_->MarkTokens(row, generated, true);
}

void ModelExecutor::SetBudget(RowId row, int32_t pages) {
  SPIN_CHECK(pages >= 1 && pages <= impl_->workspace.select.max_selected);
  int32_t* pinned = impl_->TakePinned<int32_t>(1);
  *pinned = pages;
  impl_->device().Copy(impl_->workspace.row_pages + row.value, pinned, sizeof(int32_t),
                       *impl_->compute);
}

void ModelExecutor::BeginPrefill(std::vector<PrefillItem> items) {
  Pass& pass = impl_->Current();
  SPIN_CHECK(!pass.begins_prefill);  // the prefill's uploads are double-buffered by pass
  pass.begins_prefill = true;
  // A batch whose times are still to be read has the clock.
  std::optional<StageClock>& clock = impl_->prefill_clock;
  impl_->prefill->Begin(std::move(items), clock.has_value() && !clock->busy() ? &*clock : nullptr,
                        *impl_->compute);
}

bool ModelExecutor::prefill_active() const {
  return impl_->prefill->active();
}

void ModelExecutor::CancelPrefill() {
  if (StageClock* clock = impl_->prefill->clock()) clock->Discard();
  impl_->prefill->Finish(*impl_->compute);
}

int64_t ModelExecutor::prefill_work_left() const {
  return impl_->prefill->work_left();
}

bool ModelExecutor::EnqueuePrefill(int64_t max_work) {
  Pass& pass = impl_->Current();
  SPIN_CHECK(!pass.has_prefill);
  pass.has_prefill = true;
  PrefillRun& run = *impl_->prefill;
  impl_->device().Record(*pass.prefill_begin, *impl_->compute);
  const bool done =
      run.Enqueue(max_work, *impl_->compute, *impl_->copy, pass.outputs.as<SampledToken>());
  impl_->device().Record(*pass.prefill_end, *impl_->compute);
  if (!done) return false;
  const std::span<const PrefillItem> items = run.items();
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (items[i].sample) {
      pass.prefill_rows.insert(pass.prefill_rows.end(), items[i].rows.begin(), items[i].rows.end());
    }
    const PrefillSlice& slice = run.slices()[i];
    const int32_t count = items[i].num_prompt_logprobs >= 0 ? slice.num_tokens - 1 : 0;
    pass.logprob_ranges.emplace_back(run.prompt_logprobs() + slice.token_begin, count);
  }
  pass.ends_timed_batch = run.clock() != nullptr;
  run.Finish(*impl_->compute);
  return true;
}

void ModelExecutor::EnqueueDecode(std::span<const RowId> rows) {
  Impl& impl = *impl_;
  Pass& pass = impl.Current();
  SPIN_CHECK(pass.decode_rows.empty());
  SPIN_CHECK(!rows.empty());
  SPIN_CHECK_LE(static_cast<int64_t>(rows.size()), impl.limits.max_batch);
  impl.UploadRows(rows);
  pass.decode_rows.assign(rows.begin(), rows.end());
  const int32_t places = impl.PlacesOf(static_cast<int32_t>(rows.size()));
  const int64_t number = impl.submitted % kMaxPassesInFlight;
  const StepSchedule schedule = impl.overlap->schedule(places);
  if (impl.model.observer != nullptr) {
    impl.EnqueueStep(places, schedule, nullptr, impl.DecodeOutputs(number));
    return;
  }
  pass.times_step = impl.TimesStep();
  if (pass.times_step) {
    impl.EnqueueStep(places, StepSchedule::kInOrder, &*impl.step_clock, impl.DecodeOutputs(number));
    return;
  }
  impl.ReplayStep(places, schedule, number);
}

void ModelExecutor::Submit() {
  Pass& pass = impl_->Current();
  impl_->device().Copy(pass.counters.data(), impl_->workspace.counters,
                       impl_->limits.max_rows * int64_t{sizeof(RetrieveCounters)}, *impl_->compute);
  impl_->device().Record(*pass.decode_end, *impl_->compute);
  impl_->open = false;
  ++impl_->submitted;
}

PassResult ModelExecutor::Collect() {
  Impl& impl = *impl_;
  SPIN_CHECK_LT(impl.collected, impl.submitted);
  Pass& pass = impl.passes[impl.collected % kMaxPassesInFlight];
  impl.device().Synchronize(*pass.decode_end);
  ++impl.collected;
  pass.Harvest(impl.limits.max_rows);
  PassResult result;
  result.tokens = pass.sampled;
  result.prompt_logprobs = pass.prompt_logprobs;
  result.counters = {pass.counters.as<RetrieveCounters>(),
                     static_cast<std::size_t>(impl.limits.max_rows)};
  Event& decode_begin = pass.has_prefill ? *pass.prefill_end : *pass.begin;
  if (pass.has_prefill)
    result.prefill_ns = impl.device().ElapsedNs(*pass.prefill_begin, *pass.prefill_end);
  if (!pass.decode_rows.empty()) {
    result.decode_ns = impl.device().ElapsedNs(decode_begin, *pass.decode_end);
    impl.Publish(result.counters);
  }
  if (pass.times_step) impl.step_clock->Collect();
  if (pass.ends_timed_batch) impl.prefill_clock->Collect();
  return result;
}

void ModelExecutor::ForceToken(RowId row, int32_t token) {
  SPIN_CHECK(token >= 0 && token < impl_->limits.vocab_size);
  int32_t* pinned = impl_->TakePinned<int32_t>(1);
  *pinned = token;
  impl_->device().Copy(impl_->workspace.token + row.value, pinned, sizeof(int32_t),
                       *impl_->compute);
}

void ModelExecutor::LeaveOutOffload(bool value) {
  SPIN_CHECK(!prefill_active());
  impl_->model.leaves_out_offload = value;
}

void ModelExecutor::Observe(StepObserver* observer) {
  impl_->model.observer = observer;
}

RetrieveCounters ModelExecutor::retrieve_counters() const {
  const auto read = [](const std::atomic<uint64_t>& value) {
    return value.load(std::memory_order_relaxed);
  };
  return {.hits = read(impl_->hits),
          .misses = read(impl_->misses),
          .evictions = read(impl_->evictions),
          .rebuilt = read(impl_->rebuilt),
          .spared = read(impl_->spared)};
}

StageTimes ModelExecutor::decode_times() const {
  return impl_->step_clock.has_value() ? impl_->step_clock->times() : StageTimes{};
}

StageTimes ModelExecutor::prefill_times() const {
  return impl_->prefill_clock.has_value() ? impl_->prefill_clock->times() : StageTimes{};
}

int64_t ModelExecutor::workspace_bytes() const {
  return impl_->workspace.bytes;
}

}  // namespace spin
