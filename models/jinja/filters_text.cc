// Filters of strings and scalars.
#include <charconv>
#include <cmath>
#include <iterator>
#include <optional>

#include "models/jinja/filter_functions.h"
#include "models/jinja/json_text.h"
#include "models/jinja/operators.h"
#include "models/jinja/python_repr.h"
#include "models/jinja/string_methods.h"
#include "models/jinja/text.h"

namespace spin::jinja {

namespace {

using Result = absl::StatusOr<Value>;

Result Trim(Context& context, const Value& value, const Arguments& arguments) {
  SPIN_ASSIGN_OR_RETURN(const BoundArguments bound,
                        BoundArguments::Bind("trim", arguments, {"chars"}));
  SPIN_ASSIGN_OR_RETURN(const std::string text, Str(context, value));
  SPIN_RETURN_IF_ERROR(context.Step(static_cast<int64_t>(text.size() / 64)));
  if (!bound.has(0) || bound.at(0).is_none()) {
    return context.NewString(std::string(StripSpace(text, Side::kBoth)));
  }
  SPIN_ASSIGN_OR_RETURN(const std::string characters, bound.String(0, ""));
  return context.NewString(std::string(StripCharacters(text, characters, Side::kBoth)));
}

// The title filter starts words behind white space and -({[< only, unlike str.title().
std::string FilterTitle(std::string_view text) {
  std::string out, word;
  const auto flush = [&] {
    out += Capitalize(word);
    word.clear();
  };
  for (const std::string_view c : Characters(text)) {
    const bool breaks =
        IsSpace(CodePoint(c)) || std::string_view("-({[<").find(c) != std::string_view::npos;
    if (breaks) {
      flush();
      out.append(c);
    } else {
      word.append(c);
    }
  }
  flush();
  return out;
}

std::string Escape(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '\'':
        out += "&#39;";
        break;
      case '"':
        out += "&#34;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string Same(std::string_view text) {
  return std::string(text);
}

template <std::string (*kMap)(std::string_view)>
Result MapText(Context& context, const Value& value, const Arguments& arguments) {
  SPIN_RETURN_IF_ERROR(BoundArguments::Bind("the filter", arguments, {}).status());
  SPIN_ASSIGN_OR_RETURN(const std::string text, Str(context, value));
  SPIN_RETURN_IF_ERROR(context.Step(static_cast<int64_t>(text.size() / 64)));
  return context.NewString(kMap(text));
}

Result Replace(Context& context, const Value& value, const Arguments& arguments) {
  SPIN_ASSIGN_OR_RETURN(const BoundArguments bound,
                        BoundArguments::Bind("replace", arguments, {"old", "new", "count"}, 2));
  SPIN_ASSIGN_OR_RETURN(const std::string text, Str(context, value));
  SPIN_ASSIGN_OR_RETURN(const std::string old, Str(context, bound.at(0)));
  SPIN_ASSIGN_OR_RETURN(const std::string replacement, Str(context, bound.at(1)));
  SPIN_ASSIGN_OR_RETURN(const int64_t count, bound.Integer(2, -1));
  return ReplaceText(context, text, old, replacement, count);
}

Result Center(Context& context, const Value& value, const Arguments& arguments) {
  SPIN_ASSIGN_OR_RETURN(const BoundArguments bound,
                        BoundArguments::Bind("center", arguments, {"width"}));
  SPIN_ASSIGN_OR_RETURN(const std::string text, Str(context, value));
  SPIN_ASSIGN_OR_RETURN(const int64_t width, bound.Integer(0, 80));
  return PadText(context, text, width, " ", Align::kCenter);
}

Result Indent(Context& context, const Value& value, const Arguments& arguments) {
  SPIN_ASSIGN_OR_RETURN(const BoundArguments bound,
                        BoundArguments::Bind("indent", arguments, {"width", "first", "blank"}));
  if (value.is_undefined()) return UndefinedError(value);
  if (!value.is_string()) return InvalidArgument("indent needs a string, not %s", TypeName(value));
  std::string indentation(4, ' ');
  if (bound.has(0) && bound.at(0).is_string()) {
    indentation = bound.at(0).string_value();
  } else if (bound.has(0)) {
    SPIN_ASSIGN_OR_RETURN(const int64_t width, ToInteger(bound.at(0), "width"));
    if (width > 1000) return InvalidArgument("indent is too wide");
    indentation = std::string(static_cast<size_t>(std::max<int64_t>(0, width)), ' ');
  }
  const bool first = bound.Flag(1, false);
  const bool blank = bound.Flag(2, false);
  // One more line break makes the last line count even when it is empty.
  const std::string text = value.string_value() + "\n";
  const std::vector<std::string_view> lines = SplitLines(text, /*keep_ends=*/false);
  SPIN_RETURN_IF_ERROR(context.Bytes(text.size() + lines.size() * indentation.size()));
  std::string out;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out.push_back('\n');
    const bool indented = i == 0 ? first : blank || !lines[i].empty();
    if (indented) out.append(indentation);
    out.append(lines[i]);
  }
  return Value::String(std::move(out));
}

Result ToJson(Context& context, const Value& value, const Arguments& arguments) {
  SPIN_ASSIGN_OR_RETURN(
      const BoundArguments bound,
      BoundArguments::Bind("tojson", arguments,
                           {"ensure_ascii", "indent", "separators", "sort_keys"}));
  JsonStyle style;
  style.ensure_ascii = bound.Flag(0, false);
  style.sort_keys = bound.Flag(3, false);
  if (bound.has(1) && !bound.at(1).is_none()) {
    if (bound.at(1).is_string()) {
      style.indent = bound.at(1).string_value();
    } else {
      SPIN_ASSIGN_OR_RETURN(const int64_t width, ToInteger(bound.at(1), "indent"));
      if (width > 1000) return InvalidArgument("the indent of tojson is too wide");
      style.indent = std::string(static_cast<size_t>(std::max<int64_t>(0, width)), ' ');
    }
    style.item_separator.assign(1, ',');
  }
  if (bound.has(2) && !bound.at(2).is_none()) {
    SPIN_ASSIGN_OR_RETURN(const ValueList pair, Iterate(context, bound.at(2)));
    if (pair.size() != 2 || !pair[0].is_string() || !pair[1].is_string()) {
      return InvalidArgument("the separators of tojson are two strings");
    }
    style.item_separator = pair[0].string_value();
    style.key_separator = pair[1].string_value();
  }
  SPIN_ASSIGN_OR_RETURN(std::string text, JsonText(context, value, style));
  return Value::String(std::move(text));
}

Result Default(Context&, const Value& value, const Arguments& arguments) {
  SPIN_ASSIGN_OR_RETURN(const BoundArguments bound,
                        BoundArguments::Bind("default", arguments, {"default_value", "boolean"}));
  const bool missing = value.is_undefined() || (bound.Flag(1, false) && !Truthy(value));
  if (!missing) return value;
  return bound.has(0) ? bound.at(0) : Value::String("");
}

// Python's float(text): white space around, '_' between digits, "inf" and "nan".
std::optional<double> ParseFloat(std::string_view text) {
  std::string digits;
  for (const char c : StripSpace(text, Side::kBoth)) {
    if (c != '_') digits.push_back(c);
  }
  if (digits.starts_with("+")) digits.erase(0, 1);
  double number = 0;
  const auto end = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (end.ptr != digits.data() + digits.size() || end.ec == std::errc::invalid_argument)
    return std::nullopt;
  if (end.ec == std::errc::result_out_of_range) number = std::strtod(digits.c_str(), nullptr);
  return number;
}

std::optional<int64_t> ParseInteger(std::string_view text, int base) {
  std::string digits;
  for (const char c : StripSpace(text, Side::kBoth)) {
    if (c != '_') digits.push_back(c);
  }
  if (digits.starts_with("+")) digits.erase(0, 1);
  const std::string prefix = base == 16 ? "0x" : base == 8 ? "0o" : base == 2 ? "0b" : "";
  if (!prefix.empty() && ToLower(digits).starts_with(prefix)) digits.erase(0, 2);
  int64_t number = 0;
  const auto end = std::from_chars(digits.data(), digits.data() + digits.size(), number, base);
  if (end.ec != std::errc() || end.ptr != digits.data() + digits.size()) return std::nullopt;
  return number;
}

std::optional<int64_t> Truncate(double number) {
  if (!(std::abs(number) < 9.2e18)) return std::nullopt;
  return static_cast<int64_t>(number);
}

Result ToInt(Context&, const Value& value, const Arguments& arguments) {
  SPIN_ASSIGN_OR_RETURN(const BoundArguments bound,
                        BoundArguments::Bind("int", arguments, {"default", "base"}));
  const Value missing = bound.has(0) ? bound.at(0) : Value::Int(0);
  SPIN_ASSIGN_OR_RETURN(const int64_t base, bound.Integer(1, 10));
  if (base < 2 || base > 36) return InvalidArgument("the base of int is 2 to 36");
  if (value.is_undefined()) return UndefinedError(value);
  if (value.is_integral()) return Value::Int(value.integral());
  std::optional<int64_t> number;
  if (value.is_double()) {
    number = Truncate(value.double_value());
  } else if (value.is_string()) {
    number = ParseInteger(value.string_value(), static_cast<int>(base));
    if (!number) {
      const std::optional<double> real = ParseFloat(value.string_value());
      if (real) number = Truncate(*real);
    }
  }
  return number ? Value::Int(*number) : missing;
}

Result ToFloat(Context&, const Value& value, const Arguments& arguments) {
  SPIN_ASSIGN_OR_RETURN(const BoundArguments bound,
                        BoundArguments::Bind("float", arguments, {"default"}));
  const Value missing = bound.has(0) ? bound.at(0) : Value::Double(0);
  if (value.is_undefined()) return UndefinedError(value);
  if (value.is_number()) return Value::Double(value.number());
  if (!value.is_string()) return missing;
  const std::optional<double> number = ParseFloat(value.string_value());
  return number ? Value::Double(*number) : missing;
}

Result Absolute(Context&, const Value& value, const Arguments& arguments) {
  SPIN_RETURN_IF_ERROR(BoundArguments::Bind("abs", arguments, {}).status());
  if (value.is_undefined()) return UndefinedError(value);
  if (value.is_double()) return Value::Double(std::abs(value.double_value()));
  if (!value.is_integral()) return InvalidArgument("abs needs a number, not %s", TypeName(value));
  return value.integral() < 0 ? Negate(value) : Result(Value::Int(value.integral()));
}

// Half to even, on the decimal digits, as Python rounds.
double RoundTo(double number, int precision) {
  if (!std::isfinite(number)) return number;
  if (precision < 0) {
    const double scale = std::pow(10.0, -precision);
    return std::nearbyint(number / scale) * scale;
  }
  return std::strtod(absl::StrFormat("%.*f", precision, number).c_str(), nullptr);
}

Result Round(Context& context, const Value& value, const Arguments& arguments) {
  SPIN_ASSIGN_OR_RETURN(const BoundArguments bound,
                        BoundArguments::Bind("round", arguments, {"precision", "method"}));
  if (value.is_undefined()) return UndefinedError(value);
  if (!value.is_number()) return InvalidArgument("round needs a number, not %s", TypeName(value));
  SPIN_ASSIGN_OR_RETURN(const int64_t precision, bound.Integer(0, 0));
  SPIN_ASSIGN_OR_RETURN(const std::string method, bound.String(1, "common"));
  if (precision < -300 || precision > 300)
    return InvalidArgument("the precision of round is too large");
  if (method == "common") {
    if (value.is_integral() && precision >= 0) return Value::Int(value.integral());
    const double rounded = RoundTo(value.number(), static_cast<int>(precision));
    if (value.is_double()) return Value::Double(rounded);
    const std::optional<int64_t> integer = Truncate(rounded);
    return integer ? Result(Value::Int(*integer))
                   : InvalidArgument("round makes too large a number");
  }
  if (method != "ceil" && method != "floor") {
    return InvalidArgument("the method of round is common, ceil or floor");
  }
  SPIN_ASSIGN_OR_RETURN(const Value scale,
                        Arithmetic(context, "**", Value::Int(10), Value::Int(precision)));
  const double scaled = value.number() * scale.number();
  const double whole = method == "ceil" ? std::ceil(scaled) : std::floor(scaled);
  return Value::Double(whole / scale.number());
}

Result WordCount(Context& context, const Value& value, const Arguments& arguments) {
  SPIN_RETURN_IF_ERROR(BoundArguments::Bind("wordcount", arguments, {}).status());
  SPIN_ASSIGN_OR_RETURN(const std::string text, Str(context, value));
  int64_t words = 0;
  bool in_word = false;
  for (const std::string_view c : Characters(text)) {
    const bool word = IsLetter(CodePoint(c)) || IsDigit(CodePoint(c)) || c == "_";
    words += word && !in_word ? 1 : 0;
    in_word = word;
  }
  return Value::Int(words);
}

}  // namespace

const NamedFilter* TextFilters(size_t* count) {
  static constexpr NamedFilter kFilters[] = {
      {"abs", Absolute},
      {"capitalize", MapText<Capitalize>},
      {"center", Center},
      {"d", Default},
      {"default", Default},
      {"e", MapText<Escape>},
      {"escape", MapText<Escape>},
      {"float", ToFloat},
      {"forceescape", MapText<Escape>},
      {"indent", Indent},
      {"int", ToInt},
      {"lower", MapText<ToLower>},
      {"replace", Replace},
      {"round", Round},
      {"safe", MapText<Same>},
      {"string", MapText<Same>},
      {"title", MapText<FilterTitle>},
      {"tojson", ToJson},
      {"trim", Trim},
      {"upper", MapText<ToUpper>},
      {"wordcount", WordCount},
  };
  *count = std::size(kFilters);
  return kFilters;
}

}  // namespace spin::jinja
