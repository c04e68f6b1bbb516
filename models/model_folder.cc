#include "models/model_folder.h"

#include <filesystem>
#include <utility>

#include "common/mapped_file.h"
#include "models/json_reader.h"

namespace spin {
namespace {

// tokenizer_config.json writes a special token as a string or as an object with "content".
std::string TokenText(const Json& config, const char* key) {
  const auto it = config.find(key);
  if (it == config.end()) return "";
  if (it->is_string()) return it->get<std::string>();
  if (!it->is_object()) return "";
  const auto content = it->find("content");
  return content != it->end() && content->is_string() ? content->get<std::string>() : "";
}

// The template of tokenizer_config.json: a string, or a list of {name, template} of which "default"
// counts.
std::string TemplateText(const Json& config) {
  const auto it = config.find("chat_template");
  if (it == config.end()) return "";
  if (it->is_string()) return it->get<std::string>();
  if (!it->is_array()) return "";
  for (const Json& entry : *it) {
    if (!entry.is_object()) continue;
    const auto name = entry.find("name");
    const auto text = entry.find("template");
    if (name == entry.end() || text == entry.end() || !text->is_string()) continue;
    if (*name == "default") return text->get<std::string>();
  }
  return "";
}

absl::Status ReadText(ModelFolder& folder) {
  std::string source;
  const std::string config_path = folder.path + "/tokenizer_config.json";
  if (std::filesystem::exists(config_path)) {
    SPIN_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(config_path));
    SPIN_ASSIGN_OR_RETURN(const Json config, ParseJsonObject(text, config_path));
    folder.bos_token = TokenText(config, "bos_token");
    folder.eos_token = TokenText(config, "eos_token");
    source = TemplateText(config);
  }
  std::string template_path = config_path;
  if (const std::string own = folder.path + "/chat_template.jinja"; std::filesystem::exists(own)) {
    SPIN_ASSIGN_OR_RETURN(source, ReadTextFile(own));
    template_path = own;
  }
  if (!source.empty()) {
    auto parsed = ChatTemplate::Parse(source);
    if (!parsed.ok()) return Annotate(parsed.status(), template_path + ": chat template");
    folder.chat_template = *std::move(parsed);
  }
  const std::string tokenizer_path = folder.path + "/tokenizer.json";
  if (std::filesystem::exists(tokenizer_path)) {
    SPIN_ASSIGN_OR_RETURN(folder.tokenizer, Tokenizer::Load(tokenizer_path));
    if (folder.tokenizer->vocab_size() > folder.config.vocab_size) {
      return InvalidArgument("%s has %d tokens, config.json's vocab_size is %d", tokenizer_path,
                             folder.tokenizer->vocab_size(), folder.config.vocab_size);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelFolder> ReadModelFolder(const std::string& path) {
  if (!std::filesystem::is_directory(path)) {
    return NotFound("%s is not a folder; give a Hugging Face model folder", path);
  }
  ModelFolder folder;
  folder.path = path;
  SPIN_ASSIGN_OR_RETURN(const std::string config, ReadTextFile(path + "/config.json"));
  auto parsed = ParseModelConfig(config);
  if (!parsed.ok()) return Annotate(parsed.status(), path);
  folder.config = *std::move(parsed);
  const std::string generation_path = path + "/generation_config.json";
  if (std::filesystem::exists(generation_path)) {
    SPIN_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(generation_path));
    SPIN_ASSIGN_OR_RETURN(folder.generation, ParseGenerationConfig(text));
  }
  for (const int32_t id : folder.eos_token_ids()) {
    if (id >= folder.config.vocab_size) {
      return InvalidArgument("%s: key 'eos_token_id' is %d, outside of the vocabulary of %d tokens",
                             path, id, folder.config.vocab_size);
    }
  }
  SPIN_RETURN_IF_ERROR(ReadText(folder));
  return folder;
}

}  // namespace spin
