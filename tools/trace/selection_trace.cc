#include "tools/trace/selection_trace.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <functional>
#include <iterator>
#include <memory>
#include <utility>

#include "common/check.h"
#include "common/mapped_file.h"

namespace spin::trace {
namespace {

constexpr std::string_view kMagic = "SPINTRC\n";
constexpr uint32_t kVersion = 1;
constexpr int32_t kMaxCount = 1 << 24;       // of anything in the header
constexpr size_t kMaxText = 4096;            // bytes of a text
constexpr size_t kMaxIds = size_t{1} << 28;  // of a whole trace

// The numbers of the header in the file's order.
constexpr int32_t TraceHeader::*kFields[] = {&TraceHeader::num_layers,  &TraceHeader::num_kv_heads,
                                             &TraceHeader::page_tokens, &TraceHeader::budget_pages,
                                             &TraceHeader::fixed_pages, &TraceHeader::prompt_tokens,
                                             &TraceHeader::num_steps};

void PutU32(uint32_t value, std::string& to) {
  for (int shift = 0; shift < 32; shift += 8) to.push_back(static_cast<char>(value >> shift));
}

void PutText(const std::string& text, std::string& to) {
  PutU32(static_cast<uint32_t>(text.size()), to);
  to += text;
}

void PutVarint(uint32_t value, std::string& to) {
  for (; value >= 128; value >>= 7) to.push_back(static_cast<char>(value | 128));
  to.push_back(static_cast<char>(value));
}

// Reads what the functions above wrote; false at the end of the bytes or at a number that is too large.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : rest_(bytes) {}

  size_t left() const { return rest_.size(); }

  bool Skip(std::string_view expected) {
    if (rest_.substr(0, expected.size()) != expected) return false;
    rest_.remove_prefix(expected.size());
    return true;
  }

  bool U32(uint32_t& value) {
    if (rest_.size() < 4) return false;
    value = 0;
    for (int i = 3; i >= 0; --i) value = value << 8 | static_cast<uint8_t>(rest_[i]);
    rest_.remove_prefix(4);
    return true;
  }

  bool Text(std::string& text) {
    uint32_t size = 0;
    if (!U32(size) || size > kMaxText || size > rest_.size()) return false;
    text = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return true;
  }

  bool Varint(int32_t& value) {
    value = 0;
    for (int shift = 0; shift < 28 && !rest_.empty(); shift += 7) {
      const auto byte = static_cast<uint8_t>(rest_.front());
      rest_.remove_prefix(1);
      value |= (byte & 127) << shift;
      if (byte < 128) return true;
    }
    return false;
  }

 private:
  std::string_view rest_;
};

absl::Status ReadHeader(Reader& reader, TraceHeader& header) {
  uint32_t version = 0;
  if (!reader.Skip(kMagic)) return InvalidArgument("no selection trace: it begins otherwise");
  if (!reader.U32(version)) return InvalidArgument("the trace ends in its header");
  if (version != kVersion) {
    return InvalidArgument("a trace of version %d; this program reads %d", version, kVersion);
  }
  for (const auto field : kFields) {
    uint32_t value = 0;
    if (!reader.U32(value)) return InvalidArgument("the trace ends in its header");
    if (value == 0 || value > uint32_t{kMaxCount}) {
      return InvalidArgument("the trace's header has a number out of range: %d", value);
    }
    header.*field = static_cast<int32_t>(value);
  }
  if (header.fixed_pages > header.budget_pages) {
    return InvalidArgument("the trace fixes %d of %d pages", header.fixed_pages,
                           header.budget_pages);
  }
  if (!reader.Text(header.model) || !reader.Text(header.source)) {
    return InvalidArgument("the trace ends in its header, or has a text of over %d bytes",
                           kMaxText);
  }
  // A selection takes a byte at least: what the header says cannot make memory run out.
  const auto streams = static_cast<uint64_t>(header.num_layers) * header.num_kv_heads;
  if (streams > reader.left() || streams * header.num_steps > reader.left()) {
    return InvalidArgument("the trace has %d bytes for %d layers, %d heads and %d steps",
                           reader.left(), header.num_layers, header.num_kv_heads, header.num_steps);
  }
  return absl::OkStatus();
}

// The selection after `before`; no ids where the bytes are not one.
std::vector<int32_t> ReadSelection(Reader& reader, const TraceHeader& header, int32_t tail,
                                   std::span<const int32_t> before, std::vector<int32_t>& changed) {
  int32_t count = 0;
  if (!reader.Varint(count) || count > 2 * header.budget_pages) return {};
  changed.clear();
  for (int32_t i = 0, next = 0; i < count; ++i) {
    int32_t gap = 0;
    if (!reader.Varint(gap) || gap > tail - next) return {};
    changed.push_back(next + gap);
    next = changed.back() + 1;
  }
  std::vector<int32_t> ids;
  std::ranges::set_symmetric_difference(before, changed, std::back_inserter(ids));
  const bool valid =
      !ids.empty() && ids.back() == tail && static_cast<int32_t>(ids.size()) <= header.budget_pages;
  return valid ? ids : std::vector<int32_t>();
}

}  // namespace

