// The pieces of a vocabulary as a tree of bytes, its edges in one hash table.
#pragma once
#include <string_view>

#include "lib/tokenizer/flat_map.h"

namespace moe {

class Trie {
 public:
  // the same text again: the last id counts
  void add(std::string_view text, int id) {
    std::uint64_t node = 0;
    for (const char c : text) {
      std::uint64_t& next = edges_[edge(node, c)];
      if (next == FlatMap::none)
        next = nodes_++;
      node = next;
    }
    if (node > 0)
      ids_[node] = std::uint64_t(id);
  }
  // Calls found(bytes, id) for each piece that the text starts with, the shortest first.
  template <class Found>
  void prefixes(std::string_view text, Found&& found) const {
    std::uint64_t node = 0;
    for (std::size_t i = 0; i < text.size(); ++i) {
      node = edges_.find(edge(node, text[i]));
      if (node == FlatMap::none)
        return;
      const std::uint64_t id = ids_.find(node);
      if (id != FlatMap::none)
        found(i + 1, int(id));
    }
  }
  bool empty() const {
    return nodes_ == 1;
  }

 private:
  static std::uint64_t edge(std::uint64_t node, char c) {
    return node << 8 | static_cast<unsigned char>(c);
  }
  FlatMap edges_, ids_;
  std::uint64_t nodes_ = 1;
};

}  // namespace moe
