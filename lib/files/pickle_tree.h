// The inside of a pickle's values: nodes of sixteen bytes that name their contents by number, so
// that shared references cost nothing and a list of millions of token ids stays small.
#pragma once
#include <map>
#include <vector>

#include "lib/files/pickle.h"

namespace moe {

struct PickleNode {
  PickleKind kind = PickleKind::none;
  std::uint32_t at = 0;  // index into texts, lists or arrays
  union {
    std::int64_t whole = 0;
    double real;
  };
};

struct PickleTree {
  std::string name;
  std::vector<PickleNode> nodes;
  std::vector<std::string> texts;                 // texts, bytes, names of globals and classes
  std::vector<std::vector<std::uint32_t>> lists;  // items; of a dict key, value, key, value ...
  std::vector<NumberArray> arrays;
  std::map<std::uint32_t, Bytes> shared;  // of texts that arrays lie in, by their number
  std::size_t text_bytes = 0;
  std::uint32_t root = 0;

  [[noreturn]] void refuse(const std::string& why) const;
};

// What a REDUCE or BUILD means: one of the allowed calls. Returns the node that stands for it.
std::uint32_t pickle_call(PickleTree&, std::uint32_t callable, std::uint32_t arguments,
                          const PickleStorage&);
void pickle_build(PickleTree&, std::uint32_t object, std::uint32_t state);
// ("storage", type, key, location, numel)
std::uint32_t pickle_storage(PickleTree&, std::uint32_t id);

std::uint32_t add_node(PickleTree&, PickleNode);
std::uint32_t add_text(PickleTree&, PickleKind, std::string);
std::uint32_t add_list(PickleTree&, PickleKind, std::vector<std::uint32_t>);

}  // namespace moe
