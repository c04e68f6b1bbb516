#include "server/http/random_id.h"

#include <absl/strings/str_format.h>

#include <algorithm>
#include <atomic>
#include <cctype>
#include <cstdint>
#include <random>

#include "common/random.h"

namespace spin {

std::string MakeRandomId(std::string_view prefix) {
  struct Seed {
    std::random_device device;
    uint64_t key = (uint64_t{device()} << 32) | device();
    uint64_t high = (uint64_t{device()} << 32) | device();
  };
  static const Seed seed;
  static std::atomic<uint64_t> counter{0};
  const auto bits = Philox(seed.key, counter.fetch_add(1, std::memory_order_relaxed), seed.high);
  return absl::StrFormat("%s%08x%08x%08x%08x", prefix, bits[0], bits[1], bits[2], bits[3]);
}

std::string RequestIdFor(std::string_view from_client) {
  const bool sane = !from_client.empty() && from_client.size() <= 128 &&
                    std::all_of(from_client.begin(), from_client.end(), [](char c) {
                      return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' ||
                             c == '_' || c == '.' || c == ':';
                    });
  return sane ? std::string(from_client) : MakeRandomId("req-");
}

}  // namespace spin
