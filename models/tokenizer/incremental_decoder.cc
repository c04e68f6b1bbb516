#include "models/tokenizer/incremental_decoder.h"

#include <algorithm>
#include <utility>

#include "models/tokenizer/utf8.h"

namespace spin {
namespace {

// Bytes of the longest end of `text` that is the start of `stop`, but not all of it.
std::size_t OverlapWithStart(std::string_view text, std::string_view stop) {
  for (std::size_t n = std::min(text.size(), stop.size() - 1); n > 0; --n) {
    if (text.substr(text.size() - n) == stop.substr(0, n)) return n;
  }
  return 0;
}

}  // namespace

IncrementalDecoder::IncrementalDecoder(const Tokenizer* tokenizer, Options options)
    : tokenizer_(tokenizer), options_(std::move(options)) {
  // Text is always valid UTF-8, so a stop string must be, too, to match it and to be cut at
  // characters.
  for (std::string& stop : options_.stop) {
    std::string valid;
    AppendUtf8Lossy(stop, &valid);
    stop = std::move(valid);
  }
  std::erase(options_.stop, std::string());
}

IncrementalDecoder::Piece IncrementalDecoder::Push(TokenId token) {
  if (tokenizer_ == nullptr || stopped_) return {};
  if (options_.skip_special_tokens && tokenizer_->IsSpecial(token)) return {};
  bytes_ += tokenizer_->TokenBytes(token);
  TakeCharacters(/*at_end=*/false);
  return Release(/*at_end=*/false);
}

std::string IncrementalDecoder::Flush() {
  if (tokenizer_ == nullptr || stopped_) return {};
  TakeCharacters(/*at_end=*/true);
  return Release(/*at_end=*/true).text;
}

void IncrementalDecoder::TakeCharacters(bool at_end) {
  if (at_end) {
    AppendUtf8Lossy(bytes_, &text_);
    bytes_.clear();
  } else {
    bytes_.erase(0, AppendWholeUtf8(bytes_, &text_));
  }
}

IncrementalDecoder::Piece IncrementalDecoder::Release(bool at_end) {
  // The first stop string to be complete, and the longest of those.
  std::size_t end = std::string::npos;
  const std::string* match = nullptr;
  std::size_t held = 0;
  for (const std::string& stop : options_.stop) {
    const std::size_t begin = text_.find(stop);
    if (begin != std::string::npos) {
      const std::size_t stop_end = begin + stop.size();
      if (stop_end < end || (stop_end == end && stop.size() > match->size())) {
        end = stop_end;
        match = &stop;
      }
    }
    if (!at_end) held = std::max(held, OverlapWithStart(text_, stop));
  }
  Piece piece;
  if (match != nullptr) {
    stopped_ = true;
    piece.stop_match = *match;
    piece.text = text_.substr(0, options_.include_stop_in_output ? end : end - match->size());
    text_.clear();
    bytes_.clear();
    return piece;
  }
  piece.text = text_.substr(0, text_.size() - held);
  text_.erase(0, piece.text.size());
  return piece;
}

}  // namespace spin
