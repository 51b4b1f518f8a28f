#include "lib/trace/literals.h"

#include <libdeflate.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <memory>
#include <numeric>
#include <vector>

#include "lib/core/error.h"

namespace moe {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr int end_of_block = 256;
constexpr int literals = 257;       // and the end of the block
constexpr int longest = 12;         // bits of a literal's code: four of them and a byte fit 64
constexpr int longest_of_code = 7;  // of a code for lengths of codes
constexpr int most_of_header = 400;

using Counts = std::array<std::uint32_t, literals>;

// Four tables, as equal bytes that follow each other would wait for each other in one.
Counts count_bytes(std::span<const std::uint8_t> in) {
  std::array<std::array<std::uint32_t, 256>, 4> part{};
  std::size_t i = 0;
  for (; i + 4 <= in.size(); i += 4) {
    ++part[0][in[i]];
    ++part[1][in[i + 1]];
    ++part[2][in[i + 2]];
    ++part[3][in[i + 3]];
  }
  for (; i < in.size(); ++i)
    ++part[0][in[i]];
  Counts out{};
  for (std::size_t b = 0; b < 256; ++b)
    out[b] = part[0][b] + part[1][b] + part[2][b] + part[3][b];
  return out;
}

// Depths of the leaves of Huffman's tree over `count` (ascending, at least two).
std::vector<int> depths(const std::vector<std::uint32_t>& count) {
  const std::size_t n = count.size();
  std::vector<std::uint64_t> weight(count.begin(), count.end());
  std::vector<std::size_t> parent(2 * n - 1, 0);
  std::size_t leaf = 0;
  std::size_t inner = n;
  const auto least = [&] {
    const bool take_leaf = leaf < n && (inner == weight.size() || weight[leaf] <= weight[inner]);
    return take_leaf ? leaf++ : inner++;
  };
  for (std::size_t made = n; made < 2 * n - 1; ++made) {
    const std::size_t a = least();
    const std::size_t b = least();
    weight.push_back(weight[a] + weight[b]);
    parent[a] = made;
    parent[b] = made;
  }
  std::vector<int> depth(2 * n - 1, 0);
  for (std::size_t i = 2 * n - 2; i-- > 0;)
    depth[i] = depth[parent[i]] + 1;
  depth.resize(n);
  return depth;
}

// Bits of the code of every symbol, none above `most`; 0 = it does not occur. A single symbol gets
// one bit.
std::vector<std::uint8_t> code_lengths(std::span<const std::uint32_t> count, int most) {
  std::vector<std::uint8_t> out(count.size(), 0);
  std::vector<std::size_t> order;
  for (std::size_t s = 0; s < count.size(); ++s) {
    if (count[s] > 0)
      order.push_back(s);
  }
  std::ranges::stable_sort(order, {}, [&](std::size_t s) { return count[s]; });
  if (order.size() < 2) {
    for (const std::size_t s : order)
      out[s] = 1;
    return out;
  }
  std::vector<std::uint32_t> sorted;
  for (const std::size_t s : order)
    sorted.push_back(count[s]);
  std::vector<int> of_length(std::size_t(most) + 1, 0);
  for (const int depth : depths(sorted))
    ++of_length[std::size_t(std::min(depth, most))];
  // codes that were cut to `most` bits are too many: others become longer until all fit
  std::int64_t over = -(std::int64_t(1) << most);
  for (int l = 1; l <= most; ++l)
    over += std::int64_t(of_length[std::size_t(l)]) << (most - l);
  for (; over > 0; --over) {
    int l = most - 1;
    while (of_length[std::size_t(l)] == 0)
      --l;
    --of_length[std::size_t(l)];
    of_length[std::size_t(l) + 1] += 2;
    --of_length[std::size_t(most)];
  }
  std::size_t at = 0;
  for (int l = most; l > 0; --l) {
    for (int i = 0; i < of_length[std::size_t(l)]; ++i)
      out[order[at++]] = std::uint8_t(l);
  }
  return out;
}

struct Code {
  std::uint16_t bits = 0;
  std::uint16_t length = 0;
};

// The canonical code of these lengths, first bit lowest.
std::vector<Code> codes_of(std::span<const std::uint8_t> length) {
  std::array<std::uint32_t, 16> of_length{};
  for (const std::uint8_t l : length)
    of_length[l] += l > 0;
  std::array<std::uint32_t, 16> next{};
  for (std::size_t l = 1; l < next.size(); ++l)
    next[l] = (next[l - 1] + of_length[l - 1]) << 1;
  std::vector<Code> out;
  for (const std::uint8_t l : length) {
    Code c{0, l};
    const std::uint32_t code = l > 0 ? next[l]++ : 0;
    for (std::uint32_t i = 0; i < l; ++i)
      c.bits = std::uint16_t(c.bits | (code >> i & 1) << (l - 1u - i));
    out.push_back(c);
  }
  return out;
}

class BitWriter {
 public:
  explicit BitWriter(std::uint8_t* out) : out_(out) {}
  // After at most 56 bits since the last flush.
  void put(std::uint64_t bits, unsigned count) {
    held_ |= bits << count_;
    count_ += count;
  }
  void flush() {
    std::memcpy(out_, &held_, 8);
    out_ += count_ / 8;
    held_ >>= count_ & ~7u;
    count_ &= 7;
  }
  std::uint8_t* end() {
    count_ = (count_ + 7) & ~7u;
    flush();
    return out_;
  }

