#include "models/jinja/string_split.h"

#include <algorithm>
#include <string_view>

#include "models/jinja/text.h"

namespace spin::jinja {

namespace {

using Pieces = std::vector<std::string_view>;

// At runs of white space; at most `limit` cuts (negative: any number). One pass over the
// characters.
Pieces SplitAtSpace(std::string_view text, int64_t limit, bool from_right) {
  const Side near = from_right ? Side::kRight : Side::kLeft;
  Pieces characters = Characters(StripSpace(text, near));
  if (from_right) std::reverse(characters.begin(), characters.end());
  Pieces pieces;
  for (size_t i = 0; i < characters.size();) {
    size_t end = i;
    if (limit == 0) {
      end = characters.size();
    } else {
      while (end < characters.size() && !IsSpace(CodePoint(characters[end]))) ++end;
    }
    // Neighbours in memory: the piece runs from the lower of its two ends.
    const std::string_view first = characters[i], last = characters[end - 1];
    const char* begin = std::min(first.data(), last.data());
    const char* stop = std::max(first.data() + first.size(), last.data() + last.size());
    pieces.emplace_back(begin, static_cast<size_t>(stop - begin));
    --limit;
    i = end;
    while (i < characters.size() && IsSpace(CodePoint(characters[i]))) ++i;
  }
  if (from_right) std::reverse(pieces.begin(), pieces.end());
  return pieces;
}

Pieces SplitAt(std::string_view text, std::string_view separator, int64_t limit, bool from_right) {
  Pieces pieces;
  while (limit != 0) {
    const size_t at = from_right ? text.rfind(separator) : text.find(separator);
    if (at == std::string_view::npos) break;
    const std::string_view behind = text.substr(at + separator.size());
    pieces.push_back(from_right ? behind : text.substr(0, at));
    text = from_right ? text.substr(0, at) : behind;
    --limit;
  }
  pieces.push_back(text);
  if (from_right) std::reverse(pieces.begin(), pieces.end());
  return pieces;
}

absl::StatusOr<Value> ToList(Context& context, const Pieces& pieces) {
  ValueList items;
  items.reserve(pieces.size());
  for (const std::string_view piece : pieces) {
    SPIN_ASSIGN_OR_RETURN(Value item, context.NewString(std::string(piece)));
    items.push_back(std::move(item));
  }
  return context.NewList(std::move(items));
}

absl::StatusOr<Value> SplitFrom(Context& context, const std::string& self,
                                const Arguments& arguments, bool from_right) {
  SPIN_ASSIGN_OR_RETURN(const BoundArguments bound,
                        BoundArguments::Bind("split", arguments, {"sep", "maxsplit"}));
  SPIN_ASSIGN_OR_RETURN(const int64_t limit, bound.Integer(1, -1));
  if (!bound.has(0) || bound.at(0).is_none()) {
    return ToList(context, SplitAtSpace(self, limit, from_right));
  }
  SPIN_ASSIGN_OR_RETURN(const std::string separator, bound.String(0, ""));
  if (separator.empty()) return InvalidArgument("split needs a separator that is not empty");
  return ToList(context, SplitAt(self, separator, limit, from_right));
}

absl::StatusOr<Value> PartitionFrom(Context& context, const std::string& self,
                                    const Arguments& arguments, bool from_right) {
  SPIN_ASSIGN_OR_RETURN(const BoundArguments bound,
                        BoundArguments::Bind("partition", arguments, {"sep"}, 1));
  SPIN_ASSIGN_OR_RETURN(const std::string separator, bound.String(0, ""));
  if (separator.empty()) return InvalidArgument("partition needs a separator that is not empty");
  const size_t at = from_right ? self.rfind(separator) : self.find(separator);
  std::string parts[3];
  if (at == std::string::npos) {
    parts[from_right ? 2 : 0] = self;
  } else {
    parts[0] = self.substr(0, at);
    parts[1] = separator;
    parts[2] = self.substr(at + separator.size());
  }
  SPIN_RETURN_IF_ERROR(context.Bytes(self.size()));
  return context.NewSequence(
      SequenceType::kTuple,
      {Value::String(parts[0]), Value::String(parts[1]), Value::String(parts[2])});
}

}  // namespace

absl::StatusOr<Value> Split(Context& context, const std::string& self, const Arguments& arguments) {
  return SplitFrom(context, self, arguments, /*from_right=*/false);
}

absl::StatusOr<Value> SplitRight(Context& context, const std::string& self,
                                 const Arguments& arguments) {
  return SplitFrom(context, self, arguments, /*from_right=*/true);
}

absl::StatusOr<Value> SplitIntoLines(Context& context, const std::string& self,
                                     const Arguments& arguments) {
  SPIN_ASSIGN_OR_RETURN(const BoundArguments bound,
                        BoundArguments::Bind("splitlines", arguments, {"keepends"}));
  return ToList(context, SplitLines(self, bound.Flag(0, false)));
}

absl::StatusOr<Value> Partition(Context& context, const std::string& self,
                                const Arguments& arguments) {
  return PartitionFrom(context, self, arguments, /*from_right=*/false);
}

absl::StatusOr<Value> PartitionRight(Context& context, const std::string& self,
                                     const Arguments& arguments) {
  return PartitionFrom(context, self, arguments, /*from_right=*/true);
}

}  // namespace spin::jinja
