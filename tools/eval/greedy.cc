#include "tools/eval/greedy.h"

#include <algorithm>

#include "common/check.h"

namespace spin::eval {
namespace {

// A sequence of the running batch.
struct Running {
  RowId row;
  size_t prompt = 0;
};

// Notes the token that the row sampled. False: the sequence has ended.
bool Take(const Session& session, const Running& run, const GreedyPrompt& prompt,
          std::span<const int32_t> stop_tokens, std::vector<int32_t>& said) {
  const int32_t token = session.sampled(run.row);
  if (std::find(stop_tokens.begin(), stop_tokens.end(), token) != stop_tokens.end()) return false;
  said.push_back(token);
  return static_cast<int32_t>(said.size()) < prompt.max_new;
}

}  // namespace

absl::StatusOr<std::vector<std::vector<int32_t>>> GreedyDecode(
    Session& session, std::span<const GreedyPrompt> prompts, std::span<const int32_t> stop_tokens) {
  std::vector<std::vector<int32_t>> said(prompts.size());
  std::vector<Running> running;
  size_t next = 0;
  while (next < prompts.size() || !running.empty()) {
    while (next < prompts.size() && static_cast<int32_t>(running.size()) < session.batch()) {
      SPIN_ASSIGN_OR_RETURN(const RowId row,
                            session.Start(prompts[next].tokens, prompts[next].max_new));
      running.push_back({row, next});
      if (!Take(session, running.back(), prompts[next], stop_tokens, said[next])) {
        session.Release(row);
        running.pop_back();
      }
      ++next;
    }
    if (running.empty()) continue;
    std::vector<RowId> rows;
    for (const Running& run : running) rows.push_back(run.row);
    session.Step(rows);
    std::erase_if(running, [&](const Running& run) {
      if (Take(session, run, prompts[run.prompt], stop_tokens, said[run.prompt])) return false;
      session.Release(run.row);
      return true;
    });
  }
  return said;
}

GreedyAgreement CompareRuns(std::span<const std::vector<int32_t>> dense,
                            std::span<const std::vector<int32_t>> sparse) {
  SPIN_CHECK_EQ(dense.size(), sparse.size());
  GreedyAgreement agreement;
  if (dense.empty()) return agreement;
  double dense_tokens = 0;
  double sparse_tokens = 0;
  for (size_t i = 0; i < dense.size(); ++i) {
    const auto [end, other] =
        std::mismatch(dense[i].begin(), dense[i].end(), sparse[i].begin(), sparse[i].end());
    const auto common = static_cast<double>(end - dense[i].begin());
    agreement.identical += dense[i] == sparse[i] ? 1 : 0;
    agreement.common_tokens += common;
    agreement.common_share += dense[i].empty() ? (sparse[i].empty() ? 1 : 0)
                                               : common / static_cast<double>(dense[i].size());
    dense_tokens += static_cast<double>(dense[i].size());
    sparse_tokens += static_cast<double>(sparse[i].size());
  }
  const auto pairs = static_cast<double>(dense.size());
  agreement.identical /= pairs;
  agreement.common_tokens /= pairs;
  agreement.common_share /= pairs;
  agreement.length_ratio = sparse_tokens / std::max(dense_tokens, 1.0);
  return agreement;
}

}  // namespace spin::eval