 private:
  std::uint8_t* out_;
  std::uint64_t held_ = 0;
  unsigned count_ = 0;
};

struct LengthSymbol {  // RFC 1951, 3.2.7
  std::uint8_t symbol, extra_bits, extra;
};

// Runs of equal lengths as the format has them.
std::vector<LengthSymbol> length_symbols(std::span<const std::uint8_t> length) {
  std::vector<LengthSymbol> out;
  for (std::size_t i = 0; i < length.size();) {
    const std::uint8_t l = length[i];
    std::size_t run = 1;
    while (i + run < length.size() && length[i + run] == l)
      ++run;
    i += run;
    if (l > 0) {
      out.push_back({l, 0, 0});
      --run;
    }
    const std::size_t most = l == 0 ? 138 : 6;
    while (run >= 3) {
      const std::size_t n = std::min(run, most);
      if (l > 0)
        out.push_back({16, 2, std::uint8_t(n - 3)});
      else if (n <= 10)
        out.push_back({17, 3, std::uint8_t(n - 3)});
      else
        out.push_back({18, 7, std::uint8_t(n - 11)});
      run -= n;
    }
    out.insert(out.end(), run, LengthSymbol{l, 0, 0});
  }
  return out;
}

// The head of a block: its codes. Two distances are named, which nothing uses, since some readers
// refuse a code of fewer.
void put_head(BitWriter& to, std::vector<std::uint8_t> lengths, bool last_block) {
  lengths.insert(lengths.end(), 2, std::uint8_t(1));
  const std::vector<LengthSymbol> symbols = length_symbols(lengths);
  std::array<std::uint32_t, 19> count{};
  for (const LengthSymbol& s : symbols)
    ++count[s.symbol];
  const std::vector<std::uint8_t> length = code_lengths(count, longest_of_code);
  const std::vector<Code> code = codes_of(length);
  constexpr std::array<std::uint8_t, 19> order{16, 17, 18, 0, 8,  7, 9,  6, 10, 5,
                                               11, 4,  12, 3, 13, 2, 14, 1, 15};
  std::size_t last = order.size();
  while (last > 4 && length[order[last - 1]] == 0)
    --last;
  to.put(last_block, 1);
  to.put(2, 2);  // codes of its own
  to.put(literals - 257, 5);
  to.put(1, 5);  // distances - 1
  to.put(last - 4, 4);
  to.flush();
  for (std::size_t i = 0; i < last; ++i) {
    to.put(length[order[i]], 3);
    to.flush();
  }
  for (const LengthSymbol& s : symbols) {
    to.put(code[s.symbol].bits, code[s.symbol].length);
    to.put(s.extra, s.extra_bits);
    to.flush();
  }
}

void put_literals(BitWriter& to, std::span<const std::uint8_t> in, bool last_block) {
  Counts count = count_bytes(in);
  count[end_of_block] = 1;
  const std::vector<std::uint8_t> lengths = code_lengths(count, longest);
  const std::vector<Code> code = codes_of(lengths);
  put_head(to, lengths, last_block);
  std::size_t i = 0;
  for (; i + 4 <= in.size(); i += 4) {
    for (std::size_t j = 0; j < 4; ++j) {
      const Code c = code[in[i + j]];
      to.put(c.bits, c.length);
    }
    to.flush();
  }
  for (; i < in.size(); ++i) {
    const Code c = code[in[i]];
    to.put(c.bits, c.length);
    to.flush();
  }
  to.put(code[end_of_block].bits, code[end_of_block].length);
  to.flush();
}

// The format's fixed code of a literal or length (3.2.6), which has its first bit highest.
void put_fixed(BitWriter& to, unsigned symbol) {
  unsigned length = 8;
  unsigned code = 0;
  if (symbol < 144) {
    code = 0x30 + symbol;
  } else if (symbol < 256) {
    code = 0x190 + symbol - 144;
    length = 9;
  } else if (symbol < 280) {
    code = symbol - 256;
    length = 7;
  } else {
    code = 0xc0 + symbol - 280;
  }
  unsigned bits = 0;
  for (unsigned i = 0; i < length; ++i)
    bits |= (code >> i & 1) << (length - 1 - i);
  to.put(bits, length);
  to.flush();
}

// A byte and the same again: lengths 258 and 3 to 10, which have no further bits, one byte back.
void put_run(BitWriter& to, std::uint8_t byte, std::size_t n, bool last_block) {
  to.put(last_block, 1);
  to.put(1, 2);  // fixed codes
  put_fixed(to, byte);
  const auto again = [&](unsigned symbol) {
    put_fixed(to, symbol);
    to.put(0, 5);  // one back
    to.flush();
  };
  std::size_t left = n - 1;
  for (; left >= 258; left -= 258)
    again(285);
  while (left >= 3) {
    const std::size_t length = std::min<std::size_t>(left, 10);
    again(unsigned(257 + length - 3));
    left -= length;
  }
  for (; left > 0; --left)
    put_fixed(to, byte);
  put_fixed(to, end_of_block);
}

bool is_run(std::span<const std::uint8_t> in) {
  return !in.empty() && std::memcmp(in.data(), in.data() + 1, in.size() - 1) == 0;
}

// Bits that the literals of `count` take at least.
double entropy_bits(const Counts& count) {
  double n = 0;
  double out = 0;
  for (const std::uint32_t c : count)
    n += c;
  for (const std::uint32_t c : count) {
    if (c > 0)
      out += c * std::log2(n / c);
  }
  return out;
}

// How many words of three bytes occurred before, by a small table of where.
std::size_t repeats(std::span<const std::uint8_t> in) {
  constexpr int bits = 12;
  constexpr std::size_t places = std::size_t(1) << bits;
  std::array<std::uint16_t, places> seen{};
  std::size_t out = 0;
  for (std::size_t i = 0; i + 4 <= in.size(); ++i) {
    std::uint32_t word = 0;
    std::memcpy(&word, &in[i], 4);
    word &= 0xffffff;
    const std::uint32_t hash = word * 0x9e3779b1u >> (32 - bits);
    const std::size_t before = seen[hash];
    seen[hash] = std::uint16_t(i);
    out += before < i && std::memcmp(&in[before], &word, 3) == 0;
  }
  return out;
}

std::size_t with_matches(std::span<const std::uint8_t> in) {
  using Compressor = std::unique_ptr<libdeflate_compressor, decltype(&libdeflate_free_compressor)>;
  thread_local const Compressor held(libdeflate_alloc_compressor(1), libdeflate_free_compressor);
  if (!held)
    throw Error(Exit::memory, "no memory to deflate a chunk");
  std::vector<std::uint8_t> out(libdeflate_deflate_compress_bound(held.get(), in.size()));
  return libdeflate_deflate_compress(held.get(), in.data(), in.size(), out.data(), out.size());
}

bool has_few_matches(std::span<const std::uint8_t> plane) {
  constexpr std::size_t part = 8192;
  if (is_run(plane))
    return true;
  const std::size_t n = std::min(plane.size(), part);
  const std::span<const std::uint8_t> some = plane.subspan((plane.size() - n) / 2, n);
  if (repeats(some) <= some.size() / 32)
    return true;
  const double by_literals = entropy_bits(count_bytes(some)) / 8;
  return double(with_matches(some)) > 0.97 * by_literals;
}

}  // namespace

