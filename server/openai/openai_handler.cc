#include "server/openai/openai_handler.h"

#include <algorithm>
#include <cctype>
#include <functional>
#include <string>
#include <string_view>
#include <utility>

#include "server/error_mapping.h"
#include "server/http/error_response.h"
#include "server/http/router.h"
#include "server/openai/generation_handler.h"
#include "server/openai/json_response.h"
#include "server/openai/models_handler.h"
#include "server/openai/tokenize_handler.h"

namespace spin {
namespace {

// "application/json", with any parameters; clients that send no type at all mean JSON.
bool IsJsonType(std::string_view type) {
  type = type.substr(0, type.find(';'));
  while (!type.empty() && type.back() == ' ') type.remove_suffix(1);
  if (type.empty()) return true;
  std::string lower(type);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return lower == "application/json";
}

class OpenAiHandler final : public HttpHandler {
 public:
  explicit OpenAiHandler(const ServingContext& context) : context_(context) {
    AddSystemRoutes();
    AddModelRoutes();
    AddGenerationRoutes();
  }

  std::unique_ptr<HttpTask> Handle(HttpRequest& request, Waker waker) override {
    return router_.Route(request, std::move(waker));
  }

  bool closing() const override { return context_.state == ServerState::kDraining; }

 private:
  void AddSystemRoutes();
  void AddModelRoutes();
  void AddGenerationRoutes();

  absl::Status CheckLoaded() const {
    if (context_.state != ServerState::kLoading) return absl::OkStatus();
    return Unavailable("The model is still loading. Try again in a few seconds.");
  }
  absl::Status CheckAdmitting() const {
    SPIN_RETURN_IF_ERROR(CheckLoaded());
    if (context_.state != ServerState::kDraining) return absl::OkStatus();
    return Unavailable("The server is shutting down and takes no new requests.");
  }

  // A POST route with a JSON body, behind the check of the state.
  void AddJsonRoute(const std::string& path, absl::Status (OpenAiHandler::*check)() const,
                    Router::Function function);

  const ServingContext& context_;
  Router router_;
};

void OpenAiHandler::AddJsonRoute(const std::string& path,
                                 absl::Status (OpenAiHandler::*check)() const,
                                 Router::Function function) {
  router_.Add("POST", path,
              [this, check, function = std::move(function)](HttpRequest& request, Waker wake) {
                const absl::Status status = (this->*check)();
                if (!status.ok()) return Ready(ErrorResponse(status, request.id));
                if (!IsJsonType(request.Header("Content-Type"))) {
                  return Ready(ProtocolError(
                      415, "Unsupported media type: the Content-Type must be application/json."));
                }
                return function(request, std::move(wake));
              });
}

void OpenAiHandler::AddSystemRoutes() {
  const auto alive = [](HttpRequest&, const Waker&) {
    return Ready(JsonResponse({{"status", "ok"}}));
  };
  const auto ready = [this](HttpRequest& request, const Waker&) {
    const absl::Status status = CheckAdmitting();
    if (!status.ok()) return Ready(ErrorResponse(status, request.id));
    return Ready(JsonResponse({{"status", "ok"}}));
  };
  router_.Add("GET", "/health", ready);
  router_.Add("GET", "/health/ready", ready);
  router_.Add("GET", "/health/live", alive);
  router_.Add("GET", "/version", [this](HttpRequest&, const Waker&) {
    return Ready(JsonResponse({{"version", context_.version}}));
  });
  router_.Add("GET", "/metrics", [this](HttpRequest&, const Waker&) {
    HttpResponse response;
    response.content_type = "text/plain; version=0.0.4; charset=utf-8";
    if (context_.metrics != nullptr) response.body = context_.metrics->PrometheusText();
    return Ready(std::move(response));
  });
}

void OpenAiHandler::AddModelRoutes() {
  const auto add = [this](const std::string& path, auto answer) {
    router_.Add("GET", path, [this, answer](HttpRequest& request, const Waker&) {
      const absl::Status status = CheckLoaded();
      if (!status.ok()) return Ready(ErrorResponse(status, request.id));
      return Ready(answer(request));
    });
  };
  add("/v1/models", [this](const HttpRequest&) { return ListModels(context_.model); });
  add("/v1/models/*",
      [this](const HttpRequest& request) { return GetModel(context_.model, request.path_tail); });
  const auto add_text = [this](const std::string& path, auto handle) {
    AddJsonRoute(path, &OpenAiHandler::CheckLoaded,
                 [this, handle](HttpRequest& request, const Waker&) {
                   absl::StatusOr<HttpResponse> response = handle(context_, request.body);
                   if (!response.ok()) return Ready(ErrorResponse(response.status(), request.id));
                   return Ready(*std::move(response));
                 });
  };
  add_text("/tokenize", HandleTokenize);
  add_text("/detokenize", HandleDetokenize);
}

void OpenAiHandler::AddGenerationRoutes() {
  AddJsonRoute("/v1/completions", &OpenAiHandler::CheckAdmitting,
               [this](HttpRequest& request, Waker wake) {
                 return HandleCompletions(context_, request, std::move(wake));
               });
  AddJsonRoute("/v1/chat/completions", &OpenAiHandler::CheckAdmitting,
               [this](HttpRequest& request, Waker wake) {
                 return HandleChatCompletions(context_, request, std::move(wake));
               });
}

}  // namespace

std::unique_ptr<HttpHandler> MakeOpenAiHandler(const ServingContext& context) {
  return std::make_unique<OpenAiHandler>(context);
}

}  // namespace spin
