// Shuffle, deflate, fletcher32: see filter.h.
#include "lib/trace/filter.h"

#include <libdeflate.h>

#include <cstring>
#include <memory>

#include "lib/core/error.h"
#include "lib/trace/literals.h"

namespace moe {
namespace {

// Byte j of every element, then byte j+1 of every element: equal high bytes stand together and
// deflate well.
void shuffle(std::span<const std::uint8_t> in, std::size_t element, std::uint8_t* __restrict out) {
  const std::size_t n = in.size() / element;
  if (element == 2) {
    for (std::size_t i = 0; i < n; ++i) {
      out[i] = in[2 * i];
      out[n + i] = in[2 * i + 1];
    }
  } else {
    for (std::size_t j = 0; j < element; ++j) {
      for (std::size_t i = 0; i < n; ++i)
        out[j * n + i] = in[i * element + j];
    }
  }
  std::memcpy(out + n * element, in.data() + n * element, in.size() - n * element);
}

void unshuffle(std::span<const std::uint8_t> in, std::size_t element, std::uint8_t* out) {
  const std::size_t n = in.size() / element;
  if (element == 2) {
    const std::uint8_t* low = in.data();
    const std::uint8_t* high = low + n;
    for (std::size_t i = 0; i < n; ++i) {
      out[2 * i] = low[i];
      out[2 * i + 1] = high[i];
    }
  } else {
    for (std::size_t j = 0; j < element; ++j) {
      for (std::size_t i = 0; i < n; ++i)
        out[i * element + j] = in[j * n + i];
    }
  }
  std::memcpy(out + n * element, in.data() + n * element, in.size() - n * element);
}

// Fletcher's sum over big-endian 16-bit words, modulo 65535; an odd last byte is a high byte. Sums
// are folded every 360 words, before 32 bits can overflow.
std::uint32_t fletcher32(std::span<const std::uint8_t> data) {
  std::uint32_t low = 0;
  std::uint32_t high = 0;
  const auto fold = [](std::uint32_t v) {
    return (v & 0xffff) + (v >> 16);
  };
  const std::size_t words = data.size() / 2;
  for (std::size_t i = 0; i < words;) {
    for (const std::size_t last = std::min(words, i + 360); i < last; ++i) {
      low += std::uint32_t(data[2 * i]) << 8 | data[2 * i + 1];
      high += low;
    }
    low = fold(low);
    high = fold(high);
  }
  if (data.size() % 2) {
    low += std::uint32_t(data.back()) << 8;
    high += low;
    low = fold(low);
    high = fold(high);
  }
  return fold(high) << 16 | fold(low);
}

using Compressor = std::unique_ptr<libdeflate_compressor, decltype(&libdeflate_free_compressor)>;
using Decompressor =
    std::unique_ptr<libdeflate_decompressor, decltype(&libdeflate_free_decompressor)>;

// One a thread, as its tables are larger than most chunks; made again for another level.
libdeflate_compressor* compressor(int level) {
  thread_local Compressor held(nullptr, libdeflate_free_compressor);
  thread_local int held_level = -1;
  if (held_level != level) {
    held.reset(libdeflate_alloc_compressor(level));
    held_level = held ? level : -1;
  }
  if (!held)
    throw Error(Exit::memory, "no memory to deflate a chunk");
  return held.get();
}

// The bytes of the stream in `out`, which has room for five more. Matches are looked for where
// there are some, or more time was asked for.
std::size_t deflate_into(std::vector<std::uint8_t>& out, std::span<const std::uint8_t> in,
                         std::size_t element, int level) {
  constexpr std::size_t room = 5;
  if (level == 1 && has_few_matches(in, element)) {
    out.resize(std::max(out.size(), literals_bound(in.size(), element) + room));
    return deflate_literals(in, element, out.data());
  }
  libdeflate_compressor* const deflate = compressor(level);
  out.resize(std::max(out.size(), libdeflate_zlib_compress_bound(deflate, in.size()) + room));
  const std::size_t size =
      libdeflate_zlib_compress(deflate, in.data(), in.size(), out.data(), out.size() - room);
  if (size == 0)
    throw Error(Exit::bug, "a chunk does not fit the room that its deflate stream may take");
  return size;
}

// What follows the stream is not looked at: see `longer` of pack.
void inflate_into(std::span<const std::uint8_t> in, std::span<std::uint8_t> out) {
  thread_local const Decompressor held(libdeflate_alloc_decompressor(),
                                       libdeflate_free_decompressor);
  if (!held)
    throw Error(Exit::memory, "no memory to inflate a chunk");
  std::size_t read = 0;
  if (libdeflate_zlib_decompress_ex(held.get(), in.data(), in.size(), out.data(), out.size(), &read,
                                    nullptr) != LIBDEFLATE_SUCCESS)
    throw Error(Exit::input, "its deflate stream is damaged or has not the size of a chunk");
}

}  // namespace

std::vector<std::uint8_t> pack(std::span<const std::uint8_t> raw, std::size_t element, bool longer,
                               int level) {
  thread_local std::vector<std::uint8_t> shuffled;
  thread_local std::vector<std::uint8_t> out;
  if (element > 1) {
    shuffled.resize(raw.size());
    shuffle(raw, element, shuffled.data());
  }
  const std::uint8_t* from = element > 1 ? shuffled.data() : raw.data();
  std::size_t size = deflate_into(out, {from, raw.size()}, element, level);
  if (longer)
    out[size++] = 0;
  const std::uint32_t sum = fletcher32({out.data(), size});
  for (int i = 0; i < 4; ++i)
    out[size++] = std::uint8_t(sum >> (8 * i));
  return {out.begin(), out.begin() + std::ptrdiff_t(size)};
}

void unpack(std::span<const std::uint8_t> packed, const std::vector<Filter>& pipeline,
            std::uint32_t skipped, std::size_t element, std::span<std::uint8_t> out) {
  thread_local std::vector<std::uint8_t> held[2];
  std::size_t turn = 0;
  for (std::size_t i = pipeline.size(); i-- > 0;) {
    if (skipped >> i & 1)
      continue;
    auto& next = held[turn ^= 1];
    if (pipeline[i] == Filter::fletcher32) {
      if (packed.size() < 4)
        throw Error(Exit::input, "it is shorter than its checksum");
      const auto* tail = packed.data() + packed.size() - 4;
      packed = packed.first(packed.size() - 4);
      const std::uint32_t sum = fletcher32(packed);
      for (int b = 0; b < 4; ++b) {
        if (tail[b] != std::uint8_t(sum >> (8 * b)))
          throw Error(Exit::input, "its checksum does not fit its bytes");
      }
      continue;
    }
    if (pipeline[i] == Filter::deflate) {
      next.resize(out.size());
      inflate_into(packed, next);
    } else {
      if (element <= 1)
        continue;
      next.resize(packed.size());
      unshuffle(packed, element, next.data());
    }
    packed = next;
  }
  if (packed.size() != out.size())
    throw Error(Exit::input, "it has not the size of a chunk");
  std::memcpy(out.data(), packed.data(), out.size());
}

}  // namespace moe
