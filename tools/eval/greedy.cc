#include "tools/eval/greedy.h"

#include <algorithm>
#include <utility>

#include "common/check.h"

namespace spin::eval {
namespace {

// Decodes the prompts of `rows` until all have ended.
void RunBatch(Session& session, size_t variant, std::span<const GreedyPrompt> prompts,
              const std::vector<std::vector<RowId>>& rows, std::span<const int32_t> stop_tokens,
              std::span<std::vector<int32_t>> said) {
  std::vector<RowId> running;
  std::vector<size_t> prompt_of;
  for (size_t i = 0; i < rows.size(); ++i) {
    running.push_back(rows[i][variant]);
    prompt_of.push_back(i);
  }
  while (true) {
    size_t kept = 0;
    for (size_t i = 0; i < running.size(); ++i) {
      const int32_t token = session.sampled(running[i]);
      const size_t prompt = prompt_of[i];
      if (std::find(stop_tokens.begin(), stop_tokens.end(), token) != stop_tokens.end()) continue;
      said[prompt].push_back(token);
      if (static_cast<int32_t>(said[prompt].size()) == prompts[prompt].max_new) continue;
      running[kept] = running[i];
      prompt_of[kept++] = prompt;
    }
    running.resize(kept);
    prompt_of.resize(kept);
    if (running.empty()) return;
    session.Step(variant, running);
  }
}

}  // namespace

absl::StatusOr<std::vector<Runs>> GreedyDecode(Session& session,
                                               std::span<const GreedyPrompt> prompts,
                                               std::span<const int32_t> stop_tokens) {
  std::vector<Runs> said(session.num_variants(), Runs(prompts.size()));
  const auto batch = static_cast<size_t>(session.batch());
  for (size_t first = 0; first < prompts.size(); first += batch) {
    const auto group = prompts.subspan(first, std::min(batch, prompts.size() - first));
    std::vector<std::vector<RowId>> rows;
    for (const GreedyPrompt& prompt : group) {
      SPIN_ASSIGN_OR_RETURN(std::vector<RowId> copies,
                            session.Start(prompt.tokens, prompt.max_new));
      rows.push_back(std::move(copies));
    }
    for (size_t variant = 0; variant < session.num_variants(); ++variant) {
      RunBatch(session, variant, group, rows, stop_tokens,
               std::span(said[variant]).subspan(first, group.size()));
    }
    for (const auto& copies : rows) session.Release(copies);
  }
  return said;
}

GreedyAgreement CompareRuns(const Runs& dense, const Runs& sparse) {
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
