#include "models/jinja/python_repr.h"

#include <charconv>
#include <cmath>

#include "models/jinja/ast.h"
#include "models/jinja/objects.h"
#include "models/jinja/text.h"

namespace spin::jinja {

namespace {

absl::Status Append(Context& context, const Value& value, int depth, std::string* out);

absl::Status AppendDict(Context& context, const Dict& dict, int depth, std::string* out) {
  out->push_back('{');
  bool first = true;
  for (const Dict::Entry& entry : dict.entries()) {
    if (!first) out->append(", ");
    first = false;
    SPIN_RETURN_IF_ERROR(Append(context, entry.key, depth + 1, out));
    out->append(": ");
    SPIN_RETURN_IF_ERROR(Append(context, entry.value, depth + 1, out));
  }
  out->push_back('}');
  return absl::OkStatus();
}

absl::Status AppendSequence(Context& context, const Value& value, int depth, std::string* out) {
  std::string open = "[", close = "]";
  switch (value.sequence_type()) {
    case SequenceType::kList:
      break;
    case SequenceType::kTuple:
      open = "(";
      close = value.items().size() == 1 ? ",)" : ")";
      break;
    case SequenceType::kRange:
      out->append(value.sequence_repr());
      return absl::OkStatus();
    case SequenceType::kGenerator:
      out->append("<generator object>");
      return absl::OkStatus();
    case SequenceType::kDictKeys:
      open = "dict_keys([";
      close = "])";
      break;
    case SequenceType::kDictValues:
      open = "dict_values([";
      close = "])";
      break;
    case SequenceType::kDictItems:
      open = "dict_items([";
      close = "])";
      break;
  }
  out->append(open);
  bool first = true;
  for (const Value& item : value.items()) {
    if (!first) out->append(", ");
    first = false;
    SPIN_RETURN_IF_ERROR(Append(context, item, depth + 1, out));
  }
  out->append(close);
  return absl::OkStatus();
}

absl::Status AppendObject(Context& context, const Object& object, int depth, std::string* out) {
  switch (object.type()) {
    case ObjectType::kNamespace:
      out->append("<Namespace ");
      SPIN_RETURN_IF_ERROR(
          AppendDict(context, static_cast<const Namespace&>(object).attributes, depth, out));
      out->push_back('>');
      break;
    case ObjectType::kFunction:
      absl::StrAppendFormat(out, "<function %s>", static_cast<const Function&>(object).name);
      break;
    case ObjectType::kMethod:
      absl::StrAppendFormat(out, "<method %s>", static_cast<const Method&>(object).name);
      break;
    case ObjectType::kMacro:
      absl::StrAppendFormat(out, "<Macro %s>",
                            StringRepr(static_cast<const Macro&>(object).definition->name));
      break;
    case ObjectType::kLoop: {
      const auto& loop = static_cast<const Loop&>(object);
      absl::StrAppendFormat(out, "<LoopContext %d/%d>", loop.index0 + 1, loop.items.size());
      break;
    }
  }
  return absl::OkStatus();
}

absl::Status Append(Context& context, const Value& value, int depth, std::string* out) {
  SPIN_RETURN_IF_ERROR(context.Step());
  // A namespace may hold itself.
  if (depth > kMaxValueDepth) return InvalidArgument("the value is nested too deeply to print");
  if (out->size() > kMaxStringBytes) return InvalidArgument("the value is too long to print");
  switch (value.kind()) {
    case Kind::kUndefined:
      out->append("Undefined");
      break;
    case Kind::kNone:
      out->append("None");
      break;
    case Kind::kBool:
      out->append(value.bool_value() ? "True" : "False");
      break;
    case Kind::kInt:
      absl::StrAppendFormat(out, "%d", value.int_value());
      break;
    case Kind::kDouble:
      out->append(FloatRepr(value.double_value()));
      break;
    case Kind::kString:
      out->append(StringRepr(value.string_value()));
      break;
    case Kind::kSequence:
      return AppendSequence(context, value, depth, out);
    case Kind::kMap:
      return AppendDict(context, value.map(), depth, out);
    case Kind::kObject:
      return AppendObject(context, *value.object(), depth, out);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> Str(Context& context, const Value& value) {
  if (value.is_string()) return value.string_value();
  if (value.is_undefined()) return std::string();
  return Repr(context, value);
}

absl::StatusOr<std::string> Repr(Context& context, const Value& value) {
  std::string out;
  SPIN_RETURN_IF_ERROR(Append(context, value, 0, &out));
  SPIN_RETURN_IF_ERROR(context.Bytes(out.size()));
  return out;
}

std::string FloatRepr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[64];
  const auto end =
      std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::scientific);
  // "-d.ddde+XX": Python writes it out when -4 <= exponent < 16.
  const std::string scientific(buffer, end.ptr);
  const size_t e = scientific.find('e');
  const int exponent = std::stoi(scientific.substr(e + 1));
  if (exponent < -4 || exponent >= 16) return scientific;
  const auto fixed =
      std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::fixed);
  std::string text(buffer, fixed.ptr);
  if (text.find('.') == std::string::npos) text.append(".0");
  return text;
}

std::string StringRepr(std::string_view text) {
  const bool has_single = text.find('\'') != std::string_view::npos;
  const bool has_double = text.find('"') != std::string_view::npos;
  const char quote = has_single && !has_double ? '"' : '\'';
  std::string out(1, quote);
  while (!text.empty()) {
    const size_t bytes = CharacterBytes(text);
    const int32_t c = CodePoint(text);
    if (c == quote || c == '\\') {
      out.push_back('\\');
      out.push_back(static_cast<char>(c));
    } else if (c == '\n') {
      out.append("\\n");
    } else if (c == '\r') {
      out.append("\\r");
    } else if (c == '\t') {
      out.append("\\t");
    } else if (IsPrintable(c)) {
      out.append(text.substr(0, bytes));
    } else if (c <= 0xFF) {
      absl::StrAppendFormat(&out, "\\x%02x", c);
    } else if (c <= 0xFFFF) {
      absl::StrAppendFormat(&out, "\\u%04x", c);
    } else {
      absl::StrAppendFormat(&out, "\\U%08x", c);
    }
    text.remove_prefix(bytes);
  }
  out.push_back(quote);
  return out;
}

std::string TypeName(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
      return "Undefined";
    case Kind::kNone:
      return "None";
    case Kind::kBool:
      return "bool object";
    case Kind::kInt:
      return "int object";
    case Kind::kDouble:
      return "float object";
    case Kind::kString:
      return "str object";
    case Kind::kSequence:
      break;
    case Kind::kMap:
      return "dict object";
    case Kind::kObject:
      switch (value.object()->type()) {
        case ObjectType::kNamespace:
          return "namespace object";
        case ObjectType::kMacro:
          return "macro object";
        case ObjectType::kLoop:
          return "loop object";
        case ObjectType::kFunction:
        case ObjectType::kMethod:
          return "function object";
      }
  }
  switch (value.sequence_type()) {
    case SequenceType::kList:
      return "list object";
    case SequenceType::kTuple:
      return "tuple object";
    case SequenceType::kRange:
      return "range object";
    case SequenceType::kGenerator:
      return "generator object";
    default:
      return "dict view object";
  }
}

}  // namespace spin::jinja
