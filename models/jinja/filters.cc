#include "models/jinja/filters.h"

#include <map>

#include "models/jinja/filter_functions.h"

namespace spin::jinja {

namespace {

const std::map<std::string_view, FilterFunction>& Filters() {
  static const auto* const kFilters = [] {
    auto* filters = new std::map<std::string_view, FilterFunction>;
    for (const auto table : {TextFilters, SequenceFilters, OrderFilters}) {
      size_t count = 0;
      const NamedFilter* named = table(&count);
      for (size_t i = 0; i < count; ++i) filters->emplace(named[i].name, named[i].function);
    }
    return filters;
  }();
  return *kFilters;
}

}  // namespace

bool IsFilter(std::string_view name) {
  return Filters().contains(name);
}

absl::StatusOr<Value> CallFilter(Context& context, std::string_view name, const Value& value,
                                 const Arguments& arguments) {
  const auto it = Filters().find(name);
  if (it == Filters().end()) return InvalidArgument("unknown filter '%s'", name);
  SPIN_RETURN_IF_ERROR(context.Step());
  return it->second(context, value, arguments);
}

}  // namespace spin::jinja
