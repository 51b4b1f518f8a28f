// How often each path was seen: keys of fixed length in one array behind an open-addressed table,
// since a map of strings asks the system for memory with every new path.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace moe {

class PathTable {
 public:
  explicit PathTable(std::size_t length) : length_(length), slot_(1024, 0) {}
  // its number, until the next thin()
  std::size_t add(const std::uint16_t* path /*(length)*/);
  // One less of each; those that were seen once go. Former numbers of those that stay, in order.
  std::vector<std::size_t> thin();
  std::size_t size() const {
    return count_.size();
  }
  std::int64_t count(std::size_t i) const {
    return count_[i];
  }
  std::span<const std::uint16_t> path(std::size_t i) const {
    return {key_.data() + i * length_, length_};
  }

 private:
  std::size_t hash(const std::uint16_t* path) const;
  void index(std::size_t slots);
  std::size_t length_;
  std::vector<std::uint32_t> slot_;  // a power of 2 of them; 0 = free, else number + 1
  std::vector<std::uint16_t> key_;   // (paths, length)
  std::vector<std::int64_t> count_;  // (paths)
};

}  // namespace moe
