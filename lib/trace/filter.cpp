// Shuffle, deflate, fletcher32: see filter.h.
#include "lib/trace/filter.h"

#include <zlib.h>

#include <cstring>

#include "lib/core/error.h"

namespace moe {
namespace {

// Byte j of every element, then byte j+1 of every element: equal high bytes stand together and
// deflate well.
void shuffle(std::span<const std::uint8_t> in, std::size_t element, std::uint8_t* out) {
  const std::size_t n = in.size() / element;
  for (std::size_t j = 0; j < element; ++j) {
    for (std::size_t i = 0; i < n; ++i)
      out[j * n + i] = in[i * element + j];
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

void inflate_into(std::span<const std::uint8_t> in, std::span<std::uint8_t> out) {
  z_stream z{};
  if (inflateInit(&z) != Z_OK)
    throw Error(Exit::memory, "zlib cannot start");
  z.next_in = const_cast<Bytef*>(in.data());
  z.avail_in = uInt(in.size());
  z.next_out = out.data();
  z.avail_out = uInt(out.size());
  const int end = inflate(&z, Z_FINISH);
  const bool whole = end == Z_STREAM_END && z.avail_out == 0;
  inflateEnd(&z);
  if (!whole)
    throw Error(Exit::input, "its deflate stream is damaged or has not the size of a chunk");
}

}  // namespace

std::vector<std::uint8_t> pack(std::span<const std::uint8_t> raw, std::size_t element, bool longer,
                               int level) {
  std::vector<std::uint8_t> shuffled;
  if (element > 1) {
    shuffled.resize(raw.size());
    shuffle(raw, element, shuffled.data());
  }
  std::vector<std::uint8_t> out(compressBound(uLong(raw.size())) + 5);
  uLongf size = uLongf(out.size());
  if (compress2(out.data(), &size, element > 1 ? shuffled.data() : raw.data(), uLong(raw.size()),
                level) != Z_OK) {
    throw Error(Exit::memory, "zlib cannot deflate a chunk");
  }
  if (longer)
    out[size++] = 0;
  const std::uint32_t sum = fletcher32({out.data(), size});
  for (int i = 0; i < 4; ++i)
    out[size++] = std::uint8_t(sum >> (8 * i));
  out.resize(size);
  return out;
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
