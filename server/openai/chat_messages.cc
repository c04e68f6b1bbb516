#include "server/openai/chat_messages.h"

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <utility>

#include "server/error_mapping.h"
#include "server/openai/parse_helpers.h"

namespace spin {
namespace {

constexpr std::array<std::string_view, 5> kRoles = {"system", "developer", "user", "assistant",
                                                    "tool"};

absl::StatusOr<std::string> TextOfParts(const Json& parts, const std::string& path) {
  std::string text;
  bool first = true;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const std::string part_path = absl::StrFormat("%s[%d]", path, i);
    std::string type;
    if (parts[i].is_object()) SPIN_RETURN_IF_ERROR(ReadString(parts[i], "type", type));
    if (type.empty()) {
      return BadParam(part_path, "Invalid '%s': it must be an object with a type.", part_path);
    }
    if (type != "text" && type != "refusal") {
      return UnsupportedParam(part_path,
                              absl::StrFormat("Unsupported parameter: '%s' is a content part of "
                                              "type '%s'; this server takes text only.",
                                              part_path, type));
    }
    const Json* content = FindMember(parts[i], type);
    if (content == nullptr || !content->is_string()) {
      return BadParam(part_path, "Invalid '%s': its member '%s' must be a string.", part_path,
                      type);
    }
    if (!first) text += '\n';
    first = false;
    text += content->get_ref<const std::string&>();
  }
  return text;
}

absl::Status NormalizeToolCalls(Json& calls, const std::string& path) {
  if (!calls.is_array()) return BadParam(path, "Invalid '%s': it must be a list.", path);
  for (std::size_t i = 0; i < calls.size(); ++i) {
    const std::string call_path = absl::StrFormat("%s[%d].function", path, i);
    const Json* function = calls[i].is_object() ? FindMember(calls[i], "function") : nullptr;
    const Json* name =
        function != nullptr && function->is_object() ? FindMember(*function, "name") : nullptr;
    if (name == nullptr || !name->is_string()) {
      return BadParam(call_path, "Invalid '%s': it must be an object with a name.", call_path);
    }
    Json& mutable_function = calls[i]["function"];
    const Json* arguments = FindMember(mutable_function, "arguments");
    if (arguments == nullptr) {
      mutable_function["arguments"] = Json::object();
    } else if (arguments->is_string()) {
      const std::string text = arguments->get<std::string>();
      absl::StatusOr<Json> parsed = ParseJsonBody(text.empty() ? "{}" : text);
      if (!parsed.ok()) {
        return BadParam(call_path + ".arguments",
                        "Invalid '%s.arguments': it must be the text of a JSON object.", call_path);
      }
      mutable_function["arguments"] = *std::move(parsed);
    } else if (!arguments->is_object()) {
      return BadParam(call_path + ".arguments", "Invalid '%s.arguments': it must be a string.",
                      call_path);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Json> NormalizeMessage(const Json& message, const std::string& path) {
  if (!message.is_object()) return BadParam(path, "Invalid '%s': it must be an object.", path);
  const Json* role = FindMember(message, "role");
  if (role == nullptr) return MissingParam(path + ".role");
  const std::string name = role->is_string() ? role->get<std::string>() : std::string();
  if (std::find(kRoles.begin(), kRoles.end(), name) == kRoles.end()) {
    return BadParam(
        path + ".role",
        "Invalid '%s.role': it must be one of system, developer, user, assistant, tool.", path);
  }
  Json result = message;
  if (name == "developer") result["role"] = "system";
  if (FindMember(message, "audio") != nullptr) {
    return UnsupportedParam(path + ".audio",
                            "Unsupported parameter: audio is not supported by this server.");
  }
  const Json* calls = FindMember(message, "tool_calls");
  if (calls == nullptr || calls->empty()) {
    calls = nullptr;
    result.erase("tool_calls");
  } else {
    SPIN_RETURN_IF_ERROR(NormalizeToolCalls(result["tool_calls"], path + ".tool_calls"));
  }
  const Json* content = FindMember(message, "content");
  if (content == nullptr) {
    if (name != "assistant" || (calls == nullptr && FindMember(message, "refusal") == nullptr)) {
      return MissingParam(path + ".content");
    }
    result["content"] = nullptr;
  } else if (content->is_array()) {
    SPIN_ASSIGN_OR_RETURN(const std::string text, TextOfParts(*content, path + ".content"));
    result["content"] = text;
  } else if (!content->is_string()) {
    return BadParam(path + ".content",
                    "Invalid '%s.content': it must be a string or a list of parts.", path);
  }
  return result;
}

absl::Status CheckToolChoice(const Json& body) {
  const Json* choice = FindMember(body, "tool_choice");
  if (choice == nullptr) return absl::OkStatus();
  if (choice->is_string() && (*choice == "none" || *choice == "auto")) return absl::OkStatus();
  const bool known = choice->is_object() || (choice->is_string() && *choice == "required");
  if (!known) return BadParam("tool_choice", "Invalid 'tool_choice': it must be 'none' or 'auto'.");
  return UnsupportedParam(
      "tool_choice",
      "Unsupported parameter: 'tool_choice' other than 'none' and 'auto' is not "
      "supported by this server.");
}

}  // namespace

absl::StatusOr<Json> NormalizeMessages(const Json& body) {
  const Json* messages = FindMember(body, "messages");
  if (messages == nullptr) return MissingParam("messages");
  if (!messages->is_array() || messages->empty()) {
    return BadParam("messages", "Invalid 'messages': it must be a list with at least one message.");
  }
  Json result = Json::array();
  for (std::size_t i = 0; i < messages->size(); ++i) {
    SPIN_ASSIGN_OR_RETURN(Json message,
                          NormalizeMessage((*messages)[i], absl::StrFormat("messages[%d]", i)));
    result.push_back(std::move(message));
  }
  return result;
}

absl::StatusOr<Json> ParseTools(const Json& body) {
  SPIN_RETURN_IF_ERROR(RefuseMembers(body, {"functions", "function_call"}));
  SPIN_RETURN_IF_ERROR(CheckToolChoice(body));
  const Json* tools = FindMember(body, "tools");
  if (tools == nullptr) return Json(nullptr);
  if (!tools->is_array()) return BadParam("tools", "Invalid 'tools': it must be a list.");
  for (std::size_t i = 0; i < tools->size(); ++i) {
    const std::string path = absl::StrFormat("tools[%d]", i);
    const Json& tool = (*tools)[i];
    if (!tool.is_object() || tool.value("type", Json()) != "function") {
      return BadParam(path + ".type", "Invalid '%s': it must be an object of type 'function'.",
                      path);
    }
    const Json* function = FindMember(tool, "function");
    if (function == nullptr) return MissingParam(path + ".function");
    const Json* name = function->is_object() ? FindMember(*function, "name") : nullptr;
    if (name == nullptr || !name->is_string() || name->get_ref<const std::string&>().empty()) {
      return BadParam(path + ".function.name", "Invalid '%s.function': it must have a name.", path);
    }
  }
  return tools->empty() ? Json(nullptr) : *tools;
}

}  // namespace spin
