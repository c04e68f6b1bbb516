#include "models/tokenizer/tokenizer_json.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <unordered_map>
#include <utility>

#include "models/json_reader.h"
#include "models/tokenizer/json_fields.h"
#include "models/tokenizer/pretokenizer_json.h"

namespace spin {
namespace {

constexpr std::size_t kMaxFileBytes = std::size_t{256} << 20;
constexpr int kMaxDepth = 8;
constexpr std::size_t kMaxTemplateIds = 64;

absl::StatusOr<Normalizer> ParseNormalizer(const Json* json, int depth = 0) {
  if (json == nullptr) return Normalizer(Normalizer::Kind::kNone);
  if (depth > kMaxDepth) return InvalidArgument("Sequences are nested deeper than %d", kMaxDepth);
  SPIN_ASSIGN_OR_RETURN(const std::string type, StringField(*json, "type"));
  if (type == "NFC") return Normalizer(Normalizer::Kind::kNfc);
  if (type != "Sequence")
    return InvalidArgument("type \"%s\" is not supported (known: NFC, Sequence)", type);
  SPIN_ASSIGN_OR_RETURN(const Json* list, ArrayField(*json, "normalizers"));
  Normalizer result;
  for (const Json& item : *list) {
    SPIN_ASSIGN_OR_RETURN(const Normalizer inner, ParseNormalizer(&item, depth + 1));
    if (inner.kind() != Normalizer::Kind::kNone) result = inner;  // NFC twice is NFC
  }
  return result;
}

// Options of BPE that byte-level vocabularies do not use: refused, rather than silently ignored.
absl::Status CheckUnusedOptions(const Json& model) {
  for (const char* name : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const Json* field = FieldOrNull(model, name);
    if (field != nullptr && *field != "") return InvalidArgument("\"%s\" is not supported", name);
  }
  const Json* dropout = FieldOrNull(model, "dropout");
  if (dropout != nullptr && *dropout != 0) return InvalidArgument("\"dropout\" is not supported");
  SPIN_ASSIGN_OR_RETURN(const bool byte_fallback, BoolField(model, "byte_fallback", false));
  if (byte_fallback) return InvalidArgument("\"byte_fallback\" is not supported");
  return absl::OkStatus();
}

// "a b", or ["a", "b"].
absl::StatusOr<std::pair<std::string, std::string>> ParseMerge(const Json& json, std::size_t rank) {
  if (json.is_array() && json.size() == 2 && json[0].is_string() && json[1].is_string()) {
    return std::pair(json[0].get<std::string>(), json[1].get<std::string>());
  }
  if (json.is_string()) {
    const std::string& text = json.get_ref<const std::string&>();
    const std::size_t space = text.find(' ');
    if (space != std::string::npos && text.find(' ', space + 1) == std::string::npos) {
      return std::pair(text.substr(0, space), text.substr(space + 1));
    }
  }
  return InvalidArgument("merge %d is neither \"a b\" nor [\"a\", \"b\"]", rank);
}

absl::StatusOr<BpeModel> ParseModel(const Json& json) {
  // Files from before the field existed have no "type".
  const Json* type = FieldOrNull(json, "type");
  if (type != nullptr && *type != "BPE")
    return InvalidArgument("its type is not \"BPE\", which alone is supported");
  SPIN_RETURN_IF_ERROR(CheckUnusedOptions(json));
  BpeModel::Spec spec;
  SPIN_ASSIGN_OR_RETURN(spec.ignore_merges, BoolField(json, "ignore_merges", false));
  SPIN_ASSIGN_OR_RETURN(spec.fuse_unk, BoolField(json, "fuse_unk", false));
  if (FieldOrNull(json, "unk_token") != nullptr) {
    SPIN_ASSIGN_OR_RETURN(spec.unk_token, StringField(json, "unk_token"));
  }
  SPIN_ASSIGN_OR_RETURN(const Json* vocab, ObjectField(json, "vocab"));
  spec.vocab.reserve(vocab->size());
  for (const auto& [content, value] : vocab->items()) {
    if (!value.is_number_unsigned() || value.get<uint64_t>() >= BpeModel::kMaxTokens) {
      return InvalidArgument("the id of \"%s\" must be a whole number from 0 to %d", content,
                             BpeModel::kMaxTokens - 1);
    }
    spec.vocab.emplace_back(content, value.get<TokenId>());
  }
  SPIN_ASSIGN_OR_RETURN(const Json* merges, ArrayField(json, "merges"));
  spec.merges.reserve(merges->size());
  for (const Json& merge : *merges) {
    if (merge.is_string() && merge.get_ref<const std::string&>().starts_with("#version")) continue;
    SPIN_ASSIGN_OR_RETURN(auto pair, ParseMerge(merge, spec.merges.size()));
    spec.merges.push_back(std::move(pair));
  }
  return BpeModel::Create(spec);
}

absl::StatusOr<AddedToken> ParseAddedToken(const Json& json, const BpeModel& model) {
  AddedToken token;
  SPIN_ASSIGN_OR_RETURN(token.content, StringField(json, "content"));
  const Json* id = FieldOrNull(json, "id");
  if (id == nullptr) return InvalidArgument("\"%s\" has no id", token.content);
  SPIN_ASSIGN_OR_RETURN(const int64_t value, IndexValue(*id, "the id of \"" + token.content + "\"",
                                                        BpeModel::kMaxTokens));
  token.id = static_cast<TokenId>(value);
  SPIN_ASSIGN_OR_RETURN(token.single_word, BoolField(json, "single_word", false));
  SPIN_ASSIGN_OR_RETURN(token.lstrip, BoolField(json, "lstrip", false));
  SPIN_ASSIGN_OR_RETURN(token.rstrip, BoolField(json, "rstrip", false));
  SPIN_ASSIGN_OR_RETURN(token.special, BoolField(json, "special", false));
  SPIN_ASSIGN_OR_RETURN(token.normalized, BoolField(json, "normalized", !token.special));
  const std::optional<TokenId> in_model = model.Find(token.content);
  if (in_model.has_value() && *in_model != token.id) {
    return InvalidArgument("\"%s\" has id %d here and %d in the vocabulary", token.content,
                           token.id, *in_model);
  }
  if (!in_model.has_value() && model.HasToken(token.id)) {
    return InvalidArgument("\"%s\" has id %d, which the vocabulary gives to another token",
                           token.content, token.id);
  }
  return token;
}

absl::StatusOr<std::vector<AddedToken>> ParseAddedTokens(const Json& file, const BpeModel& model) {
  std::vector<AddedToken> tokens;
  if (FieldOrNull(file, "added_tokens") == nullptr) return tokens;
  SPIN_ASSIGN_OR_RETURN(const Json* list, ArrayField(file, "added_tokens"));
  std::unordered_map<std::string, TokenId> ids;
  std::unordered_map<TokenId, std::string> contents;
  for (const Json& item : *list) {
    SPIN_ASSIGN_OR_RETURN(AddedToken token, ParseAddedToken(item, model));
    const bool new_content = ids.emplace(token.content, token.id).second;
    const bool new_id = contents.emplace(token.id, token.content).second;
    if (new_content != new_id) {
      return InvalidArgument("\"%s\" (id %d) clashes with another added token", token.content,
                             token.id);
    }
    if (new_content) tokens.push_back(std::move(token));
  }
  return tokens;
}

bool HasToken(const TokenizerParts& parts, int64_t id) {
  const std::vector<AddedToken>& added = parts.added_tokens.tokens();
  return parts.model.HasToken(static_cast<TokenId>(id)) ||
         std::any_of(added.begin(), added.end(),
                     [id](const AddedToken& token) { return token.id == id; });
}

// One "TemplateProcessing": what its "single" template puts around the text goes around what is
// there already.
absl::Status AddTemplate(const Json& json, TokenizerParts* parts) {
  SPIN_ASSIGN_OR_RETURN(const Json* pieces, ArrayField(json, "single"));
  std::vector<TokenId> prefix;
  std::vector<TokenId> suffix;
  bool seen_text = false;
  for (const Json& piece : *pieces) {
    if (FieldOrNull(piece, "Sequence") != nullptr) {
      if (std::exchange(seen_text, true)) return InvalidArgument("the template repeats the text");
      continue;
    }
    SPIN_ASSIGN_OR_RETURN(const Json* special, ObjectField(piece, "SpecialToken"));
    SPIN_ASSIGN_OR_RETURN(const std::string name, StringField(*special, "id"));
    SPIN_ASSIGN_OR_RETURN(const Json* specials, ObjectField(json, "special_tokens"));
    SPIN_ASSIGN_OR_RETURN(const Json* entry, ObjectField(*specials, name.c_str()));
    SPIN_ASSIGN_OR_RETURN(const Json* ids, ArrayField(*entry, "ids"));
    for (const Json& id : *ids) {
      SPIN_ASSIGN_OR_RETURN(const int64_t value,
                            IndexValue(id, "an id of \"" + name + "\"", BpeModel::kMaxTokens));
      if (!HasToken(*parts, value))
        return InvalidArgument("\"%s\" has id %d, which no token has", name, value);
      (seen_text ? suffix : prefix).push_back(static_cast<TokenId>(value));
    }
  }
  if (!seen_text) return InvalidArgument("the template leaves the text out");
  if (prefix.size() + suffix.size() > kMaxTemplateIds) {
    return InvalidArgument("the template adds more than %d tokens", kMaxTemplateIds);
  }
  parts->prefix.insert(parts->prefix.begin(), prefix.begin(), prefix.end());
  parts->suffix.insert(parts->suffix.end(), suffix.begin(), suffix.end());
  return absl::OkStatus();
}

absl::Status ParsePostProcessor(const Json* json, int depth, TokenizerParts* parts) {
  if (json == nullptr) return absl::OkStatus();
  if (depth > kMaxDepth) return InvalidArgument("Sequences are nested deeper than %d", kMaxDepth);
  SPIN_ASSIGN_OR_RETURN(const std::string type, StringField(*json, "type"));
  if (type == "ByteLevel") return absl::OkStatus();  // only moves offsets, which nobody asks for
  if (type == "TemplateProcessing") return AddTemplate(*json, parts);
  if (type != "Sequence") {
    return InvalidArgument(
        "type \"%s\" is not supported (known: ByteLevel, TemplateProcessing, Sequence)", type);
  }
  SPIN_ASSIGN_OR_RETURN(const Json* list, ArrayField(*json, "processors"));
  for (const Json& item : *list) SPIN_RETURN_IF_ERROR(ParsePostProcessor(&item, depth + 1, parts));
  return absl::OkStatus();
}

absl::Status CheckDecoder(const Json* json) {
  if (json == nullptr) return InvalidArgument("it is missing; byte-level BPE needs ByteLevel");
  SPIN_ASSIGN_OR_RETURN(const std::string type, StringField(*json, "type"));
  if (type != "ByteLevel")
    return InvalidArgument("type \"%s\" is not supported (known: ByteLevel)", type);
  return absl::OkStatus();
}

// The value, or the error with the name of the part in front.
template <typename T>
absl::StatusOr<T> In(const char* part, absl::StatusOr<T> result) {
  if (!result.ok()) return Annotate(result.status(), part);
  return result;
}

absl::StatusOr<TokenizerParts> ParseParts(const Json& file) {
  TokenizerParts parts;
  SPIN_ASSIGN_OR_RETURN(const Json* model, ObjectField(file, "model"));
  SPIN_ASSIGN_OR_RETURN(parts.model, In("model", ParseModel(*model)));
  SPIN_ASSIGN_OR_RETURN(parts.normalizer,
                        In("normalizer", ParseNormalizer(FieldOrNull(file, "normalizer"))));
  SPIN_ASSIGN_OR_RETURN(const Json* pretokenizer, ObjectField(file, "pre_tokenizer"));
  SPIN_ASSIGN_OR_RETURN(parts.pretokenizer, In("pre_tokenizer", ParsePretokenizer(*pretokenizer)));
  SPIN_ASSIGN_OR_RETURN(std::vector<AddedToken> added,
                        In("added_tokens", ParseAddedTokens(file, parts.model)));
  parts.added_tokens = AddedTokens(std::move(added), parts.normalizer);
  const absl::Status post = ParsePostProcessor(FieldOrNull(file, "post_processor"), 0, &parts);
  if (!post.ok()) return Annotate(post, "post_processor");
  const absl::Status decoder = CheckDecoder(FieldOrNull(file, "decoder"));
  if (!decoder.ok()) return Annotate(decoder, "decoder");
  return parts;
}

}  // namespace

absl::StatusOr<TokenizerParts> ParseTokenizerJson(std::string_view text) {
  if (text.size() > kMaxFileBytes) {
    return InvalidArgument("it has %d bytes, more than the %d allowed", text.size(), kMaxFileBytes);
  }
  SPIN_ASSIGN_OR_RETURN(const Json file, ParseJsonObject(text, "tokenizer.json"));
  return ParseParts(file);
}

}  // namespace spin
