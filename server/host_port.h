// "127.0.0.1:8000"; an IPv6 address in brackets, as URLs and gRPC want it: "[::1]:8000".
#pragma once

#include <absl/strings/str_format.h>

#include <string>

namespace spin {

inline std::string HostPort(const std::string& host, int port) {
  const bool is_ipv6 = host.find(':') != std::string::npos;
  return is_ipv6 ? absl::StrFormat("[%s]:%d", host, port) : absl::StrFormat("%s:%d", host, port);
}

}  // namespace spin
