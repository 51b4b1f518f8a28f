// A printed list of what can be chosen: name, one line about it, example specs that `moe list`
// shows and the tests run, and how to make it. Filled from a .def file (one line an entry), so
// nothing registers itself and the linker can drop nothing.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "lib/core/text.h"

namespace moe {

// Throws Error(usage): "no router named 'sofmax'", with the list and the nearest name as the hint.
[[noreturn]] void no_such(std::string_view kind, std::string_view name,
                          const std::vector<std::string>& names);

template <class Make>  // a function type
struct Entry {
  std::string_view name, about, examples;  // examples: specs separated by spaces
  Make* make;
};

template <class Make>
class Registry {
 public:
  Registry(std::string_view kind, std::initializer_list<Entry<Make>> entries)
      : kind_(kind), entries_(entries) {}

  std::string_view kind() const {
    return kind_;
  }
  const std::vector<Entry<Make>>& entries() const {
    return entries_;
  }
  const Entry<Make>* find(std::string_view name) const {
    for (const auto& e : entries_) {
      if (e.name == name)
        return &e;
    }
    return nullptr;
  }
  const Entry<Make>& at(std::string_view name) const {
    if (const auto* e = find(name))
      return *e;
    no_such(kind_, name, names());
  }
  std::vector<std::string> names() const {
    std::vector<std::string> out;
    for (const auto& e : entries_)
      out.emplace_back(e.name);
    return out;
  }

 private:
  std::string_view kind_;
  std::vector<Entry<Make>> entries_;
};

}  // namespace moe
