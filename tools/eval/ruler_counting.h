// RULER's aggregation tasks (arXiv 2404.06654, section 3.3): the ten words that a numbered list repeats most, and the
// three most frequent words of a made-up language.
#pragma once

#include <memory>

#include "tools/eval/text_task.h"

namespace spin::eval {

std::unique_ptr<TextTask> MakeCommonWords();    // "cwe"
std::unique_ptr<TextTask> MakeFrequentWords();  // "fwe"

}  // namespace spin::eval
