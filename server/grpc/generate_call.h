// One Generate call: a write reactor that forwards the outputs of one request, one message at a time.
//
// gRPC's threads and the wake queue's run the reactions, the engine's thread only wakes it. The call lives until
// OnDone.
#pragma once

#include <grpcpp/grpcpp.h>

#include "proto/inference.pb.h"
#include "server/grpc/call_limit.h"
#include "server/grpc/wake_queue.h"
#include "server/serving_context.h"

namespace spin {

// `wakes` and `limit` outlive the call. Starts the call, or ends it at once with the status that the request deserves;
// RESOURCE_EXHAUSTED, before anything is read of it, where `limit` is reached.
grpc::ServerWriteReactor<v1::GenerateResponse>* StartGenerateCall(
    const ServingContext& context, const v1::GenerateRequest& request, WakeQueue& wakes,
    CallLimit& limit);

}  // namespace spin
