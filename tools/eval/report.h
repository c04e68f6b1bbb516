// An evaluation as a table for people and as JSON for tools/eval_plot.py.
#pragma once

#include <string>

#include "tools/eval/evaluation.h"
#include "tools/eval/options.h"

namespace spin::eval {

std::string ReportTable(const Options& options, const Evaluation& evaluation);

std::string ReportJson(const Options& options, const Evaluation& evaluation);

}  // namespace spin::eval
