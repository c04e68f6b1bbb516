#include "engine/engine.h"

#include <atomic>
#include <utility>

#include "common/check.h"
#include "engine/engine_core.h"
#include "engine/engine_loop.h"
#include "engine/engine_metrics.h"
#include "engine/inbox.h"
#include "engine/request_check.h"

namespace spin {
namespace {

// After the grace period of Drain, aborting takes a pass or two; each waits for the device at most.
constexpr int64_t kAbortWaitNs = int64_t{10} * 1000 * 1000 * 1000;

}  // namespace

struct Engine::Impl {
  Impl(const EngineOptions& options_in, const Dependencies& dependencies_in)
      : options(options_in),
        dependencies(dependencies_in),
        metrics(dependencies.metrics),
        inbox(options.max_queue),
        core(options, dependencies.executor, dependencies.memory, dependencies.tokenizer,
             dependencies.clock, &inbox, &metrics),
        loop([this] { return core.Step(); }) {}

  // On a thread that owns the core: no loop runs. Ends everything that is alive or in flight.
  void Settle() {
    inbox.AbortAll();
    do {
      core.Step();
    } while (!core.idle());
  }

  const EngineOptions options;
  const Dependencies dependencies;
  EngineMetrics metrics;
  Inbox inbox;
  EngineCore core;
  EngineLoop loop;
  std::atomic<uint64_t> next_id{1};
};

Engine::Engine(const EngineOptions& options, const Dependencies& dependencies)
    : impl_(std::make_unique<Impl>(options, dependencies)) {}

Engine::~Engine() {
  Stop();
}

absl::Status Engine::Submit(Request request) {
  SPIN_CHECK(request.sink != nullptr);
  const Dependencies& d = impl_->dependencies;
  SPIN_ASSIGN_OR_RETURN(const ResolvedRequest resolved,
                        CheckRequest(request, impl_->options, d.executor->limits(), *d.memory,
                                     d.tokenizer != nullptr));
  const int64_t now_ns = d.clock->NowNs();
  SPIN_RETURN_IF_ERROR(impl_->inbox.Submit(
      {.request = std::move(request), .resolved = resolved, .arrival_ns = now_ns}));
  impl_->loop.Wake();
  return absl::OkStatus();
}

void Engine::Cancel(RequestId id) {
  impl_->inbox.Cancel(id);
  impl_->loop.Wake();
}

bool Engine::Step() {
  return impl_->core.Step();
}

void Engine::Start() {
  impl_->loop.Start();
}

bool Engine::Drain(int64_t timeout_ns) {
  impl_->inbox.Close();
  if (!impl_->loop.started()) {
    const bool was_empty = impl_->inbox.empty();
    impl_->Settle();
    return was_empty;
  }
  if (impl_->inbox.WaitUntilEmpty(timeout_ns)) return true;
  impl_->inbox.AbortAll();
  impl_->loop.Wake();
  impl_->inbox.WaitUntilEmpty(kAbortWaitNs);
  return false;
}

void Engine::Stop() {
  impl_->loop.Stop();
  impl_->Settle();
}

RequestId Engine::NextRequestId() {
  return RequestId{impl_->next_id.fetch_add(1, std::memory_order_relaxed)};
}

EngineSnapshot Engine::snapshot() const {
  const EngineCounts counts = impl_->metrics.counts();
  return {.running = counts.running,
          .waiting = counts.waiting,
          .preempted = counts.preempted,
          .kv = counts.kv};
}

void Engine::CheckInvariants() const {
  impl_->core.CheckInvariants();
}

}  // namespace spin
