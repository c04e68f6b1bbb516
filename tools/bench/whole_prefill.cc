#include "tools/bench/whole_prefill.h"

#include <utility>

namespace spin::bench {
namespace {

constexpr int64_t kWorkAPass = 512 * 1024;  // tokens through a layer

}  // namespace

PassResult PrefillWhole(Executor& executor, KvCacheManager& memory, std::span<const RowId> rows,
                        std::vector<int32_t> tokens) {
  executor.BeginPrefill({{.rows = {rows.begin(), rows.end()}, .tokens = std::move(tokens)}});
  PassResult result;
  int64_t prefill_ns = 0;
  for (bool done = false; !done;) {
    done = executor.EnqueuePrefill(kWorkAPass);
    if (done) {
      memory.FinishPrefill(rows);
      executor.ApplyTables(memory.TakeCommands());
    }
    executor.Submit();
    result = executor.Collect();
    prefill_ns += result.prefill_ns;
  }
  result.prefill_ns = prefill_ns;
  return result;
}

}  // namespace spin::bench
