// The three filters of the format done outside the HDF5 library: chunks are packed and unpacked on
// several threads while the library, with its one lock, only moves bytes. What comes out is what
// its own pipeline shuffle, deflate 1, fletcher32 accepts.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace moe {

enum class Filter : int { deflate = 1, shuffle = 2, fletcher32 = 3 };  // HDF5's numbers

// Shuffles (elements of more than one byte), deflates and appends the checksum. `longer` adds a
// byte behind the deflate stream, where inflate does not look: a chunk that is written again must
// not land on its committed older self.
std::vector<std::uint8_t> pack(std::span<const std::uint8_t> raw, std::size_t element, bool longer,
                               int level = 1);

// Undoes `pipeline` (in the order of writing; bit i of `skipped` = filter i was not applied) into
// exactly out.size() bytes. Throws Error(input) naming what does not fit; never writes past `out`,
// however long the stream.
void unpack(std::span<const std::uint8_t> packed, const std::vector<Filter>& pipeline,
            std::uint32_t skipped, std::size_t element, std::span<std::uint8_t> out);

}  // namespace moe
