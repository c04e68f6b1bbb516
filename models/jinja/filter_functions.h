// The filters one by one; filters.cc gives them their names.
#pragma once

#include <string_view>

#include "models/jinja/arguments.h"
#include "models/jinja/context.h"

namespace spin::jinja {

using FilterFunction = absl::StatusOr<Value> (*)(Context&, const Value&, const Arguments&);

// One filter of a table.
struct NamedFilter {
  std::string_view name;
  FilterFunction function;
};

// Strings and scalars: trim, upper, replace, tojson, int, default, ... `count` entries.
const NamedFilter* TextFilters(size_t* count);

// Lists and mappings: first, join, map, selectattr, sort, ... `count` entries.
const NamedFilter* SequenceFilters(size_t* count);

// Filters that compare and order: sort, unique, min, max, sum, dictsort, groupby. `count` entries.
const NamedFilter* OrderFilters(size_t* count);

// value[attribute] as the attribute= arguments of filters mean it: "a.b.0" walks down, digits are
// indices.
absl::StatusOr<Value> AttributePath(const Value& value, const Value& attribute);

}  // namespace spin::jinja
