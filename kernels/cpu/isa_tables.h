// The kernel tables, one an instruction set; defined in isa_*.cc, read by isa.cc alone.
#pragma once

#include "kernels/cpu/isa.h"

namespace spin::cpu {

extern const KernelTable kGenericTable;
extern const KernelTable kAvx2Table;
extern const KernelTable kAvx512Table;
extern const KernelTable kAvx512Bf16Table;

}  // namespace spin::cpu
