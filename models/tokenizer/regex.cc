#include "models/tokenizer/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>

#include "common/check.h"
#include "models/tokenizer/oniguruma_pattern.h"

namespace spin {
namespace {

// Limits of one search. The families' patterns need one step a byte; a pattern that backtracks
// without end stops here after about a tenth of a second.
constexpr uint32_t kMatchLimit = 10'000'000;
constexpr uint32_t kHeapLimitKiB = 64 * 1024;
constexpr std::size_t kMaxPatternBytes = 64 * 1024;

PCRE2_SPTR Bytes(std::string_view text) {
  // An empty string_view may hold a null pointer, which PCRE2 refuses.
  return reinterpret_cast<PCRE2_SPTR>(text.empty() ? "" : text.data());
}

}  // namespace

absl::StatusOr<Regex> Regex::Compile(std::string_view pattern) {
  if (pattern.size() > kMaxPatternBytes) {
    return InvalidArgument("a pattern of %d bytes is longer than the %d allowed", pattern.size(),
                           kMaxPatternBytes);
  }
  SPIN_ASSIGN_OR_RETURN(const std::string translated, TranslateOnigurumaPattern(pattern));
  return CompilePcre2(translated, pattern);
}

absl::StatusOr<Regex> Regex::Literal(std::string_view text) {
  if (text.empty() || text.size() > kMaxPatternBytes) {
    return InvalidArgument("a literal pattern has %d bytes; 1 to %d are allowed", text.size(),
                           kMaxPatternBytes);
  }
  constexpr std::string_view kMeta = "\\^$.|?*+()[]{}-#/";
  std::string escaped;
  for (const char c : text) {
    if (c == '\0') {
      escaped += "\\x{0}";
      continue;
    }
    if (kMeta.find(c) != std::string_view::npos) escaped += '\\';
    escaped += c;
  }
  return CompilePcre2(escaped, text);
}

absl::StatusOr<Regex> Regex::CompilePcre2(const std::string& pattern, std::string_view source) {
  const std::unique_ptr<pcre2_compile_context, decltype(&pcre2_compile_context_free)> context(
      pcre2_compile_context_create(nullptr), &pcre2_compile_context_free);
  if (context == nullptr)
    return ResourceExhausted("no memory to compile the pattern \"%s\"", source);
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  pcre2_set_parens_nest_limit(context.get(), 100);
  // Ruby's ^ and $ match at every line, and nothing here reads captures.
  constexpr uint32_t kOptions =
      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NO_AUTO_CAPTURE | PCRE2_NEVER_BACKSLASH_C;
  int error = 0;
  PCRE2_SIZE offset = 0;
  Regex regex;
  regex.code_.reset(
      pcre2_compile(Bytes(pattern), pattern.size(), kOptions, &error, &offset, context.get()));
  if (regex.code_ == nullptr) {
    std::array<PCRE2_UCHAR, 256> message = {};
    pcre2_get_error_message(error, message.data(), message.size());
    return InvalidArgument("the pattern \"%s\" does not compile: %s", source,
                           reinterpret_cast<const char*>(message.data()));
  }
  // Without just-in-time code (a locked-down machine) the interpreter gives the same matches,
  // slower.
  regex.jit_ = pcre2_jit_compile(regex.code_.get(), PCRE2_JIT_COMPLETE) == 0;
  return regex;
}

Regex::Matcher::Matcher(const Regex& regex)
    : regex_(&regex),
      data_(pcre2_match_data_create(1, nullptr)),
      context_(pcre2_match_context_create(nullptr)) {
  SPIN_CHECK(data_ != nullptr && context_ != nullptr);
  pcre2_set_match_limit(context_.get(), kMatchLimit);
  pcre2_set_depth_limit(context_.get(), kMatchLimit);
  pcre2_set_heap_limit(context_.get(), kHeapLimitKiB);
}

std::optional<Regex::Match> Regex::Matcher::Find(std::string_view subject, std::size_t from) {
  const pcre2_code* code = regex_->code_.get();
  const PCRE2_SPTR bytes = Bytes(subject);
  int rc = PCRE2_ERROR_JIT_STACKLIMIT;
  if (regex_->jit_) {
    rc = pcre2_jit_match(code, bytes, subject.size(), from, 0, data_.get(), context_.get());
  }
  if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {
    constexpr uint32_t kOptions = PCRE2_NO_JIT | PCRE2_NO_UTF_CHECK;
    rc = pcre2_match(code, bytes, subject.size(), from, kOptions, data_.get(), context_.get());
  }
  if (rc < 0) return std::nullopt;
  const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(data_.get());
  return Match{ends[0], ends[1]};
}

void Regex::Matcher::Deleter::operator()(pcre2_match_data* data) const {
  pcre2_match_data_free(data);
}
void Regex::Matcher::Deleter::operator()(pcre2_match_context* context) const {
  pcre2_match_context_free(context);
}
void Regex::Deleter::operator()(pcre2_code* code) const {
  pcre2_code_free(code);
}

}  // namespace spin
