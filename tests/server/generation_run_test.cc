// The engine requests behind one answer are given up together.
#include "server/openai/generation_run.h"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "tests/server/exchange.h"

namespace spin {
namespace {

using nlohmann::json;
using testing::Exchange;

TEST_CASE("destroying a task cancels what runs and silences the waker") {
  Exchange x;
  x.Post("/v1/completions", {{"prompt", {"a", "b"}}});
  x.serving.backend.Finish(0, "done");
  CHECK_FALSE(x.task->PollHead().has_value());
  const int wakes = x.wakes;
  x.task.reset();
  CHECK(x.serving.backend.num_cancelled() == 1);
  CHECK_FALSE(x.serving.backend.Send(1, "late"));
  CHECK(x.wakes == wakes);
}

}  // namespace
}  // namespace spin
