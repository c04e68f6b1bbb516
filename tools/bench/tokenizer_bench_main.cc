// tokenizer_bench TOKENIZER_JSON [TEXT_FILE]: one line of rates, over a fixed text or a file's first 16 MB.
#include <cstdio>
#include <string>

#include "common/mapped_file.h"
#include "common/status.h"
#include "models/tokenizer/utf8.h"
#include "tools/bench/tokenizer_bench.h"

int main(int argc, char** argv) {
  if (argc != 2 && argc != 3) {
    std::fprintf(stderr, "usage: %s TOKENIZER_JSON [TEXT_FILE]\n", argv[0]);
    return 2;
  }
  std::string text = spin::bench::TokenizerBenchText();
  if (argc == 3) {
    const auto file = spin::ReadTextFile(argv[2]);
    if (!file.ok()) {
      std::fprintf(stderr, "%s\n", spin::MessageOf(file.status()).c_str());
      return 1;
    }
    text.clear();
    spin::AppendUtf8Lossy(std::string_view(*file).substr(0, 16'000'000), &text);
  }
  const auto rates = spin::bench::MeasureTokenizer(argv[1], text);
  if (!rates.ok()) {
    std::fprintf(stderr, "%s\n", spin::MessageOf(rates.status()).c_str());
    return 1;
  }
  std::printf(
      "load %.0f ms, encode %.1f MB/s, decode %.1f MB/s, incremental %.1f MB/s, %.2f bytes a "
      "token\n",
      rates->load_ms, rates->encode_mb_s, rates->decode_mb_s, rates->increment_mb_s,
      rates->bytes_per_token);
  return 0;
}
