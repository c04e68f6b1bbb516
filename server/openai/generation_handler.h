// POST /v1/completions and POST /v1/chat/completions: from body to running task.
#pragma once

#include <memory>

#include "server/http/http_message.h"
#include "server/serving_context.h"

namespace spin {

// REQUIRES: the state of `context` is not kLoading. Any thread. Every error that can be known before the engine runs is
// an answer with its status.
std::unique_ptr<HttpTask> HandleCompletions(const ServingContext& context, HttpRequest& request,
                                            Waker wake);
std::unique_ptr<HttpTask> HandleChatCompletions(const ServingContext& context, HttpRequest& request,
                                                Waker wake);

}  // namespace spin
