// Stand-ins for the engine and the model's text side, for tests of the front ends.
#pragma once

#include <array>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "models/tokenizer/chat_template.h"
#include "models/tokenizer/tokenizer.h"
#include "server/generation_backend.h"
#include "server/serving_context.h"

namespace spin::testing {

// One token a byte; 256 begins a text, 257 ends it (both special).
class ByteTokenizer final : public Tokenizer {
 public:
  static constexpr int32_t kBos = 256;
  static constexpr int32_t kEos = 257;

  ByteTokenizer();
  std::vector<TokenId> Encode(std::string_view text, bool add_special_tokens) const override;
  std::string Decode(std::span<const TokenId> ids, bool skip_special_tokens) const override;
  std::string_view TokenBytes(TokenId id) const override;
  bool IsSpecial(TokenId id) const override { return id >= kBos; }
  std::optional<TokenId> FindToken(std::string_view content) const override;
  std::size_t max_token_bytes() const override { return 1; }
  int vocab_size() const override { return 258; }

 private:
  std::array<char, 256> bytes_;
};

// "[role]content\n" a message, then "[assistant]" where a generation prompt is asked; "{n tools}" first where tools are
// given. Refuses a message whose content is "refuse".
class PlainTemplate final : public ChatTemplate {
 public:
  absl::StatusOr<std::string> Render(const jinja::Value& variables) const override;
};

// Keeps what is submitted; the test plays the engine. Any thread.
class ScriptedBackend final : public GenerationBackend {
 public:
  absl::Status Submit(Request request) override;
  void Cancel(RequestId id) override;
  RequestId NextRequestId() override;

  void RefuseNext(absl::Status status);
  // Waits until `count` requests were submitted (false after five seconds).
  bool WaitForRequests(std::size_t count);
  bool WaitForCancel(RequestId id);
  Request request(std::size_t index);  // a copy
  std::size_t num_requests();
  std::size_t num_cancelled();

  // To the sink of request `index`: text as one token a byte, for sequence `sequence`.
  bool Send(std::size_t index, std::string_view text, FinishReason finish = FinishReason::kNone,
            bool finished = false, int32_t sequence = 0);
  bool Finish(std::size_t index, std::string_view text = "") {
    return Send(index, text, FinishReason::kStop, true);
  }
  bool Fail(std::size_t index, absl::Status error);
  bool SendOutput(std::size_t index, RequestOutput output);

 private:
  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::vector<Request> requests_;
  std::vector<RequestId> cancelled_;
  uint64_t next_id_ = 1;
  absl::Status refusal_;
};

// A delta that says `text`, one token a byte, log-probability -1 and the next byte as the other alternative.
SequenceDelta DeltaOf(std::string_view text, FinishReason finish = FinishReason::kNone,
                      int32_t sequence = 0);
SampledToken SampledOf(int32_t token);

// A ready context over the fakes: model "tiny" (also "tiny-alias"), context of 128 tokens.
struct TestServing {
  ByteTokenizer tokenizer;
  PlainTemplate chat_template;
  ScriptedBackend backend;
  ServingContext context;

  TestServing();
};

}  // namespace spin::testing