SelectionTrace::SelectionTrace(TraceHeader header) : header_(std::move(header)) {
  for (const auto field : kFields) SPIN_CHECK(header_.*field > 0 && header_.*field <= kMaxCount);
  streams_.resize(static_cast<size_t>(header_.num_layers) * header_.num_kv_heads);
}

void SelectionTrace::Append(int32_t layer, int32_t head, std::span<const int32_t> ids) {
  SPIN_CHECK(layer >= 0 && layer < header_.num_layers && head >= 0 && head < header_.num_kv_heads);
  StreamTrace& stream = streams_[static_cast<size_t>(layer * header_.num_kv_heads + head)];
  const auto step = static_cast<int32_t>(stream.ends.size());
  SPIN_CHECK_LT(step, header_.num_steps);
  SPIN_CHECK(!ids.empty() && static_cast<int32_t>(ids.size()) <= header_.budget_pages);
  SPIN_CHECK(ids.front() >= 0 &&
             std::ranges::adjacent_find(ids, std::greater_equal<>()) == ids.end());
  SPIN_CHECK_EQ(ids.back(), header_.Tail(step));
  stream.ids.insert(stream.ids.end(), ids.begin(), ids.end());
  stream.ends.push_back(static_cast<int64_t>(stream.ids.size()));
}

bool SelectionTrace::complete() const {
  return std::ranges::all_of(streams_, [&](const StreamTrace& stream) {
    return static_cast<int32_t>(stream.ends.size()) == header_.num_steps;
  });
}

std::string SelectionTrace::Encode() const {
  SPIN_CHECK(complete());
  std::string bytes(kMagic);
  PutU32(kVersion, bytes);
  for (const auto field : kFields) PutU32(static_cast<uint32_t>(header_.*field), bytes);
  PutText(header_.model.substr(0, kMaxText), bytes);
  PutText(header_.source.substr(0, kMaxText), bytes);
  std::vector<int32_t> changed;
  for (const StreamTrace& stream : streams_) {
    std::span<const int32_t> before;
    for (int32_t step = 0; step < header_.num_steps; ++step) {
      const std::span<const int32_t> ids = stream.At(step);
      changed.clear();
      std::ranges::set_symmetric_difference(before, ids, std::back_inserter(changed));
      PutVarint(static_cast<uint32_t>(changed.size()), bytes);
      int32_t next = 0;
      for (const int32_t page : changed) {
        PutVarint(static_cast<uint32_t>(page - next), bytes);
        next = page + 1;
      }
      before = ids;
    }
  }
  return bytes;
}

absl::StatusOr<SelectionTrace> SelectionTrace::Decode(std::string_view bytes) {
  Reader reader(bytes);
  TraceHeader header;
  SPIN_RETURN_IF_ERROR(ReadHeader(reader, header));
  SelectionTrace trace(header);
  std::vector<int32_t> before, changed;
  size_t total = 0;
  for (int32_t layer = 0; layer < header.num_layers; ++layer) {
    for (int32_t head = 0; head < header.num_kv_heads; ++head) {
      before.clear();
      for (int32_t step = 0; step < header.num_steps; ++step) {
        before = ReadSelection(reader, header, header.Tail(step), before, changed);
        total += before.size();
        if (before.empty() || total > kMaxIds) {
          return InvalidArgument("the trace is damaged at layer %d, head %d, step %d", layer, head,
                                 step);
        }
        trace.Append(layer, head, before);
      }
    }
  }
  if (reader.left() > 0) return InvalidArgument("%d bytes follow the trace", reader.left());
  return trace;
}

absl::StatusOr<SelectionTrace> SelectionTrace::ReadFile(const std::string& path) {
  SPIN_ASSIGN_OR_RETURN(const std::string bytes, ReadTextFile(path));
  auto trace = Decode(bytes);
  if (!trace.ok()) return Annotate(trace.status(), path);
  return trace;
}

absl::Status SelectionTrace::WriteFile(const std::string& path) const {
  const std::string bytes = Encode();
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "wb"),
                                                       &std::fclose);
  if (file == nullptr || std::fwrite(bytes.data(), 1, bytes.size(), file.get()) != bytes.size() ||
      std::fflush(file.get()) != 0) {
    return Unavailable("%s: cannot write it: %s", path, std::strerror(errno));
  }
  return absl::OkStatus();
}

}  // namespace spin::trace
