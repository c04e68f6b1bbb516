#include "kernels/cuda/prefill_pieces.h"

#include <catch2/catch.hpp>

#include <bit>
#include <utility>
#include <vector>

namespace spin::cuda {
namespace {

struct Split {
  std::vector<PrefillSegment> pieces;
  std::vector<std::pair<int32_t, int32_t>> rests;
  std::vector<int> times;  // each token was covered
};

template <typename Accept>
Split SplitTile(const std::vector<PrefillSegment>& segments, Accept accept) {
  const int32_t n = segments.empty() ? 0 : segments.back().token_begin + segments.back().num_tokens;
  Split split;
  split.times.resize(static_cast<size_t>(n));
  const auto cover = [&](int32_t begin, int32_t end) {
    REQUIRE((0 <= begin && begin < end && end <= n));
    for (int32_t i = begin; i < end; ++i) ++split.times[static_cast<size_t>(i)];
  };
  PrefillAttentionParams tile;
  tile.n = n;
  tile.segments = segments.data();
  tile.num_segments = static_cast<int32_t>(segments.size());
  SplitPrefill(
      tile,
      [&](const PrefillSegment& piece) {
        if (!accept(piece)) return false;
        cover(piece.token_begin, piece.token_begin + piece.num_tokens);
        split.pieces.push_back(piece);
        return true;
      },
      [&](int32_t begin, int32_t end) {
        cover(begin, end);
        split.rests.emplace_back(begin, end);
      });
  return split;
}

const auto kAll = [](const PrefillSegment&) { return true; };
const auto kNone = [](const PrefillSegment&) { return false; };

bool Covered(const Split& split) {
  for (const int times : split.times) {
    if (times != 1) return false;
  }
  return true;
}

}  // namespace

TEST_CASE("whole tiles of a prompt are one piece each") {
  const Split split = SplitTile({{0, 8192, 64, 3 * 8192}}, kAll);
  REQUIRE(split.pieces.size() == 1);
  CHECK(split.rests.empty());
  CHECK(split.pieces[0].token_begin == 0);
  CHECK(split.pieces[0].num_tokens == 8192);
  CHECK(split.pieces[0].kv_begin == 64);
  CHECK(split.pieces[0].kv_tokens == 3 * 8192);
}

TEST_CASE("pieces are powers of two, end on a step of keys and keep the diagonal") {
  for (const int32_t position : {0, 1, 8, 255, 256, 300, 512, 1000, 8192, 100001}) {
    for (const int32_t tokens :
         {1, 200, 511, 512, 513, 767, 768, 1023, 1024, 1535, 5000, 16384, 40000}) {
      INFO("position " << position << ", tokens " << tokens);
      // Between two others, to see that the offsets of the tile count.
      const std::vector<PrefillSegment> segments = {
          {0, 100, 0, 100}, {100, tokens, 128, position + tokens}, {100 + tokens, 7, 8192, 9}};
      const Split split = SplitTile(segments, kAll);
      CHECK(Covered(split));
      int32_t in_pieces = 0;
      for (const PrefillSegment& piece : split.pieces) {
        CHECK(std::has_single_bit(static_cast<uint32_t>(piece.num_tokens)));
        CHECK((piece.num_tokens >= kPieceMinQueries && piece.num_tokens <= kPieceMaxQueries));
        CHECK(piece.kv_tokens % kPieceKeyStep == 0);
        CHECK(piece.kv_begin == 128);
        // The last query's own key is the last one.
        CHECK(piece.kv_tokens - (piece.token_begin + piece.num_tokens) == position - 100);
        in_pieces += piece.num_tokens;
      }
      CHECK(tokens - in_pieces < kPieceMinQueries + kPieceKeyStep);
    }
  }
}

TEST_CASE("what is refused goes to its neighbours, in one run") {
  const std::vector<PrefillSegment> segments = {
      {0, 600, 0, 600}, {600, 3000, 640, 3000}, {3600, 50, 4096, 50}};
  const Split none = SplitTile(segments, kNone);
  CHECK(Covered(none));
  CHECK(none.pieces.empty());
  CHECK(none.rests == std::vector<std::pair<int32_t, int32_t>>{{0, 3650}});

  const Split large =
      SplitTile(segments, [](const PrefillSegment& p) { return p.num_tokens > 512; });
  CHECK(Covered(large));
  CHECK(large.pieces.size() == 1);  // 2048 of the 3000; then 512 and 440 are left
  CHECK(large.rests == std::vector<std::pair<int32_t, int32_t>>{{0, 600}, {2648, 3650}});
}

TEST_CASE("an empty tile has no parts") {
  const Split split = SplitTile({}, kAll);
  CHECK((split.pieces.empty() && split.rests.empty()));
}

}  // namespace spin::cuda
