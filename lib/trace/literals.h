// Deflate streams without a search for matches (RFC 1951, in zlib's frame): a block of literals
// with a code of its own for each byte of the shuffled numbers, or, where they are all equal, a
// run. Numbers that do not repeat, as ids of experts and weights, gain nothing from matches, and
// looking for them is most of what deflating costs.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

namespace moe {

// Most bytes that deflate_literals writes for n bytes in so many planes.
std::size_t literals_bound(std::size_t n, std::size_t planes);

// Writes the stream of `in`, that many planes of equal size, and returns its bytes; `out` has room
// for literals_bound. The same bytes on every machine.
std::size_t deflate_literals(std::span<const std::uint8_t> in, std::size_t planes,
                             std::uint8_t* out);

// Whether that stream is about as short (3 %) as one with matches, as far as a part of each plane
// shows.
bool has_few_matches(std::span<const std::uint8_t> in, std::size_t planes);

}  // namespace moe
