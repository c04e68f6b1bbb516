#include "models/tokenizer/bpe_model.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <queue>

#include "models/tokenizer/byte_alphabet.h"

namespace spin {
namespace {

// Up to this many symbols a scan over the ranks beats a heap.
constexpr std::size_t kShortWord = 64;

uint64_t Mix(uint64_t a) {
  a *= 0x9E3779B97F4A7C15u;
  return a ^ a >> 29;
}

uint64_t HashBytes(std::string_view bytes) {
  uint64_t hash = bytes.size();
  const char* data = bytes.data();
  std::size_t left = bytes.size();
  for (; left >= 8; data += 8, left -= 8) {
    uint64_t word;
    std::memcpy(&word, data, 8);
    hash = Mix(hash ^ word);
  }
  uint64_t tail = 0;
  for (std::size_t i = 0; i < left; ++i) tail |= uint64_t{static_cast<uint8_t>(data[i])} << (8 * i);
  hash = Mix(hash ^ tail);
  return hash ^ hash >> 32;
}

struct Symbol {
  TokenId id = 0;
  int32_t previous = -1;
  int32_t next = -1;                 // -1: the last one
  uint32_t rank = PairTable::kNone;  // of the merge with `next`
};

struct Candidate {
  uint32_t rank;
  int32_t position;
  // The lowest rank, then the leftmost, comes first out of std::priority_queue.
  bool operator<(const Candidate& other) const {
    return rank != other.rank ? rank > other.rank : position > other.position;
  }
};

}  // namespace

absl::StatusOr<BpeModel> BpeModel::Create(const Spec& spec) {
  BpeModel model;
  SPIN_RETURN_IF_ERROR(model.AddVocab(spec));
  SPIN_RETURN_IF_ERROR(model.AddMerges(spec));
  if (spec.unk_token.has_value()) {
    const std::optional<TokenId> unk = model.Find(*spec.unk_token);
    if (!unk.has_value())
      return InvalidArgument("unk_token \"%s\" is not in the vocabulary", *spec.unk_token);
    model.unk_ = *unk;
    model.fuse_unk_ = spec.fuse_unk;
  }
  model.FindWholeTokens(spec.ignore_merges);
  return model;
}

absl::Status BpeModel::AddVocab(const Spec& spec) {
  byte_ids_.fill(-1);
  TokenId largest = -1;
  for (const auto& [content, id] : spec.vocab) {
    if (id < 0 || id >= kMaxTokens) {
      return InvalidArgument("token \"%s\" has id %d; ids are 0 to %d", content, id,
                             kMaxTokens - 1);
    }
    largest = std::max(largest, id);
  }
  tokens_.resize(largest + 1);
  slots_.assign(std::bit_ceil(2 * spec.vocab.size() + 2), -1);
  for (const auto& [content, id] : spec.vocab) {
    Token& token = tokens_[id];
    if (token.exists) return InvalidArgument("two tokens have id %d; one is \"%s\"", id, content);
    const std::optional<std::string> spelled = BytesOfAlphabet(content);
    const std::string& bytes = spelled.has_value() ? *spelled : content;
    token = {.offset = static_cast<uint32_t>(bytes_.size()),
             .length = static_cast<uint32_t>(bytes.size()),
             .exists = true};
    bytes_ += bytes;
    if (!spelled.has_value()) {
      other_.emplace(content, id);
      continue;
    }
    if (Lookup(bytes) >= 0)
      return InvalidArgument("the vocabulary has token \"%s\" twice", content);
    std::size_t slot = HashBytes(bytes) & (slots_.size() - 1);
    while (slots_[slot] >= 0) slot = (slot + 1) & (slots_.size() - 1);
    slots_[slot] = id;
    longest_ = std::max(longest_, bytes.size());
    if (bytes.size() == 1) byte_ids_[static_cast<uint8_t>(bytes[0])] = id;
  }
  return absl::OkStatus();
}

absl::Status BpeModel::AddMerges(const Spec& spec) {
  ranks_ = PairTable(spec.merges.size());
  merged_.reserve(spec.merges.size());
  for (const auto& [left, right] : spec.merges) {
    const std::optional<TokenId> left_id = Find(left);
    const std::optional<TokenId> right_id = Find(right);
    const std::optional<TokenId> merged_id = Find(left + right);
    if (!left_id.has_value() || !right_id.has_value() || !merged_id.has_value()) {
      return InvalidArgument("merge %d (\"%s\" and \"%s\") needs tokens that the vocabulary lacks",
                             merged_.size(), left, right);
    }
    ranks_.Set(*left_id, *right_id, static_cast<uint32_t>(merged_.size()));
    merged_.push_back(*merged_id);
  }
  return absl::OkStatus();
}

void BpeModel::FindWholeTokens(bool ignore_merges) {
  std::vector<TokenId> ids;
  for (const TokenId id : slots_) {
    if (id < 0) continue;
    ids.clear();
    if (!ignore_merges) Merge(TokenBytes(id), &ids);
    tokens_[id].whole = ignore_merges || (ids.size() == 1 && ids[0] == id);
  }
}

void BpeModel::Encode(std::string_view word, std::vector<TokenId>* ids) const {
  const TokenId id = Lookup(word);
  if (id >= 0 && tokens_[id].whole) {
    ids->push_back(id);
  } else {
    Merge(word, ids);
  }
}

void BpeModel::Merge(std::string_view word, std::vector<TokenId>* ids) const {
  std::array<TokenId, kShortWord> few;
  if (word.size() <= few.size() && unk_ < 0) {
    std::size_t n = 0;
    for (const char c : word) {
      few[n] = byte_ids_[static_cast<uint8_t>(c)];
      n += few[n] >= 0;
    }
    return MergeShort(std::span(few).first(n), ids);
  }
  std::vector<TokenId> symbols = Symbols(word);
  if (symbols.size() <= kShortWord) return MergeShort(symbols, ids);
  MergeLong(symbols, ids);
}

std::vector<TokenId> BpeModel::Symbols(std::string_view word) const {
  std::vector<TokenId> symbols;
  symbols.reserve(word.size());
  bool after_unk = false;
  for (const char c : word) {
    const TokenId id = byte_ids_[static_cast<uint8_t>(c)];
    if (id >= 0) {
      symbols.push_back(id);
    } else if (unk_ >= 0 && !(after_unk && fuse_unk_)) {
      symbols.push_back(unk_);
    }
    after_unk = id < 0;
  }
  return symbols;
}

void BpeModel::MergeShort(std::span<TokenId> symbols, std::vector<TokenId>* ids) const {
  std::array<uint32_t, kShortWord> ranks;  // [i]: of symbols i and i + 1
  std::size_t n = symbols.size();
  for (std::size_t i = 0; i + 1 < n; ++i) ranks[i] = ranks_.Find(symbols[i], symbols[i + 1]);
  while (n > 1) {
    std::size_t best = 0;
    uint32_t rank = ranks[0];
    for (std::size_t i = 1; i + 1 < n; ++i) {
      if (ranks[i] < rank) {
        rank = ranks[i];
        best = i;
      }
    }
    if (rank == PairTable::kNone) break;
    symbols[best] = merged_[rank];
    std::copy(symbols.begin() + best + 2, symbols.begin() + n, symbols.begin() + best + 1);
    std::copy(ranks.begin() + best + 1, ranks.begin() + n - 1, ranks.begin() + best);
    --n;
    if (best > 0) ranks[best - 1] = ranks_.Find(symbols[best - 1], symbols[best]);
    if (best + 1 < n) ranks[best] = ranks_.Find(symbols[best], symbols[best + 1]);
  }
  ids->insert(ids->end(), symbols.begin(), symbols.begin() + n);
}

void BpeModel::MergeLong(std::span<TokenId> symbols, std::vector<TokenId>* ids) const {
  const int32_t n = static_cast<int32_t>(symbols.size());
  std::vector<Symbol> chain(n);
  std::vector<Candidate> storage;
  storage.reserve(2 * n);
  std::priority_queue<Candidate> queue(std::less<Candidate>(), std::move(storage));
  for (int32_t i = 0; i < n; ++i)
    chain[i] = {.id = symbols[i], .previous = i - 1, .next = i + 1 < n ? i + 1 : -1};
  const auto rank_pair = [&](int32_t at) {
    Symbol& left = chain[at];
    left.rank = left.next < 0 ? PairTable::kNone : ranks_.Find(left.id, chain[left.next].id);
    if (left.rank != PairTable::kNone) queue.push({left.rank, at});
  };
  for (int32_t i = 0; i < n; ++i) rank_pair(i);
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    Symbol& left = chain[top.position];
    if (left.rank != top.rank) continue;  // that pair is gone
    Symbol& right = chain[left.next];
    left.id = merged_[top.rank];
    left.next = right.next;
    right.rank = PairTable::kNone;
    if (left.next >= 0) chain[left.next].previous = top.position;
    rank_pair(top.position);
    if (left.previous >= 0) rank_pair(left.previous);
  }
  for (int32_t at = 0; at >= 0; at = chain[at].next) ids->push_back(chain[at].id);
}

