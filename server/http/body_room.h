// The bytes that the bodies of all connections may take together while they are read and handled.
#pragma once

#include <atomic>
#include <cstddef>

namespace spin {

// Any thread.
class BodyRoom {
 public:
  explicit BodyRoom(std::size_t bytes) : free_(static_cast<std::ptrdiff_t>(bytes)) {}

  // One body's share of the room. One thread at a time.
  class Share {
   public:
    explicit Share(BodyRoom& room) : room_(room) {}
    ~Share() { Release(); }
    Share(const Share&) = delete;
    Share& operator=(const Share&) = delete;

    // Makes the share `bytes` at least. False, and nothing changes: so much is not free.
    bool GrowTo(std::size_t bytes) {
      const auto more = static_cast<std::ptrdiff_t>(bytes) - bytes_;
      if (more <= 0) return true;
      if (room_.free_.fetch_sub(more, std::memory_order_relaxed) < more) {
        room_.free_.fetch_add(more, std::memory_order_relaxed);
        return false;
      }
      bytes_ += more;
      return true;
    }
    void Release() {
      room_.free_.fetch_add(bytes_, std::memory_order_relaxed);
      bytes_ = 0;
    }

   private:
    BodyRoom& room_;
    std::ptrdiff_t bytes_ = 0;
  };

 private:
  std::atomic<std::ptrdiff_t> free_;
};

}  // namespace spin
