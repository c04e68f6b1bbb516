// What the CUDA kernels do not serve is refused by its key before anything is loaded, on any machine.
#include "server/backend_limits.h"

#include <catch2/catch.hpp>

#include <string>

#include "kernels/cuda/cuda_limits.h"

namespace spin {
namespace {

constexpr int64_t kHopperShared = 227 << 10;
constexpr int64_t kBlackwellShared = 99 << 10;  // of sm_120

// Llama-3.1-8B's shape with a context of 128K, in pages of 8 tokens.
BackendDemand Demand() {
  return {.geometry = {.num_layers = 32,
                       .num_kv_heads = 8,
                       .num_q_heads = 32,
                       .head_dim = 128,
                       .page_tokens = 8,
                       .max_rows = 128,
                       .max_extents = 256},
          .vocab_size = 128256,
          .max_num_seqs = 64,
          .prefill_tile_tokens = 8192};
}

BackendDemand RetroInferDemand(int32_t context, int32_t retrieve_permille) {
  BackendDemand demand = Demand();
  demand.geometry.max_extents = context / kExtentTokens;
  demand.geometry.partition_tokens = 16;
  demand.retrieved_clusters = context / 16 * retrieve_permille / 1000;
  return demand;
}

std::string Refusal(const BackendDemand& demand, int64_t shared_bytes = kHopperShared) {
  const absl::Status status =
      CheckBackendLimits(cuda::LimitsOf(demand.geometry, shared_bytes), demand);
  CHECK((status.ok() || absl::IsInvalidArgument(status)));
  CHECK(CheckBackendLimits(OpsLimits(), demand).ok());  // a CPU serves it
  return MessageOf(status);
}

bool Names(const std::string& message, const std::string& key) {
  return message.rfind(key + ":", 0) == 0;
}

TEST_CASE("shapes of the supported models are served") {
  CHECK(Refusal(Demand()) == "");
  CHECK(Refusal(RetroInferDemand(128 << 10, 18)) == "");
  CHECK(Refusal(RetroInferDemand(1 << 20, 18)) == "");
}

TEST_CASE("more than 8 query heads a KV head are refused") {
  BackendDemand demand = Demand();
  demand.geometry.num_q_heads = 64;
  CHECK(Refusal(demand) == "");
  demand.geometry.num_q_heads = 128;  // Llama-3.1-405B
  const std::string message = Refusal(demand);
  CHECK(Names(message, "config.json num_attention_heads"));
  CHECK(message.find("16 query heads") != std::string::npos);
}

TEST_CASE("vocabularies beyond what a row's mass has bits for are refused") {
  BackendDemand demand = Demand();
  demand.vocab_size = 1 << 19;
  CHECK(Refusal(demand) == "");
  ++demand.vocab_size;
  CHECK(Names(Refusal(demand), "config.json vocab_size"));
}

TEST_CASE("prefill tiles of more rows than a grid has are refused") {
  BackendDemand demand = Demand();
  demand.prefill_tile_tokens = 65535;
  CHECK(Refusal(demand) == "");
  demand.prefill_tile_tokens = 65536;
  CHECK(Names(Refusal(demand), "scheduler.prefill_tile_tokens"));
}

TEST_CASE("keys too wide for a factor's shared memory are refused, with a rank alone") {
  BackendDemand demand = Demand();
  demand.geometry.num_kv_heads = demand.geometry.num_q_heads = 64;
  CHECK(Refusal(demand) == "");
  demand.geometry.key_rank = 160;
  CHECK(Names(Refusal(demand), "sparse.shadowkv.rank"));
  demand.geometry.num_kv_heads = 32;
  CHECK(Refusal(demand) == "");
  CHECK(Names(Refusal(demand, kBlackwellShared), "sparse.shadowkv.rank"));
}

TEST_CASE("more clusters than shared memory ranks are refused, with the most that would do") {
  CHECK(Refusal(RetroInferDemand(128 << 10, 1000)) == "");  // 8192 of them
  const BackendDemand all = RetroInferDemand(256 << 10, 1000);
  const std::string message = Refusal(all);
  CHECK(Names(message, "sparse.retroinfer.retrieve_permille"));
  CHECK(message.find("16384 clusters") != std::string::npos);
  CHECK(message.find("at most 8192") != std::string::npos);
  CHECK(cuda::ClusterRoom(all.geometry, 16384).Bytes() > kHopperShared);
  CHECK(cuda::ClusterRoom(all.geometry, 8192).Bytes() + cuda::kClusterStaticBytes <= kHopperShared);
  // Where marks of the pages alone take too much.
  CHECK(Names(Refusal(RetroInferDemand(2 << 20, 1)), "sparse.retroinfer.retrieve_permille"));
}

TEST_CASE("more streams with clusters than tickets are refused") {
  BackendDemand demand = RetroInferDemand(128 << 10, 18);
  demand.geometry.num_kv_heads = 32;
  demand.max_num_seqs = 2048;
  CHECK(Refusal(demand) == "");
  demand.max_num_seqs = 2049;
  CHECK(Names(Refusal(demand), "scheduler.max_num_seqs"));
  demand.retrieved_clusters = 0;  // another algorithm
  CHECK(Refusal(demand) == "");
}

}  // namespace
}  // namespace spin
