// Between spin.v1 messages and the engine's types. protobuf stops here.
#pragma once

#include <grpcpp/grpcpp.h>

#include "common/status.h"
#include "engine/request.h"
#include "proto/inference.pb.h"
#include "server/serving_context.h"

namespace spin {

// Everything but id and sink. Text is tokenised; defaults are the model's. Unavailable unless the server is ready.
absl::StatusOr<Request> ToRequest(const ServingContext& context,
                                  const v1::GenerateRequest& message);

v1::GenerateResponse ToMessage(const SequenceDelta& delta, bool with_logprobs);
v1::GeneratedToken ToMessage(const SampledToken& token, bool with_logprobs);

v1::SpinUsage ToMessage(const RequestSummary& summary);

// absl's codes are gRPC's; OutOfRange (context too long) and FailedPrecondition (never fits) are INVALID_ARGUMENT.
grpc::Status ToGrpcStatus(const absl::Status& status);

}  // namespace spin
