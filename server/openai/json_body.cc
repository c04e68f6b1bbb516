#include "server/openai/json_body.h"

#include <cstdint>
#include <vector>

namespace spin {
namespace {

// Comparisons of member names that one text may cost: half a second at worst.
constexpr uint64_t kMaxMemberWork = 100'000'000;

// Walks the brackets before anything is built. Also accepts what is no JSON: the parser says what is wrong with it.
absl::Status CheckShape(std::string_view text) {
  std::vector<uint64_t> members;  // of the containers that are open
  uint64_t work = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
      continue;
    }
    if (c == '"') in_string = true;
    if (c == '[' || c == '{') {
      members.push_back(0);
      if (members.size() > kMaxJsonDepth) {
        return InvalidArgument("The JSON is nested deeper than %d levels (at byte %d).",
                               kMaxJsonDepth, i + 1);
      }
    }
    if ((c == ']' || c == '}') && !members.empty()) members.pop_back();
    if (c == ':' && !members.empty()) {
      work += ++members.back();
      if (work > kMaxMemberWork) {
        return InvalidArgument("The JSON has objects with too many members (at byte %d).", i + 1);
      }
    }
  }
  return absl::OkStatus();
}

// "[json.exception.parse_error.101] parse error at line 1, column 2: ..." without the bracket.
std::string Readable(const std::string& what) {
  const std::size_t end = what.find("] ");
  return end == std::string::npos ? what : what.substr(end + 2);
}

}  // namespace

absl::StatusOr<Json> ParseJson(std::string_view text) {
  SPIN_RETURN_IF_ERROR(CheckShape(text));
  try {
    return Json::parse(text);
  } catch (const Json::exception& error) {
    return InvalidArgument("The body is not valid JSON: %s", Readable(error.what()));
  }
}

absl::StatusOr<Json> ParseJsonBody(std::string_view text) {
  SPIN_ASSIGN_OR_RETURN(Json value, ParseJson(text));
  if (!value.is_object()) {
    return InvalidArgument("The body must be a JSON object, not %s.", value.type_name());
  }
  return value;
}

std::string DumpJson(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

bool IsUtf8(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const int length = lead < 0x80   ? 1
                       : lead < 0xC2 ? 0
                       : lead < 0xE0 ? 2
                       : lead < 0xF0 ? 3
                       : lead < 0xF5 ? 4
                                     : 0;
    if (length == 0 || i + static_cast<std::size_t>(length) > text.size()) return false;
    for (int k = 1; k < length; ++k) {
      const auto c = static_cast<unsigned char>(text[i + static_cast<std::size_t>(k)]);
      if ((c & 0xC0) != 0x80) return false;
      if (k > 1) continue;
      if ((lead == 0xE0 && c < 0xA0) || (lead == 0xED && c >= 0xA0)) return false;
      if ((lead == 0xF0 && c < 0x90) || (lead == 0xF4 && c >= 0x90)) return false;
    }
    i += static_cast<std::size_t>(length);
  }
  return true;
}

}  // namespace spin
