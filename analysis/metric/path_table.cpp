#include "analysis/metric/path_table.h"

#include <algorithm>

namespace moe {

std::size_t PathTable::hash(const std::uint16_t* path) const {
  std::uint64_t h = 0x9E3779B97F4A7C15;
  for (std::size_t i = 0; i < length_; ++i) {
    h = (h ^ path[i]) * 0xD6E8FEB86659FD93;
    h ^= h >> 29;
  }
  return std::size_t(h ^ h >> 32);
}

void PathTable::index(std::size_t slots) {
  slot_.assign(slots, 0);
  for (std::size_t i = 0; i < size(); ++i) {
    std::size_t at = hash(path(i).data()) & (slots - 1);
    while (slot_[at])
      at = (at + 1) & (slots - 1);
    slot_[at] = std::uint32_t(i + 1);
  }
}

std::size_t PathTable::add(const std::uint16_t* wanted) {
  const std::size_t mask = slot_.size() - 1;
  std::size_t at = hash(wanted) & mask;
  for (; slot_[at]; at = (at + 1) & mask) {
    if (const std::size_t i = slot_[at] - 1;
        std::equal(wanted, wanted + length_, key_.data() + i * length_)) {
      ++count_[i];
      return i;
    }
  }
  key_.insert(key_.end(), wanted, wanted + length_);
  count_.push_back(1);
  slot_[at] = std::uint32_t(size());
  if (2 * size() > slot_.size())
    index(2 * slot_.size());
  return size() - 1;
}

std::vector<std::size_t> PathTable::thin() {
  std::vector<std::size_t> stay;
  std::size_t kept = 0;
  for (std::size_t i = 0; i < size(); ++i) {
    if (count_[i] == 1)
      continue;
    count_[kept] = count_[i] - 1;
    std::copy_n(key_.data() + i * length_, length_, key_.data() + kept * length_);
    stay.push_back(i);
    ++kept;
  }
  count_.resize(kept);
  key_.resize(kept * length_);
  index(slot_.size());
  return stay;
}

}  // namespace moe
