#include "server/openai/models_handler.h"

#include "server/http/error_response.h"
#include "server/openai/common_request.h"
#include "server/openai/json_response.h"

namespace spin {
namespace {

Json ModelCard(const ModelInfo& model, const std::string& name) {
  Json card;
  card["id"] = name;
  card["object"] = "model";
  card["created"] = model.created;
  card["owned_by"] = "spin";
  card["root"] = model.served_names.front();
  card["parent"] = nullptr;
  card["max_model_len"] = model.max_model_len;
  return card;
}

}  // namespace

HttpResponse ListModels(const ModelInfo& model) {
  Json list;
  list["object"] = "list";
  list["data"] = Json::array();
  for (const std::string& name : model.served_names) list["data"].push_back(ModelCard(model, name));
  return JsonResponse(list);
}

HttpResponse GetModel(const ModelInfo& model, const std::string& name) {
  const absl::Status known = CheckModelName(name, model);
  if (!known.ok()) return ErrorResponse(known, "");
  return JsonResponse(ModelCard(model, name));
}

}  // namespace spin
