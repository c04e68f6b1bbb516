#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/cluster_kernels.h"
#include "kernels/cpu/gemm_kernels.h"
#include "kernels/cpu/isa_tables.h"
#include "kernels/cpu/row_kernels.h"

namespace spin::cpu {

const KernelTable kGenericTable = {
    .rms_norm = RmsNormRow,
    .silu_mul = SiluMulRow,
    .rope = RopeRow,
    .gemm = GemmPanels,
    .attend = Attend,
    .assign_clusters = AssignClusters,
    .bf16_dots = Bf16Dots,
    .prefill_bf16 = nullptr,
};

}  // namespace spin::cpu
