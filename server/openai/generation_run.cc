#include "server/openai/generation_run.h"

#include <utility>

namespace spin {

absl::StatusOr<std::unique_ptr<GenerationRun>> GenerationRun::Start(
    GenerationBackend& backend, std::vector<Request> requests, const std::function<void()>& wake) {
  std::unique_ptr<GenerationRun> run(new GenerationRun(backend));
  run->entries_.reserve(requests.size());
  for (Request& request : requests) {
    Entry entry;
    entry.id = backend.NextRequestId();
    entry.stream = std::make_shared<ResponseStream>(kMaxWaitingOutputs, wake);
    request.id = entry.id;
    request.sink = entry.stream;
    SPIN_RETURN_IF_ERROR(backend.Submit(std::move(request)));
    run->entries_.push_back(std::move(entry));
    ++run->num_running_;
  }
  return run;
}

GenerationRun::~GenerationRun() {
  for (Entry& entry : entries_) {
    entry.stream->Close();
    if (!entry.finished) backend_.Cancel(entry.id);
  }
}

std::optional<GenerationRun::Event> GenerationRun::TryNext() {
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    const std::size_t index = (next_ + i) % entries_.size();
    Entry& entry = entries_[index];
    if (entry.finished) continue;
    std::optional<RequestOutput> output = entry.stream->TryPop();
    if (!output.has_value() && entry.stream->overflowed()) {
      // The engine gives the request up by itself: its output was refused.
      output.emplace();
      output->error = absl::AbortedError("The client reads too slowly; the request was given up.");
      output->finished = true;
    }
    if (!output.has_value()) continue;
    next_ = index + 1;
    if (output->finished) {
      entry.finished = true;
      --num_running_;
    }
    return Event{index, *std::move(output)};
  }
  return std::nullopt;
}

}  // namespace spin
