#include "common/status.h"

namespace spin {

absl::Status Annotate(const absl::Status& status, const std::string& prefix) {
  if (status.ok()) return status;
  return absl::Status(status.code(), prefix + ": " + MessageOf(status));
}

}  // namespace spin
