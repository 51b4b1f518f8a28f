// Python pickles as values, interpreted by a strict subset of the operations that executes nothing:
// numbers, texts, lists, dicts, and the few calls by which PyTorch and NumPy say "this is an
// array". Objects of other classes become opaque values that hold their name; what would call
// anything else is refused by that name.
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "lib/files/number_array.h"

namespace moe {

enum class PickleKind : std::uint8_t {
  none,
  boolean,
  whole,
  real,
  text,
  bytes,
  list,  // lists and tuples
  tuple,
  dict,
  array,  // a tensor or a NumPy array
  global,
  opaque,   // an object of a foreign class
  storage,  // what a tensor's numbers lie in
  dtype
};

struct PickleTree;

// One value; valid as long as the tree.
class PickleValue {
 public:
  PickleValue(const PickleTree& tree, std::uint32_t at) : tree_(&tree), at_(at) {}

  PickleKind kind() const;
  bool is(PickleKind k) const {
    return kind() == k;
  }
  bool is_list() const {
    return is(PickleKind::list) || is(PickleKind::tuple);
  }
  std::int64_t whole() const;  // of whole numbers and booleans; else Error(input)
  double real() const;
  const std::string& text() const;
  Index size() const;                                           // entries of a list, tuple or dict
  PickleValue item(Index i) const;                              // of a list or tuple
  PickleValue key(Index i) const;                               // of a dict, in the file's order
  PickleValue value(Index i) const;                             // of a dict
  std::optional<PickleValue> find(std::string_view key) const;  // in a dict
  const NumberArray& array() const;
  std::string about() const;  // "a list", "an object of the class a.B"

 private:
  [[noreturn]] void wrong(const char* wanted) const;
  const PickleTree* tree_;
  std::uint32_t at_;
};

// The bytes of a tensor's storage by its key; throws where there is none.
using PickleStorage = std::function<Bytes(const std::string& key)>;

// Throws Error(input) naming `name` for what is cut short, is not allowed or is too large.
std::shared_ptr<const PickleTree> read_pickle(std::string_view bytes, const std::string& name,
                                              const PickleStorage&);
PickleValue root_of(const PickleTree&);

}  // namespace moe
