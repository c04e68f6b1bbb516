#include "server/sparse_request.h"

namespace spin {

absl::Status CheckSparse(const std::string& algorithm, const ModelInfo& model,
                         SparseRequest& sparse) {
  if (algorithm == "dense") {
    // On a dense server, too: a budget beside it is a contradiction.
    sparse.exact = true;
  } else if (!algorithm.empty() && algorithm != model.algorithm) {
    return InvalidArgument(
        "sparse: algorithm '%s' needs another layout of the cache than this server's '%s'; a "
        "request may ask for that or for 'dense'",
        algorithm, model.algorithm);
  }
  if (sparse.exact && sparse.budget_tokens.has_value()) {
    return InvalidArgument("sparse: exact attention has no budget_tokens; give one of the two");
  }
  return absl::OkStatus();
}

}  // namespace spin
