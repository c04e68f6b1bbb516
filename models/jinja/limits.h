// Every bound of the Jinja interpreter in one place: no template and no message may hang or exhaust
// the server.
//
// A chat template of today is 1-20 KB, makes about 30 steps a message and copies each content a few
// times; the bounds leave a conversation of a million tokens (about 5 MB of text) a wide margin.
#pragma once

#include <cstddef>
#include <cstdint>

namespace spin::jinja {

inline constexpr size_t kMaxSourceBytes = size_t{1} << 20;  // template text
inline constexpr int kMaxSyntaxDepth = 150;                 // nesting of expressions and of blocks
inline constexpr int kMaxDepth = 400;            // nested evaluations, macro calls included
inline constexpr int kMaxValueDepth = 200;       // lists in lists, mappings in mappings
inline constexpr int64_t kMaxSteps = 5'000'000;  // nodes evaluated, items visited
inline constexpr size_t kMaxStringBytes = size_t{64} << 20;  // one string, the output included
inline constexpr size_t kMaxTotalBytes = size_t{1}
                                         << 30;  // all strings one render makes, one after another
inline constexpr int64_t kMaxRange = 100'000;    // range(), the same bound as Jinja's own sandbox

}  // namespace spin::jinja
