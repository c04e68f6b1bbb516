// Writes small model folders for tests: safetensors files by hand, and a scratch folder.
#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace spin::testing {

// A folder of its own for one test, empty at first.
inline std::string ScratchFolder(const std::string& name) {
  const char* root = std::getenv("TEST_TMPDIR");
  const std::string folder = std::string(root == nullptr ? "/tmp" : root) + "/" + name;
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  return folder;
}

inline void WriteFile(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

// A whole file of this header text and data.
inline std::string SafetensorsBytes(const std::string& header, const std::string& data) {
  const uint64_t size = header.size();
  std::string file(sizeof(size), '\0');
  std::memcpy(file.data(), &size, sizeof(size));
  return file + header + data;
}

inline nlohmann::json TensorEntry(const std::string& dtype, const std::vector<int64_t>& shape,
                                  uint64_t begin, uint64_t end) {
  return {{"dtype", dtype}, {"shape", shape}, {"data_offsets", {begin, end}}};
}

// Two tensors and metadata: "a" BF16 [2, 3], "b" F32 [2].
inline std::string SmallSafetensors() {
  nlohmann::json header;
  header["__metadata__"] = {{"format", "pt"}};
  header["a"] = TensorEntry("BF16", {2, 3}, 0, 12);
  header["b"] = TensorEntry("F32", {2}, 12, 20);
  return SafetensorsBytes(header.dump(), std::string("abcdefghijklmnopqrst"));
}

// A Qwen3 config.json as transformers 5 writes it.
inline nlohmann::json SmallConfig() {
  return {{"architectures", {"Qwen3ForCausalLM"}},
          {"model_type", "qwen3"},
          {"hidden_size", 64},
          {"intermediate_size", 96},
          {"num_hidden_layers", 2},
          {"num_attention_heads", 4},
          {"num_key_value_heads", 2},
          {"head_dim", 64},
          {"vocab_size", 320},
          {"max_position_embeddings", 4096},
          {"rms_norm_eps", 1e-6},
          {"tie_word_embeddings", true},
          {"dtype", "bfloat16"},
          {"eos_token_id", {2, 3}},
          {"bos_token_id", 1},
          {"rope_parameters",
           {{"rope_type", "yarn"},
            {"rope_theta", 1e6},
            {"factor", 4.0},
            {"original_max_position_embeddings", 1024}}}};
}

}  // namespace spin::testing
