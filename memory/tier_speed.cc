#include "memory/tier_speed.h"

#include <absl/functional/function_ref.h>
#include <absl/strings/str_format.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <utility>

#include "common/check.h"
#include "common/math.h"
#include "common/random.h"
#include "common/units.h"

namespace spin {
namespace {

// What one measurement moves. Where the pools are a part of the host's memory they were not touched before, and each
// new page costs a fault; elsewhere it is several times the device's cache.
constexpr int64_t kSharedBytes = 16 * kMiB;
constexpr int64_t kDeviceBytes = 256 * kMiB;
constexpr int64_t kLeastBytes = kMiB;
constexpr int kRuns = 3;  // the fastest counts; the first also loads code and touches memory

// Pages of 8 to 128 tokens of one head of 64 in bfloat16; as many streams as a busy decode step has.
constexpr int32_t kHeadDim = 64;
constexpr int32_t kFewestTokens = 8;
constexpr int32_t kMostTokens = 128;
constexpr int32_t kRows = 32;
constexpr int32_t kHeads = 8;
constexpr int32_t kStreams = kRows * kHeads;

KvGeometry GeometryOf(int32_t page_tokens) {
  return {.num_layers = 1,
          .num_kv_heads = kHeads,
          .num_q_heads = kHeads,
          .head_dim = kHeadDim,
          .page_tokens = page_tokens,
          .max_rows = kRows,
          .dtype = DType::kBf16};
}

// The slot pool's first `bytes` receive, the next `bytes` are a copy's source or hold the lists of a gather. The
// host pool's first `bytes` are the other side of the link, and where lists are written.
class TierBench {
 public:
  TierBench(const KvStore& store, Device& device, Ops& ops, Stream& stream)
      : tables_(store.tables()),
        host_bytes_(store.plan().host_bytes),
        device_(device),
        ops_(ops),
        stream_(stream),
        begin_(device.CreateEvent()),
        end_(device.CreateEvent()) {
    bytes_ = std::min(device.info().shares_host_memory ? kSharedBytes : kDeviceBytes,
                      store.plan().slot_bytes / 2);
    if (host_bytes_ > 0) bytes_ = std::min(bytes_, host_bytes_);
    bytes_ -= bytes_ % GeometryOf(kMostTokens).page_bytes();
  }

  TierSpeed Run() {
    TierSpeed speed;
    if (bytes_ < kLeastBytes) return speed;
    auto* slots = static_cast<char*>(tables_.slots);
    speed.hbm_copy = 2 * CopyRate(slots, slots + bytes_);
    if (host_bytes_ == 0) return speed;
    speed.host_to_device = CopyRate(slots, tables_.host_pages);
    speed.device_to_host = CopyRate(tables_.host_pages, slots);
    for (int32_t tokens = kFewestTokens; tokens <= kMostTokens; tokens *= 2) {
      speed.gathers.push_back(GatherRate(tokens));
    }
    return speed;
  }

 private:
  double Rate(absl::FunctionRef<void()> enqueue) {
    int64_t least_ns = std::numeric_limits<int64_t>::max();
    for (int run = 0; run < kRuns; ++run) {
      device_.Record(*begin_, stream_);
      enqueue();
      device_.Record(*end_, stream_);
      device_.Synchronize(*end_);
      least_ns = std::min(least_ns, std::max<int64_t>(device_.ElapsedNs(*begin_, *end_), 1));
    }
    return static_cast<double>(bytes_) * 1e9 / static_cast<double>(least_ns);
  }

  double CopyRate(void* to, const void* from) {
    return Rate([&] { device_.Copy(to, from, bytes_, stream_); });
  }

  TierSpeed::Gather GatherRate(int32_t page_tokens);

  const KvTables tables_;
  const int64_t host_bytes_;
  Device& device_;
  Ops& ops_;
  Stream& stream_;
  std::unique_ptr<Event> begin_, end_;
  int64_t bytes_ = 0;  // of one measurement
};

// The lists of one gather, one after another in an area of memory.
struct GatherLists {
  GatherLists(void* area, int32_t max_list)
      : copy_src(static_cast<int64_t*>(area)),
        copy_dst(reinterpret_cast<int32_t*>(copy_src + int64_t{kStreams} * max_list)),
        copy_len(copy_dst + int64_t{kStreams} * max_list),
        num_rows(copy_len + kStreams),
        bytes(reinterpret_cast<char*>(num_rows + 1) - static_cast<char*>(area)) {}

  int64_t* copy_src;
  int32_t* copy_dst;
  int32_t* copy_len;
  int32_t* num_rows;
  int64_t bytes;
};

TierSpeed::Gather TierBench::GatherRate(int32_t page_tokens) {
  GatherPagesParams p = {.decode = {.max_batch = kRows}, .tables = tables_};
  p.tables.geometry = GeometryOf(page_tokens);
  const int64_t page_bytes = p.tables.geometry.page_bytes();
  const auto pages = Narrow<int32_t>(bytes_ / page_bytes);
  p.max_list = CeilDiv(pages, kStreams);
  GatherLists host(tables_.host_pages, p.max_list);
  GatherLists lists(static_cast<char*>(tables_.slots) + bytes_, p.max_list);
  SPIN_CHECK_LE(host.bytes, bytes_);

  // One page somewhere in each of `pages` equal parts of what the host holds, in random order; pages that nothing
  // touched yet are left alone where the host's memory is given page by page.
  const int64_t span = device_.info().shares_host_memory ? bytes_ : host_bytes_;
  const int64_t part = span / page_bytes / pages;
  Random random(static_cast<uint64_t>(page_tokens));
  for (int32_t i = 0; i < pages; ++i) {
    host.copy_src[i] = i * part + random.Between(0, part - 1);
    host.copy_dst[i] = i;
    std::swap(host.copy_src[i], host.copy_src[random.Below(static_cast<uint32_t>(i) + 1)]);
  }
  for (int32_t s = 0; s < kStreams; ++s) {
    host.copy_len[s] = std::clamp(pages - s * p.max_list, 0, p.max_list);
  }
  *host.num_rows = kRows;
  device_.Copy(lists.copy_src, host.copy_src, host.bytes, stream_);

  p.decode.num_rows = lists.num_rows;
  p.copy_src = lists.copy_src;
  p.copy_dst = lists.copy_dst;
  p.copy_len = lists.copy_len;
  return {.page_bytes = page_bytes, .rate = Rate([&] { ops_.GatherPages(p, stream_); })};
}

std::string Figure(double rate) {
  return rate > 0 ? absl::StrFormat("%.1f GB/s", rate * 1e-9) : "not measured";
}

}  // namespace

std::string TierSpeed::ToText() const {
  std::string text =
      absl::StrFormat("copy     in HBM %s, host to device %s, device to host %s\ngather   ",
                      Figure(hbm_copy), Figure(host_to_device), Figure(device_to_host));
  if (gathers.empty()) text += Figure(0);
  for (const Gather& gather : gathers) {
    absl::StrAppendFormat(&text, "%s%d KiB %.1f", &gather == gathers.data() ? "" : ", ",
                          gather.page_bytes / kKiB, gather.rate * 1e-9);
  }
  if (!gathers.empty()) text += " GB/s";
  return text;
}

TierSpeed MeasureTierSpeed(const KvStore& store, Device& device, Ops& ops, Stream& stream) {
  return TierBench(store, device, ops, stream).Run();
}

}  // namespace spin
