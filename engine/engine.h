// The engine: requests in, tokens out. One thread runs passes; the front end submits and cancels from any thread.
//
// A pass is a list of named phases: drain inputs, plan (admit, resume, preempt; on counts), commit, launch, collect,
// emit, retire. It knows no device, no page, no JSON. engine/README.md is the normative text.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "common/clock.h"
#include "common/ids.h"
#include "common/metrics.h"
#include "common/status.h"
#include "engine/engine_options.h"
#include "engine/request.h"
#include "memory/kv_cache_manager.h"
#include "models/executor.h"
#include "models/tokenizer/tokenizer.h"

namespace spin {

// A coherent copy of what the engine is doing; made once a pass.
struct EngineSnapshot {
  int32_t running = 0;    // sequences that decode or are prefilled
  int32_t waiting = 0;    // requests in the queue
  int32_t preempted = 0;  // sequences that wait to resume
  KvUsage kv;
};

class Engine {
 public:
  struct Dependencies {  // all outlive the engine
    Executor* executor = nullptr;
    KvCacheManager* memory = nullptr;
    const Tokenizer* tokenizer = nullptr;  // null: token ids only
    const Clock* clock = nullptr;
    MetricsRegistry* metrics = nullptr;
  };

  Engine(const EngineOptions& options, const Dependencies& dependencies);
  ~Engine();

  // Any thread. The output, errors after this point included, goes to the request's sink.
  //   InvalidArgument    bad sampling parameters, a sparse budget that the server cannot give, empty prompt, token ids
  //                      out of the vocabulary
  //   OutOfRange         prompt, or prompt + max_tokens, is longer than the context
  //   ResourceExhausted  the queue is full (try again later)
  //   FailedPrecondition it can never fit into the memory budgets
  //   Unavailable        draining
  absl::Status Submit(Request request);

  // Any thread. The sequences stop within one step and give everything back; the sink hears no more.
  void Cancel(RequestId id);

  // One pass on the calling thread. False: there was nothing to do. For the loop below and for simulations.
  bool Step();

  // The loop on its own thread: Start, then Drain (refuse new requests, finish the running ones, or give them up when
  // `timeout_ns` has passed: their sinks get Unavailable), then Stop. While the loop runs, any thread may Drain; a
  // second call with less patience cuts the first one short.
  void Start();
  bool Drain(int64_t timeout_ns);
  void Stop();

  RequestId NextRequestId();        // any thread
  EngineSnapshot snapshot() const;  // any thread
  void CheckInvariants() const;     // engine thread

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace spin
