// A hash table from 64-bit keys to 64-bit values in one array of pairs: a lookup is one or two
// lines of cache. Keys are put in once, at load; what is looked up millions of times a second is
// why it is not std::unordered_map.
#pragma once
#include <bit>
#include <cstdint>
#include <vector>

namespace moe {

class FlatMap {
 public:
  static constexpr std::uint64_t none = ~std::uint64_t(0);  // no key, and no value

  explicit FlatMap(std::size_t expected = 0) {
    resize(std::bit_ceil(expected * 8 / 5 + 16));
  }
  std::size_t size() const {
    return size_;
  }
  std::uint64_t find(std::uint64_t key) const {
    for (std::size_t at = slot(key);; at = (at + 1) & mask_) {
      const Entry& e = entries_[at];
      if (e.key == key)
        return e.value;
      if (e.key == none)
        return none;
    }
  }
  // the value of a key, `none` where it is new
  std::uint64_t& operator[](std::uint64_t key) {
    if ((size_ + 1) * 8 > entries_.size() * 5)
      grow();
    Entry& e = place(key);
    if (e.key == none) {
      e.key = key;
      ++size_;
    }
    return e.value;
  }

 private:
  struct Entry {
    std::uint64_t key = none, value = none;
  };
  std::size_t slot(std::uint64_t key) const {
    return std::size_t((key * 0x9E3779B97F4A7C15u) >> shift_);
  }
  Entry& place(std::uint64_t key) {
    std::size_t at = slot(key);
    while (entries_[at].key != key && entries_[at].key != none)
      at = (at + 1) & mask_;
    return entries_[at];
  }
  void resize(std::size_t size) {
    entries_.assign(size, Entry{});
    mask_ = size - 1;
    shift_ = 64 - std::countr_zero(size);
  }
  void grow() {
    std::vector<Entry> old = std::move(entries_);
    resize(old.size() * 2);
    for (const Entry& e : old) {
      if (e.key != none)
        place(e.key) = e;
    }
  }

  std::vector<Entry> entries_;
  std::size_t mask_ = 0, size_ = 0;
  int shift_ = 0;
};

}  // namespace moe
