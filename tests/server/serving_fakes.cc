#include "tests/server/serving_fakes.h"

#include <absl/strings/str_format.h>

#include <algorithm>
#include <utility>

namespace spin::testing {
namespace {

constexpr auto kPatience = std::chrono::seconds(5);

}  // namespace

ByteTokenizer::ByteTokenizer() {
  for (std::size_t i = 0; i < bytes_.size(); ++i) bytes_[i] = static_cast<char>(i);
}

std::vector<TokenId> ByteTokenizer::Encode(std::string_view text, bool add_special_tokens) const {
  std::vector<TokenId> ids;
  if (add_special_tokens) ids.push_back(kBos);
  for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
  return ids;
}

std::string ByteTokenizer::Decode(std::span<const TokenId> ids, bool skip_special_tokens) const {
  std::string text;
  for (const TokenId id : ids) {
    if (!skip_special_tokens || !IsSpecial(id)) text += TokenBytes(id);
  }
  return text;
}

std::string_view ByteTokenizer::TokenBytes(TokenId id) const {
  if (id == kBos) return "<s>";
  if (id == kEos) return "</s>";
  if (id < 0 || id > kEos) return {};
  return std::string_view(bytes_.data() + id, 1);
}

std::optional<TokenId> ByteTokenizer::FindToken(std::string_view content) const {
  if (content == "<s>") return kBos;
  if (content == "</s>") return kEos;
  if (content.size() == 1) return static_cast<unsigned char>(content[0]);
  return std::nullopt;
}

absl::StatusOr<std::string> PlainTemplate::Render(const jinja::Value& variables) const {
  std::string text;
  const jinja::Dict& dict = variables.map();
  if (const jinja::Value* tools = dict.Find("tools"); tools != nullptr && tools->is_sequence()) {
    text += absl::StrFormat("{%d tools}", tools->items().size());
  }
  for (const jinja::Value& message : dict.Find("messages")->items()) {
    const jinja::Value* content = message.map().Find("content");
    const std::string words = content->is_string() ? content->string_value() : "(none)";
    if (words == "refuse") return InvalidArgument("conversation roles must alternate");
    text += "[" + message.map().Find("role")->string_value() + "]" + words + "\n";
  }
  if (dict.Find("add_generation_prompt")->is_true()) text += "[assistant]";
  return text;
}

absl::Status ScriptedBackend::Submit(Request request) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!refusal_.ok()) return std::exchange(refusal_, absl::OkStatus());
  requests_.push_back(std::move(request));
  changed_.notify_all();
  return absl::OkStatus();
}

void ScriptedBackend::Cancel(RequestId id) {
  std::lock_guard<std::mutex> lock(mutex_);
  cancelled_.push_back(id);
  changed_.notify_all();
}

RequestId ScriptedBackend::NextRequestId() {
  std::lock_guard<std::mutex> lock(mutex_);
  return RequestId{next_id_++};
}

void ScriptedBackend::RefuseNext(absl::Status status) {
  std::lock_guard<std::mutex> lock(mutex_);
  refusal_ = std::move(status);
}

bool ScriptedBackend::WaitForRequests(std::size_t count) {
  std::unique_lock<std::mutex> lock(mutex_);
  return changed_.wait_for(lock, kPatience, [&] { return requests_.size() >= count; });
}

bool ScriptedBackend::WaitForCancel(RequestId id) {
  std::unique_lock<std::mutex> lock(mutex_);
  return changed_.wait_for(lock, kPatience, [&] {
    return std::find(cancelled_.begin(), cancelled_.end(), id) != cancelled_.end();
  });
}

Request ScriptedBackend::request(std::size_t index) {
  std::lock_guard<std::mutex> lock(mutex_);
  return requests_.at(index);
}

std::size_t ScriptedBackend::num_requests() {
  std::lock_guard<std::mutex> lock(mutex_);
  return requests_.size();
}

std::size_t ScriptedBackend::num_cancelled() {
  std::lock_guard<std::mutex> lock(mutex_);
  return cancelled_.size();
}

bool ScriptedBackend::SendOutput(std::size_t index, RequestOutput output) {
  return request(index).sink->OnOutput(std::move(output));
}

bool ScriptedBackend::Send(std::size_t index, std::string_view text, FinishReason finish,
                           bool finished, int32_t sequence) {
  RequestOutput output;
  output.deltas.push_back(DeltaOf(text, finish, sequence));
  output.finished = finished;
  return SendOutput(index, std::move(output));
}

bool ScriptedBackend::Fail(std::size_t index, absl::Status error) {
  RequestOutput output;
  output.error = std::move(error);
  output.finished = true;
  return SendOutput(index, std::move(output));
}

SampledToken SampledOf(int32_t token) {
  SampledToken sampled;
  sampled.token = token;
  sampled.logprob = -1;
  sampled.num_top = 2;
  sampled.top_token[0] = (token + 1) % 256;
  sampled.top_logprob[0] = -0.5F;
  sampled.top_token[1] = token;
  sampled.top_logprob[1] = -1;
  return sampled;
}

SequenceDelta DeltaOf(std::string_view text, FinishReason finish, int32_t sequence) {
  SequenceDelta delta;
  delta.index = sequence;
  delta.text = std::string(text);
  for (const char c : text) delta.tokens.push_back(SampledOf(static_cast<unsigned char>(c)));
  delta.finish = finish;
  return delta;
}

TestServing::TestServing() {
  context.backend = &backend;
  context.tokenizer = &tokenizer;
  context.chat_template = &chat_template;
  context.model.served_names = {"tiny", "tiny-alias"};
  context.model.created = 1790000000;
  context.model.max_model_len = 128;
  context.model.vocab_size = 258;
  context.model.bos_token = "<s>";
  context.model.eos_token = "</s>";
  context.version = "0.1.0";
  context.system_fingerprint = "spin-test";
  context.state = ServerState::kReady;
}

}  // namespace spin::testing
