#include "kernels/cpu/isa.h"

#include <algorithm>
#include <atomic>

#include "common/check.h"
#include "kernels/cpu/isa_tables.h"

namespace spin::cpu {
namespace {

bool CanRun(Isa isa) {
  switch (isa) {
    case Isa::kGeneric:
      return true;
    case Isa::kAvx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case Isa::kAvx512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
             CanRun(Isa::kAvx2);
    case Isa::kAvx512Bf16:
      return __builtin_cpu_supports("avx512bf16") && CanRun(Isa::kAvx512);
  }
  return false;
}

const KernelTable& TableOf(Isa isa) {
  switch (isa) {
    case Isa::kGeneric:
      return kGenericTable;
    case Isa::kAvx2:
      return kAvx2Table;
    case Isa::kAvx512:
      return kAvx512Table;
    case Isa::kAvx512Bf16:
      return kAvx512Bf16Table;
  }
  return kGenericTable;
}

std::atomic<Isa>& Active() {
  static std::atomic<Isa> active{SupportedIsas().back()};
  return active;
}

}  // namespace

const char* NameOf(Isa isa) {
  switch (isa) {
    case Isa::kGeneric:
      return "generic";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx512Bf16:
      return "avx512_bf16";
  }
  return "unknown";
}

std::vector<Isa> SupportedIsas() {
  std::vector<Isa> isas;
  for (const Isa isa : {Isa::kGeneric, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16}) {
    if (CanRun(isa)) isas.push_back(isa);
  }
  return isas;
}

Isa ActiveIsa() {
  return Active().load(std::memory_order_relaxed);
}

void ForceIsa(Isa isa) {
  SPIN_CHECK(CanRun(isa));
  Active().store(isa, std::memory_order_relaxed);
}

const KernelTable& Kernels() {
  return TableOf(ActiveIsa());
}

}  // namespace spin::cpu
