// A file mapped read-only. Owns the mapping; the bytes live as long as the object. Any thread may read.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "common/status.h"

namespace spin {

class MappedFile {
 public:
  // NotFound when it does not exist, InvalidArgument when it is empty or no regular file.
  static absl::StatusOr<MappedFile> Open(const std::string& path);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  MappedFile(const std::byte* data, std::size_t size) : data_(data), size_(size) {}

  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

// A whole small file as text; refuses files over `max_bytes`.
absl::StatusOr<std::string> ReadTextFile(const std::string& path, int64_t max_bytes = 256 << 20);

}  // namespace spin
