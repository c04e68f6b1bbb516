// Filters that compare and order items.
#include <algorithm>
#include <iterator>

#include "models/jinja/filter_functions.h"
#include "models/jinja/operators.h"
#include "models/jinja/python_repr.h"
#include "models/jinja/text.h"

namespace spin::jinja {

namespace {

using Result = absl::StatusOr<Value>;

// An item and what it is compared by.
struct Keyed {
  Value key;
  Value item;
};

// Strings compare without case unless asked otherwise.
Value FoldCase(const Value& value, bool case_sensitive) {
  return value.is_string() && !case_sensitive ? Value::String(ToLower(value.string_value()))
                                              : value;
}

absl::StatusOr<std::vector<Keyed>> WithKeys(const ValueList& items, const Value& attribute,
                                            bool case_sensitive) {
  std::vector<Keyed> keyed;
  keyed.reserve(items.size());
  for (const Value& item : items) {
    Value key = item;
    if (!attribute.is_undefined() && !attribute.is_none()) {
      SPIN_ASSIGN_OR_RETURN(key, AttributePath(item, attribute));
    }
    keyed.push_back({FoldCase(key, case_sensitive), item});
  }
  return keyed;
}

// "a,b" orders by a, then by b: the key is a tuple.
absl::StatusOr<std::vector<Keyed>> WithSortKeys(const ValueList& items, const Value& attribute,
                                                bool case_sensitive) {
  if (!attribute.is_string() || attribute.string_value().find(',') == std::string::npos) {
    return WithKeys(items, attribute, case_sensitive);
  }
  std::vector<Keyed> keyed;
  for (const Value& item : items) {
    ValueList keys;
    std::string_view paths = attribute.string_value();
    for (bool more = true; more;) {
      const size_t comma = paths.find(',');
      SPIN_ASSIGN_OR_RETURN(
          const Value key, AttributePath(item, Value::String(std::string(paths.substr(0, comma)))));
      keys.push_back(FoldCase(key, case_sensitive));
      more = comma != std::string_view::npos;
      if (more) paths.remove_prefix(comma + 1);
    }
    keyed.push_back({Value::Tuple(std::move(keys)), item});
  }
  return keyed;
}

// A stable merge sort by hand: comparing may fail, and std::stable_sort must not see a comparison
// that does.
absl::Status SortKeyed(Context& context, std::vector<Keyed>* items, bool reverse) {
  std::vector<Keyed> merged(items->size());
  for (size_t width = 1; width < items->size(); width *= 2) {
    for (size_t low = 0; low < items->size(); low += 2 * width) {
      const size_t middle = std::min(low + width, items->size());
      const size_t high = std::min(low + 2 * width, items->size());
      size_t left = low, right = middle;
      for (size_t out = low; out < high; ++out) {
        bool take_right = left == middle;
        if (left < middle && right < high) {
          SPIN_ASSIGN_OR_RETURN(const int order,
                                Compare(context, (*items)[right].key, (*items)[left].key));
          take_right = reverse ? order > 0 : order < 0;
        }
        merged[out] = std::move((*items)[take_right ? right++ : left++]);
      }
    }
    items->swap(merged);
  }
  return absl::OkStatus();
}

Result ListOf(Context& context, std::vector<Keyed> keyed) {
  ValueList items;
  for (Keyed& entry : keyed) items.push_back(std::move(entry.item));
  return context.NewList(std::move(items));
}

Result Sort(Context& context, const Value& value, const Arguments& arguments) {
  SPIN_ASSIGN_OR_RETURN(
      const BoundArguments bound,
      BoundArguments::Bind("sort", arguments, {"reverse", "case_sensitive", "attribute"}));
  SPIN_ASSIGN_OR_RETURN(const ValueList items, Iterate(context, value));
  SPIN_ASSIGN_OR_RETURN(std::vector<Keyed> keyed,
                        WithSortKeys(items, bound.at(2), bound.Flag(1, false)));
  SPIN_RETURN_IF_ERROR(SortKeyed(context, &keyed, bound.Flag(0, false)));
  return ListOf(context, std::move(keyed));
}

Result DictSort(Context& context, const Value& value, const Arguments& arguments) {
  SPIN_ASSIGN_OR_RETURN(
      const BoundArguments bound,
      BoundArguments::Bind("dictsort", arguments, {"case_sensitive", "by", "reverse"}));
  if (value.is_undefined()) return UndefinedError(value);
  if (!value.is_map()) return InvalidArgument("dictsort needs a mapping, not %s", TypeName(value));
  SPIN_ASSIGN_OR_RETURN(const std::string by, bound.String(1, "key"));
  if (by != "key" && by != "value") return InvalidArgument("dictsort sorts by 'key' or 'value'");
  std::vector<Keyed> keyed;
  for (const Dict::Entry& entry : value.map().entries()) {
    keyed.push_back({FoldCase(by == "key" ? entry.key : entry.value, bound.Flag(0, false)),
                     Value::Tuple({entry.key, entry.value})});
  }
  SPIN_RETURN_IF_ERROR(SortKeyed(context, &keyed, bound.Flag(2, false)));
  return ListOf(context, std::move(keyed));
}

Result Unique(Context& context, const Value& value, const Arguments& arguments) {
  SPIN_ASSIGN_OR_RETURN(const BoundArguments bound,
                        BoundArguments::Bind("unique", arguments, {"case_sensitive", "attribute"}));
  SPIN_ASSIGN_OR_RETURN(const ValueList items, Iterate(context, value));
  SPIN_ASSIGN_OR_RETURN(const std::vector<Keyed> keyed,
                        WithKeys(items, bound.at(1), bound.Flag(0, false)));
  ValueList seen, kept;
  for (const Keyed& entry : keyed) {
    if (entry.key.is_map() || entry.key.is_sequence(SequenceType::kList)) {
      return InvalidArgument("unique cannot compare items of type %s", TypeName(entry.key));
    }
    bool known = false;
    for (const Value& key : seen) {
      SPIN_ASSIGN_OR_RETURN(known, Equal(context, key, entry.key));
      if (known) break;
    }
    if (known) continue;
    seen.push_back(entry.key);
    kept.push_back(entry.item);
  }
  return context.NewSequence(SequenceType::kGenerator, std::move(kept));
}

template <bool kMax>
Result Extreme(Context& context, const Value& value, const Arguments& arguments) {
  SPIN_ASSIGN_OR_RETURN(const BoundArguments bound,
                        BoundArguments::Bind("min", arguments, {"case_sensitive", "attribute"}));
  SPIN_ASSIGN_OR_RETURN(const ValueList items, Iterate(context, value));
  if (items.empty()) return Value::Undefined("the sequence of 'min' or 'max' is empty");
  SPIN_ASSIGN_OR_RETURN(const std::vector<Keyed> keyed,
                        WithKeys(items, bound.at(1), bound.Flag(0, false)));
  size_t best = 0;
  for (size_t i = 1; i < keyed.size(); ++i) {
    SPIN_ASSIGN_OR_RETURN(const int order, Compare(context, keyed[i].key, keyed[best].key));
    if (kMax ? order > 0 : order < 0) best = i;
  }
  return keyed[best].item;
}

Result Sum(Context& context, const Value& value, const Arguments& arguments) {
  SPIN_ASSIGN_OR_RETURN(const BoundArguments bound,
                        BoundArguments::Bind("sum", arguments, {"attribute", "start"}));
  SPIN_ASSIGN_OR_RETURN(const ValueList items, Iterate(context, value));
  SPIN_ASSIGN_OR_RETURN(const std::vector<Keyed> keyed, WithKeys(items, bound.at(0), true));
  Value total = bound.has(1) ? bound.at(1) : Value::Int(0);
  if (total.is_string()) return InvalidArgument("sum does not add strings; use join");
  for (const Keyed& entry : keyed) {
    SPIN_ASSIGN_OR_RETURN(total, Arithmetic(context, "+", total, entry.key));
  }
  return total;
}

// Tuples of a key and the list of its items, in the order of the keys.
Result GroupBy(Context& context, const Value& value, const Arguments& arguments) {
  SPIN_ASSIGN_OR_RETURN(
      const BoundArguments bound,
      BoundArguments::Bind("groupby", arguments, {"attribute", "default", "case_sensitive"}, 1));
  SPIN_ASSIGN_OR_RETURN(ValueList items, Iterate(context, value));
  std::vector<Keyed> keyed;
  for (const Value& item : items) {
    SPIN_ASSIGN_OR_RETURN(Value key, AttributePath(item, bound.at(0)));
    if (key.is_undefined() && bound.has(1) && !bound.at(1).is_none()) key = bound.at(1);
    keyed.push_back({FoldCase(key, bound.Flag(2, false)), Value::Tuple({key, item})});
  }
  SPIN_RETURN_IF_ERROR(SortKeyed(context, &keyed, /*reverse=*/false));
  ValueList groups;
  for (size_t i = 0; i < keyed.size();) {
    const Value name = keyed[i].item.items()[0];  // as the first item spells it
    const Value key = keyed[i].key;
    ValueList group;
    for (bool same = true; same;) {
      group.push_back(keyed[i].item.items()[1]);
      if (++i == keyed.size()) break;
      SPIN_ASSIGN_OR_RETURN(same, Equal(context, keyed[i].key, key));
    }
    groups.push_back(Value::Tuple({name, Value::List(std::move(group))}));
  }
  return context.NewList(std::move(groups));
}

}  // namespace

const NamedFilter* OrderFilters(size_t* count) {
  static constexpr NamedFilter kFilters[] = {
      {"dictsort", DictSort}, {"groupby", GroupBy}, {"max", Extreme<true>}, {"min", Extreme<false>},
      {"sort", Sort},         {"sum", Sum},         {"unique", Unique},
  };
  *count = std::size(kFilters);
  return kFilters;
}

}  // namespace spin::jinja
