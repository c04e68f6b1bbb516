#include "tools/eval/session.h"

#include <utility>

#include "common/check.h"
#include "tools/eval/host_selection.h"

namespace spin::eval {
namespace {

constexpr int64_t kTilesAPass = 64;

class IdleObserver final : public StepObserver {
 public:
  void OnAttention(const DecodeStage&, const Selection&) override {}
  void OnLogits(const DecodeRows&, const float*, int32_t, Stream&) override {}
};

}  // namespace

absl::StatusOr<std::unique_ptr<Session>> Session::Create(ServerConfig config,
                                                         const Variant& variant, int32_t batch,
                                                         int32_t max_tokens) {
  config.sparse = variant.sparse;
  config.engine.max_num_seqs = batch;
  config.engine.max_batched_tokens = max_tokens;
  config.max_model_len = max_tokens;
  SPIN_ASSIGN_OR_RETURN(ModelPlan plan, PlanModel(config));
  std::unique_ptr<Session> session(new Session());
  if (variant.selector != Selector::kAlgorithm) {
    SPIN_ASSIGN_OR_RETURN(
        plan.algorithm,
        HostSelection::Create(std::move(plan.algorithm), variant.selector, plan.cache.plan.geometry,
                              batch, *plan.backend.device));
    session->idle_ = std::make_unique<IdleObserver>();
  }
  SPIN_ASSIGN_OR_RETURN(session->stack_,
                        ModelStack::Create(config, std::move(plan), session->metrics_));
  session->sampled_.resize(static_cast<size_t>(session->geometry().max_rows));
  session->Observe(nullptr);
  return session;
}

Session::~Session() = default;

absl::StatusOr<RowId> Session::Start(std::span<const int32_t> prompt, int32_t max_new) {
  KvCacheManager& memory = stack_->memory();
  const auto length = static_cast<int64_t>(prompt.size());
  SPIN_RETURN_IF_ERROR(memory.CheckFits(length, length + max_new, 1));
  const auto rows = memory.Admit(length, length + max_new, 1);
  if (!rows.has_value()) {
    return ResourceExhausted(
        "no room for another sequence of %d tokens: raise memory.hbm_budget or memory.host_pool, "
        "or lower the batch",
        length + max_new);
  }
  stack_->executor().ApplyTables(memory.TakeCommands());
  SamplingRow sampling;
  sampling.temperature = 0;
  sampling.prompt_tokens = static_cast<int32_t>(length);
  stack_->executor().StartRow((*rows)[0], sampling, prompt, {});
  Prefill(*rows, {prompt.begin(), prompt.end()});
  return (*rows)[0];
}

void Session::Prefill(std::span<const RowId> rows, std::vector<int32_t> tokens) {
  Executor& executor = stack_->executor();
  executor.BeginPrefill({{.rows = {rows.begin(), rows.end()}, .tokens = std::move(tokens)}});
  for (bool done = false; !done;) {
    done = executor.EnqueuePrefill(kTilesAPass);
    if (done) {
      stack_->memory().FinishPrefill(rows);
      executor.ApplyTables(stack_->memory().TakeCommands());
    }
    executor.Submit();
    for (const auto& [row, token] : executor.Collect().tokens) {
      sampled_[static_cast<size_t>(row.value)] = token->token;
    }
  }
}

void Session::Step(std::span<const RowId> rows) {
  Executor& executor = stack_->executor();
  executor.ApplyTables(stack_->memory().TakeCommands());
  executor.EnqueueDecode(rows);
  stack_->memory().Advance(rows);
  executor.Submit();
  for (const auto& [row, token] : executor.Collect().tokens) {
    sampled_[static_cast<size_t>(row.value)] = token->token;
  }
}

void Session::Release(RowId row) {
  stack_->memory().Release(row);
  stack_->executor().ApplyTables(stack_->memory().TakeCommands());
}

void Session::Observe(StepObserver* observer) {
  stack_->executor().Observe(observer != nullptr ? observer : idle_.get());
}

}  // namespace spin::eval
