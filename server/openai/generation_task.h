// The HTTP task of a generation: gathers outputs into choices and writes them, whole or as server-sent events.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "server/http/http_message.h"
#include "server/openai/generation_run.h"
#include "server/openai/response_format.h"
#include "server/openai/response_plan.h"

namespace spin {

class GenerationTask final : public HttpTask {
 public:
  // `format` outlives the task. `request_id` names the request in the text of a server error.
  GenerationTask(ResponsePlan plan, const ResponseFormat& format,
                 std::unique_ptr<GenerationRun> run, std::string request_id);

  // A stream's head goes out with the first output, so that a request that fails before it still gets a proper status;
  // or after the first idle period, so that proxies see the connection alive.
  std::optional<HttpResponse> PollHead() override;
  Body PollBody() override;
  void OnIdle() override { idle_ = true; }

 private:
  void Gather();
  void Take(const GenerationRun::Event& event);
  void Take(const SequenceDelta& delta, ChoiceState& choice) const;
  bool HasNews(const ChoiceState& choice) const;
  void AppendChunk(Json chunk, std::string& out) const;
  void AppendEnd(std::string& out) const;

  ResponsePlan plan_;
  const ResponseFormat& format_;
  std::unique_ptr<GenerationRun> run_;
  const std::string request_id_;
  std::vector<ChoiceState> choices_;  // [prompt * choices_per_prompt + j]
  absl::Status failure_;
  bool idle_ = false;     // nothing was sent for a while
  bool started_ = false;  // an output has arrived
};

}  // namespace spin