TokenId BpeModel::Lookup(std::string_view bytes) const {
  if (bytes.size() > longest_) return -1;
  std::size_t slot = HashBytes(bytes) & (slots_.size() - 1);
  for (; slots_[slot] >= 0; slot = (slot + 1) & (slots_.size() - 1)) {
    const Token& token = tokens_[slots_[slot]];
    if (token.length == bytes.size() &&
        std::memcmp(bytes_.data() + token.offset, bytes.data(), bytes.size()) == 0) {
      return slots_[slot];
    }
  }
  return -1;
}

std::string_view BpeModel::TokenBytes(TokenId id) const {
  if (id < 0 || id >= num_ids()) return {};
  return std::string_view(bytes_).substr(tokens_[id].offset, tokens_[id].length);
}

bool BpeModel::has_all_bytes() const {
  return std::ranges::all_of(byte_ids_, [](TokenId id) { return id >= 0; });
}

std::optional<TokenId> BpeModel::Find(std::string_view content) const {
  const std::optional<std::string> bytes = BytesOfAlphabet(content);
  if (bytes.has_value()) {
    const TokenId id = Lookup(*bytes);
    return id < 0 ? std::nullopt : std::optional<TokenId>(id);
  }
  const auto found = other_.find(std::string(content));
  return found == other_.end() ? std::nullopt : std::optional<TokenId>(found->second);
}

}  // namespace spin
