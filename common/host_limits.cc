#include "common/host_limits.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <sstream>

namespace spin {
namespace {

// Path of the process's control group in the unified hierarchy, "" where there is none: the line
// "0::/path".
std::string ControlGroup() {
  std::ifstream in("/proc/self/cgroup");
  for (std::string line; std::getline(in, line);) {
    if (line.rfind("0::", 0) == 0) return line.substr(3);
  }
  return "";
}

// Calls read(directory) for the process's control group and all above it.
template <typename Read>
void ForEachControlGroup(Read read) {
  std::string path = ControlGroup();
  while (!path.empty() && path.back() == '/') path.pop_back();
  for (;;) {
    read("/sys/fs/cgroup" + path);
    if (path.empty()) return;
    path.resize(path.rfind('/') == std::string::npos ? 0 : path.rfind('/'));
  }
}

}  // namespace

int64_t MemoryLimitBytes() {
  int64_t limit = int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE);
  const auto lower_to = [&](const std::string& file) {
    std::ifstream in(file);
    // "max" does not parse as a number: no limit here.
    if (int64_t bytes = 0; in >> bytes && bytes > 0) limit = std::min(limit, bytes);
  };
  ForEachControlGroup([&](const std::string& dir) { lower_to(dir + "/memory.max"); });
  lower_to("/sys/fs/cgroup/memory/memory.limit_in_bytes");
  return limit;
}

int UsableCores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  int64_t cores = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set)
                                                               : sysconf(_SC_NPROCESSORS_ONLN);
  ForEachControlGroup([&](const std::string& dir) {
    std::ifstream in(dir + "/cpu.max");
    int64_t quota = 0;
    int64_t period = 0;
    if (in >> quota >> period && quota > 0 && period > 0) {
      cores = std::min(cores, (quota + period - 1) / period);
    }
  });
  return static_cast<int>(std::max<int64_t>(1, cores));
}

std::string CpuModelName() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);) {
    const auto colon = line.find(": ");
    if (line.rfind("model name", 0) == 0 && colon != std::string::npos)
      return line.substr(colon + 2);
  }
  return "CPU";
}

}  // namespace spin
