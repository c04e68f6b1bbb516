// What this process may use of the machine: the control group's limits where there are any.
#pragma once

#include <cstdint>
#include <string>

namespace spin {

int64_t
MemoryLimitBytes();  // the least of MemTotal and the memory limits of the process's control groups
int UsableCores();   // >= 1; by affinity and CPU quota
std::string CpuModelName();  // "AMD EPYC 9655", or "CPU" where the system does not say

}  // namespace spin
