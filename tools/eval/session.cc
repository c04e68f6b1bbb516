#include "tools/eval/session.h"

#include <utility>

#include "common/check.h"
#include "models/sparse/sparse_algorithm.h"
#include "tools/bench/whole_prefill.h"

namespace spin::eval {
namespace {

class IdleObserver final : public StepObserver {
 public:
  void OnAttention(const DecodeStage&, const Selection&) override {}
  void OnLogits(const DecodeRows&, const float*, int32_t, Stream&) override {}
};

}  // namespace

absl::StatusOr<std::unique_ptr<Session>> Session::Create(ServerConfig config,
                                                         std::span<const Variant> variants,
                                                         int32_t batch, int32_t max_tokens) {
  SPIN_CHECK(!variants.empty());
  config.sparse = variants.back().sparse;
  config.engine.max_num_seqs = batch * static_cast<int32_t>(variants.size());
  config.engine.max_batched_tokens = max_tokens;
  config.max_model_len = max_tokens;
  SPIN_ASSIGN_OR_RETURN(ModelPlan plan, PlanModel(config));
  SPIN_ASSIGN_OR_RETURN(auto variant_switch, VariantSwitch::Create(variants, plan.folder.config,
                                                                   plan.cache.plan.geometry, batch,
                                                                   *plan.backend.device));
  std::unique_ptr<Session> session(new Session());
  session->batch_ = batch;
  session->num_variants_ = variants.size();
  session->switch_ = variant_switch.get();
  session->max_selected_ = MostSelected(*variant_switch, plan.cache.plan.geometry);
  session->idle_ = std::make_unique<IdleObserver>();
  for (int32_t layer = 0; layer < plan.folder.config.num_layers; ++layer) {
    plan.cache.layers[static_cast<size_t>(layer)] = variant_switch->Demand(layer);
  }
  plan.algorithm = std::move(variant_switch);
  SPIN_ASSIGN_OR_RETURN(session->stack_,
                        ModelStack::Create(config, std::move(plan), session->metrics_));
  session->sampled_.resize(static_cast<size_t>(session->geometry().max_rows));
  session->Observe(nullptr);
  return session;
}

Session::~Session() = default;

absl::StatusOr<std::vector<RowId>> Session::Start(std::span<const int32_t> prompt,
                                                  int32_t max_new) {
  KvCacheManager& memory = stack_->memory();
  const auto length = static_cast<int64_t>(prompt.size());
  const auto copies = static_cast<int32_t>(num_variants_);
  SPIN_RETURN_IF_ERROR(memory.CheckFits(length, length + max_new, copies));
  auto rows = memory.Admit(length, length + max_new, copies);
  while (!rows.has_value() && memory.room_is_coming()) {  // a demotion makes it
    Executor& executor = stack_->executor();
    executor.ApplyTables(memory.TakeCommands());
    executor.Spill(memory.TakeSpills(executor.limits().max_spills));
    executor.AwaitSpill();
    memory.FinishSpills();
    rows = memory.Admit(length, length + max_new, copies);
  }
  if (!rows.has_value()) {
    return ResourceExhausted(
        "no room for another prompt of %d tokens under %d variants: raise memory.hbm_budget or "
        "memory.host_pool, or lower the batch",
        length, copies);
  }
  stack_->executor().ApplyTables(memory.TakeCommands());
  SamplingRow sampling;
  sampling.temperature = 0;
  sampling.prompt_tokens = static_cast<int32_t>(length);
  for (const RowId row : *rows) stack_->executor().StartRow(row, sampling, prompt, {});
  Prefill(*rows, {prompt.begin(), prompt.end()});
  return *std::move(rows);
}

void Session::Prefill(std::span<const RowId> rows, std::vector<int32_t> tokens) {
  const PassResult result =
      bench::PrefillWhole(stack_->executor(), stack_->memory(), rows, std::move(tokens));
  for (const auto& [row, token] : result.tokens) {
    sampled_[static_cast<size_t>(row.value)] = token->token;
  }
}

void Session::Step(size_t variant, std::span<const RowId> rows) {
  Executor& executor = stack_->executor();
  switch_->Use(variant);
  executor.ApplyTables(stack_->memory().TakeCommands());
  executor.EnqueueDecode(rows);
  stack_->memory().Advance(rows);
  executor.Submit();
  for (const auto& [row, token] : executor.Collect().tokens) {
    sampled_[static_cast<size_t>(row.value)] = token->token;
  }
}

void Session::Release(std::span<const RowId> rows) {
  for (const RowId row : rows) stack_->memory().Release(row);
  stack_->executor().ApplyTables(stack_->memory().TakeCommands());
}

void Session::Observe(StepObserver* observer) {
  stack_->executor().Observe(observer != nullptr ? observer : idle_.get());
}

}  // namespace spin::eval
