// str.split and its kin: methods that cut a string into pieces.
#pragma once

#include <string>

#include "models/jinja/arguments.h"
#include "models/jinja/context.h"

namespace spin::jinja {

absl::StatusOr<Value> Split(Context& context, const std::string& self, const Arguments& arguments);
absl::StatusOr<Value> SplitRight(Context& context, const std::string& self,
                                 const Arguments& arguments);
absl::StatusOr<Value> SplitIntoLines(Context& context, const std::string& self,
                                     const Arguments& arguments);
absl::StatusOr<Value> Partition(Context& context, const std::string& self,
                                const Arguments& arguments);
absl::StatusOr<Value> PartitionRight(Context& context, const std::string& self,
                                     const Arguments& arguments);

}  // namespace spin::jinja