std::size_t literals_bound(std::size_t n, std::size_t planes) {
  return n + n / 2 + planes * most_of_header + 16;  // 12 bits a byte, and whole words are written
}

std::size_t deflate_literals(std::span<const std::uint8_t> in, std::size_t planes,
                             std::uint8_t* out) {
  out[0] = 0x78;  // deflate, a window of 32 KiB
  out[1] = 0x01;  // made for speed
  BitWriter to(out + 2);
  const std::size_t size = in.size() / planes;
  for (std::size_t p = 0; p < planes; ++p) {
    const std::span<const std::uint8_t> plane = in.subspan(p * size, size);
    const bool last = p + 1 == planes;
    if (is_run(plane))
      put_run(to, plane[0], size, last);
    else
      put_literals(to, plane, last);
  }
  std::uint8_t* at = to.end();
  const std::uint32_t sum = libdeflate_adler32(1, in.data(), in.size());
  for (int i = 3; i >= 0; --i)
    *at++ = std::uint8_t(sum >> (8 * i));
  return std::size_t(at - out);
}

bool has_few_matches(std::span<const std::uint8_t> in, std::size_t planes) {
  const std::size_t size = in.size() / planes;
  if (in.size() % planes != 0 || size < 512)
    return false;  // a code would be longer than what it saves
  for (std::size_t p = 0; p < planes; ++p) {
    if (!has_few_matches(in.subspan(p * size, size)))
      return false;
  }
  return true;
}

}  // namespace moe
