#include "models/jinja/string_methods.h"

#include <algorithm>
#include <map>
#include <optional>

#include "common/check.h"
#include "models/jinja/operators.h"
#include "models/jinja/python_repr.h"
#include "models/jinja/string_split.h"
#include "models/jinja/text.h"

namespace spin::jinja {

namespace {

using MethodFunction = absl::StatusOr<Value> (*)(Context&, const std::string&, const Arguments&);

template <Side kSide>
absl::StatusOr<Value> Strip(Context& context, const std::string& self, const Arguments& arguments) {
  SPIN_ASSIGN_OR_RETURN(const BoundArguments bound,
                        BoundArguments::Bind("strip", arguments, {"chars"}));
  if (!bound.has(0) || bound.at(0).is_none()) {
    return context.NewString(std::string(StripSpace(self, kSide)));
  }
  SPIN_ASSIGN_OR_RETURN(const std::string characters, bound.String(0, ""));
  SPIN_RETURN_IF_ERROR(context.Step(static_cast<int64_t>(characters.size())));
  return context.NewString(std::string(StripCharacters(self, characters, kSide)));
}

template <std::string (*kMap)(std::string_view)>
absl::StatusOr<Value> MapText(Context& context, const std::string& self,
                              const Arguments& arguments) {
  SPIN_RETURN_IF_ERROR(BoundArguments::Bind("the method", arguments, {}).status());
  return context.NewString(kMap(self));
}

// All characters satisfy the predicate, and there is one.
template <bool (*kHolds)(int32_t)>
absl::StatusOr<Value> AllCharacters(Context&, const std::string& self, const Arguments& arguments) {
  SPIN_RETURN_IF_ERROR(BoundArguments::Bind("the method", arguments, {}).status());
  for (const std::string_view c : Characters(self)) {
    if (!kHolds(CodePoint(c))) return Value::Bool(false);
  }
  return Value::Bool(!self.empty());
}

bool IsAlphanumeric(int32_t c) {
  return IsLetter(c) || IsDigit(c);
}

template <bool kUpper>
absl::StatusOr<Value> OneCase(Context&, const std::string& self, const Arguments& arguments) {
  SPIN_RETURN_IF_ERROR(BoundArguments::Bind("the method", arguments, {}).status());
  bool any = false;
  for (const std::string_view c : Characters(self)) {
    const int32_t code_point = CodePoint(c);
    if (kUpper ? IsLower(code_point) : IsUpper(code_point)) return Value::Bool(false);
    any |= kUpper ? IsUpper(code_point) : IsLower(code_point);
  }
  return Value::Bool(any);
}

// self[start:end] by arguments `first` and the next; empty when the range is.
absl::StatusOr<std::optional<std::string>> Part(Context& context, const std::string& self,
                                                const BoundArguments& bound, size_t first) {
  if (!bound.has(first)) return std::optional<std::string>(self);
  SPIN_ASSIGN_OR_RETURN(const int64_t start, bound.Integer(first, 0));
  if (start > static_cast<int64_t>(CharacterCount(self))) return std::optional<std::string>();
  SPIN_ASSIGN_OR_RETURN(
      const Value part,
      Slice(context, Value::String(self), bound.at(first),
            bound.has(first + 1) ? bound.at(first + 1) : Value::None(), Value::None()));
  return std::optional<std::string>(part.string_value());
}

template <bool kAtStart>
absl::StatusOr<Value> HasAffix(Context& context, const std::string& self,
                               const Arguments& arguments) {
  SPIN_ASSIGN_OR_RETURN(const BoundArguments bound,
                        BoundArguments::Bind(kAtStart ? "startswith" : "endswith", arguments,
                                             {"affix", "start", "end"}, 1));
  SPIN_ASSIGN_OR_RETURN(const std::optional<std::string> part, Part(context, self, bound, 1));
  const Value& affix = bound.at(0);
  const ValueList candidates =
      affix.is_sequence(SequenceType::kTuple) ? affix.items() : ValueList{affix};
  for (const Value& candidate : candidates) {
    if (candidate.is_undefined()) return UndefinedError(candidate);
    if (!candidate.is_string()) {
      return InvalidArgument("startswith and endswith need a string or a tuple of strings, not %s",
                             TypeName(candidate));
    }
    const std::string& text = candidate.string_value();
    if (part && (kAtStart ? part->starts_with(text) : part->ends_with(text)))
      return Value::Bool(true);
  }
  return Value::Bool(false);
}

enum class Search { kFind, kFindLast, kIndex, kIndexLast };

template <Search kSearch>
absl::StatusOr<Value> Find(Context& context, const std::string& self, const Arguments& arguments) {
  SPIN_ASSIGN_OR_RETURN(const BoundArguments bound,
                        BoundArguments::Bind("find", arguments, {"text", "start", "end"}, 1));
  SPIN_ASSIGN_OR_RETURN(const std::string wanted, bound.String(0, ""));
  SPIN_ASSIGN_OR_RETURN(const std::optional<std::string> part, Part(context, self, bound, 1));
  SPIN_ASSIGN_OR_RETURN(int64_t start, bound.Integer(1, 0));
  const bool last = kSearch == Search::kFindLast || kSearch == Search::kIndexLast;
  const size_t at = !part ? std::string::npos : last ? part->rfind(wanted) : part->find(wanted);
  if (at == std::string::npos) {
    if (kSearch == Search::kFind || kSearch == Search::kFindLast) return Value::Int(-1);
    return InvalidArgument("the text of 'index' was not found");
  }
  if (start < 0) start = std::max<int64_t>(0, start + static_cast<int64_t>(CharacterCount(self)));
  return Value::Int(start +
                    static_cast<int64_t>(CharacterCount(std::string_view(*part).substr(0, at))));
}

absl::StatusOr<Value> Count(Context& context, const std::string& self, const Arguments& arguments) {
  SPIN_ASSIGN_OR_RETURN(const BoundArguments bound,
                        BoundArguments::Bind("count", arguments, {"text", "start", "end"}, 1));
  SPIN_ASSIGN_OR_RETURN(const std::string wanted, bound.String(0, ""));
  SPIN_ASSIGN_OR_RETURN(const std::optional<std::string> part, Part(context, self, bound, 1));
  if (!part) return Value::Int(0);
  if (wanted.empty()) return Value::Int(static_cast<int64_t>(CharacterCount(*part)) + 1);
  int64_t count = 0;
  for (size_t at = part->find(wanted); at != std::string::npos;
       at = part->find(wanted, at + wanted.size())) {
    ++count;
  }
  return Value::Int(count);
}

absl::StatusOr<Value> Replace(Context& context, const std::string& self,
                              const Arguments& arguments) {
  SPIN_ASSIGN_OR_RETURN(const BoundArguments bound,
                        BoundArguments::Bind("replace", arguments, {"old", "new", "count"}, 2));
  for (size_t i = 0; i < 2; ++i) {
    if (bound.at(i).is_none()) return InvalidArgument("replace needs strings, not None");
  }
  SPIN_ASSIGN_OR_RETURN(const std::string old, bound.String(0, ""));
  SPIN_ASSIGN_OR_RETURN(const std::string replacement, bound.String(1, ""));
  SPIN_ASSIGN_OR_RETURN(const int64_t count, bound.Integer(2, -1));
  return ReplaceText(context, self, old, replacement, count);
}

absl::StatusOr<Value> Join(Context& context, const std::string& self, const Arguments& arguments) {
  SPIN_ASSIGN_OR_RETURN(const BoundArguments bound,
                        BoundArguments::Bind("join", arguments, {"items"}, 1));
  SPIN_ASSIGN_OR_RETURN(const ValueList items, Iterate(context, bound.at(0)));
  return JoinText(context, self, items, /*convert=*/false);
}

template <bool kPrefix>
absl::StatusOr<Value> RemoveAffix(Context& context, const std::string& self,
                                  const Arguments& arguments) {
  SPIN_ASSIGN_OR_RETURN(const BoundArguments bound,
                        BoundArguments::Bind("removeprefix", arguments, {"affix"}, 1));
  SPIN_ASSIGN_OR_RETURN(const std::string affix, bound.String(0, ""));
  std::string_view text = self;
  if (kPrefix && text.starts_with(affix)) text.remove_prefix(affix.size());
  if (!kPrefix && text.ends_with(affix)) text.remove_suffix(affix.size());
  return context.NewString(std::string(text));
}

template <Align kAlign>
absl::StatusOr<Value> Pad(Context& context, const std::string& self, const Arguments& arguments) {
  SPIN_ASSIGN_OR_RETURN(const BoundArguments bound,
                        BoundArguments::Bind("center", arguments, {"width", "fill"}, 1));
  SPIN_ASSIGN_OR_RETURN(const int64_t width, ToInteger(bound.at(0), "width"));
  SPIN_ASSIGN_OR_RETURN(const std::string fill, bound.String(1, " "));
  if (CharacterCount(fill) != 1) return InvalidArgument("the fill must be one character");
  return PadText(context, self, width, fill, kAlign);
}

const std::map<std::string_view, MethodFunction>& Methods() {
  static const auto* const kMethods = new std::map<std::string_view, MethodFunction>{
      {"strip", Strip<Side::kBoth>},
      {"lstrip", Strip<Side::kLeft>},
      {"rstrip", Strip<Side::kRight>},
      {"upper", MapText<ToUpper>},
      {"lower", MapText<ToLower>},
      {"title", MapText<TitleCase>},
      {"capitalize", MapText<Capitalize>},
      {"isspace", AllCharacters<IsSpace>},
      {"isalpha", AllCharacters<IsLetter>},
      {"isdigit", AllCharacters<IsDigit>},
      {"isdecimal", AllCharacters<IsDigit>},
      {"isalnum", AllCharacters<IsAlphanumeric>},
      {"isupper", OneCase<true>},
      {"islower", OneCase<false>},
      {"startswith", HasAffix<true>},
      {"endswith", HasAffix<false>},
      {"find", Find<Search::kFind>},
      {"rfind", Find<Search::kFindLast>},
      {"index", Find<Search::kIndex>},
      {"rindex", Find<Search::kIndexLast>},
      {"count", Count},
      {"replace", Replace},
      {"join", Join},
      {"removeprefix", RemoveAffix<true>},
      {"removesuffix", RemoveAffix<false>},
      {"center", Pad<Align::kCenter>},
      {"ljust", Pad<Align::kLeft>},
      {"rjust", Pad<Align::kRight>},
      {"split", Split},
      {"rsplit", SplitRight},
      {"splitlines", SplitIntoLines},
      {"partition", Partition},
      {"rpartition", PartitionRight},
  };
  return *kMethods;
}

}  // namespace

bool IsStringMethod(std::string_view name) {
  return Methods().contains(name);
}

absl::StatusOr<Value> CallStringMethod(Context& context, const Value& self, std::string_view name,
                                       const Arguments& arguments) {
  const auto it = Methods().find(name);
  SPIN_CHECK(it != Methods().end());
  // Work grows with the text: a step for every 64 bytes.
  SPIN_RETURN_IF_ERROR(context.Step(static_cast<int64_t>(self.string_value().size() / 64)));
  return it->second(context, self.string_value(), arguments);
}

absl::StatusOr<Value> ReplaceText(Context& context, std::string_view text, std::string_view old,
                                  std::string_view replacement, int64_t count) {
  std::string out;
  size_t at = 0;
  while (count != 0) {
    const size_t found = text.find(old, at);
    if (found == std::string_view::npos) break;
    if (out.size() + replacement.size() > kMaxStringBytes) {
      return InvalidArgument("replace makes too long a text");
    }
    out.append(text.substr(at, found - at)).append(replacement);
    at = found + old.size();
    --count;
    if (!old.empty()) continue;
    // An empty text stands before every character and at the end.
    if (at == text.size()) break;
    const size_t bytes = CharacterBytes(text.substr(at));
    out.append(text.substr(at, bytes));
    at += bytes;
  }
  out.append(text.substr(at));
  return context.NewString(std::move(out));
}

absl::StatusOr<Value> JoinText(Context& context, std::string_view separator, const ValueList& items,
                               bool convert) {
  std::string out;
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out.append(separator);
    if (out.size() > kMaxStringBytes) return InvalidArgument("join makes too long a text");
    if (items[i].is_string()) {
      out.append(items[i].string_value());
    } else if (convert) {
      SPIN_ASSIGN_OR_RETURN(const std::string text, Str(context, items[i]));
      out.append(text);
    } else {
      return InvalidArgument("join needs strings; item %d is %s", i, TypeName(items[i]));
    }
  }
  return context.NewString(std::move(out));
}

absl::StatusOr<Value> PadText(Context& context, std::string_view text, int64_t width,
                              std::string_view fill, Align align) {
  const int64_t length = static_cast<int64_t>(CharacterCount(text));
  const int64_t missing = std::max<int64_t>(0, width - length);
  if (missing > static_cast<int64_t>(kMaxStringBytes / 4))
    return InvalidArgument("the width is too large");
  int64_t left = align == Align::kRight ? missing : 0;
  // Python puts the odd one out to the left when both the padding and the width are odd.
  if (align == Align::kCenter) left = missing / 2 + (missing & width & 1);
  std::string out;
  for (int64_t i = 0; i < left; ++i) out.append(fill);
  out.append(text);
  for (int64_t i = left; i < missing; ++i) out.append(fill);
  return context.NewString(std::move(out));
}

}  // namespace spin::jinja
