#include "models/jinja/json_text.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "models/jinja/python_repr.h"
#include "models/jinja/text.h"

namespace spin::jinja {

namespace {

class Writer {
 public:
  Writer(Context& context, const JsonStyle& style) : context_(context), style_(style) {}

  absl::Status Write(const Value& value) {
    SPIN_RETURN_IF_ERROR(context_.Step());
    if (out_.size() > kMaxStringBytes) return InvalidArgument("the JSON text is too long");
    switch (value.kind()) {
      case Kind::kNone:
        out_.append("null");
        return absl::OkStatus();
      case Kind::kBool:
        out_.append(value.bool_value() ? "true" : "false");
        return absl::OkStatus();
      case Kind::kInt:
        absl::StrAppendFormat(&out_, "%d", value.int_value());
        return absl::OkStatus();
      case Kind::kDouble:
        out_.append(Number(value.double_value()));
        return absl::OkStatus();
      case Kind::kString:
        WriteString(value.string_value());
        return absl::OkStatus();
      case Kind::kMap:
        return WriteMap(value.map());
      case Kind::kSequence:
        if (value.is_sequence(SequenceType::kList) || value.is_sequence(SequenceType::kTuple)) {
          return WriteList(value.items());
        }
        break;
      case Kind::kUndefined:
      case Kind::kObject:
        break;
    }
    return InvalidArgument("a value of type %s has no JSON form", TypeName(value));
  }

  std::string Take() { return std::move(out_); }

 private:
  static std::string Number(double value) {
    if (std::isnan(value)) return "NaN";
    if (std::isinf(value)) return value < 0 ? "-Infinity" : "Infinity";
    return FloatRepr(value);
  }

  void WriteString(std::string_view text) {
    out_.push_back('"');
    while (!text.empty()) {
      const size_t bytes = CharacterBytes(text);
      WriteCharacter(text.substr(0, bytes));
      text.remove_prefix(bytes);
    }
    out_.push_back('"');
  }

  void WriteCharacter(std::string_view character) {
    const int32_t c = CodePoint(character);
    switch (c) {
      case '"':
        out_.append("\\\"");
        return;
      case '\\':
        out_.append("\\\\");
        return;
      case '\n':
        out_.append("\\n");
        return;
      case '\r':
        out_.append("\\r");
        return;
      case '\t':
        out_.append("\\t");
        return;
      case '\b':
        out_.append("\\b");
        return;
      case '\f':
        out_.append("\\f");
        return;
      default:
        break;
    }
    if (c >= 0x20 && (c < 0x7F || !style_.ensure_ascii)) {
      out_.append(character);
    } else if (c == 0x7F) {
      out_.push_back('\x7F');
    } else if (c <= 0xFFFF) {
      absl::StrAppendFormat(&out_, "\\u%04x", c);
    } else {
      absl::StrAppendFormat(&out_, "\\u%04x\\u%04x", 0xD800 + ((c - 0x10000) >> 10),
                            0xDC00 + ((c - 0x10000) & 0x3FF));
    }
  }

  // A line break and the indentation of the current level.
  void BreakLine() {
    if (!style_.indent) return;
    out_.push_back('\n');
    for (int i = 0; i < level_; ++i) out_.append(*style_.indent);
  }

  absl::Status WriteList(const ValueList& items) {
    if (items.empty()) {
      out_.append("[]");
      return absl::OkStatus();
    }
    out_.push_back('[');
    ++level_;
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out_.append(style_.item_separator);
      BreakLine();
      SPIN_RETURN_IF_ERROR(Write(items[i]));
    }
    --level_;
    BreakLine();
    out_.push_back(']');
    return absl::OkStatus();
  }

  static absl::StatusOr<std::string> KeyText(const Value& key) {
    if (key.is_string()) return key.string_value();
    if (key.is_none()) return std::string("null");
    if (key.is_bool()) return std::string(key.bool_value() ? "true" : "false");
    if (key.is_int()) return absl::StrFormat("%d", key.int_value());
    return Number(key.double_value());
  }

  absl::Status Sort(std::vector<const Dict::Entry*>* entries) {
    const bool strings =
        std::all_of(entries->begin(), entries->end(),
                    [](const Dict::Entry* entry) { return entry->key.is_string(); });
    const bool numbers =
        std::all_of(entries->begin(), entries->end(),
                    [](const Dict::Entry* entry) { return entry->key.is_number(); });
    if (!strings && !numbers) return InvalidArgument("keys of different types cannot be sorted");
    std::stable_sort(entries->begin(), entries->end(),
                     [strings](const Dict::Entry* a, const Dict::Entry* b) {
                       return strings ? a->key.string_value() < b->key.string_value()
                                      : a->key.number() < b->key.number();
                     });
    return absl::OkStatus();
  }

  absl::Status WriteMap(const Dict& dict) {
    if (dict.empty()) {
      out_.append("{}");
      return absl::OkStatus();
    }
    std::vector<const Dict::Entry*> entries;
    for (const Dict::Entry& entry : dict.entries()) entries.push_back(&entry);
    if (style_.sort_keys) SPIN_RETURN_IF_ERROR(Sort(&entries));
    out_.push_back('{');
    ++level_;
    for (size_t i = 0; i < entries.size(); ++i) {
      if (i > 0) out_.append(style_.item_separator);
      BreakLine();
      SPIN_ASSIGN_OR_RETURN(const std::string key, KeyText(entries[i]->key));
      WriteString(key);
      out_.append(style_.key_separator);
      SPIN_RETURN_IF_ERROR(Write(entries[i]->value));
    }
    --level_;
    BreakLine();
    out_.push_back('}');
    return absl::OkStatus();
  }

  Context& context_;
  const JsonStyle& style_;
  std::string out_;
  int level_ = 0;
};

}  // namespace

absl::StatusOr<std::string> JsonText(Context& context, const Value& value, const JsonStyle& style) {
  Writer writer(context, style);
  SPIN_RETURN_IF_ERROR(writer.Write(value));
  std::string text = writer.Take();
  SPIN_RETURN_IF_ERROR(context.Bytes(text.size()));
  return text;
}

}  // namespace spin::jinja
