// RULER's variable tracking (arXiv 2404.06654, section 3.2): VAR A = 12345, VAR B = VAR A, ... scattered in noise; all
// variables that hold the value are asked for. A short solved example comes first.
#pragma once

#include <memory>

#include "tools/eval/text_task.h"

namespace spin::eval {

std::unique_ptr<TextTask> MakeVariableTracking();  // "vt": one chain of four hops

}  // namespace spin::eval
