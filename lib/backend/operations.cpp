#include "lib/backend/operations.h"

#include "lib/core/text.h"

namespace moe {
namespace {

struct Described {
  Operation op;
  std::string_view name, arguments;
  bool composed;
};
constexpr Described described[] = {
#define OPERATION(group, name, arguments) {Operation::name, #name, arguments, false},
#define COMPOSED(group, name, arguments) {Operation::name, #name, arguments, true},
#include "lib/backend/operations.def"
};

}  // namespace

const std::vector<Operation>& operations() {
  static const std::vector<Operation> all = [] {
    std::vector<Operation> out;
    for (const Described& d : described)
      out.push_back(d.op);
    return out;
  }();
  return all;
}
std::string_view name_of(Operation op) {
  return described[std::size_t(op)].name;
}
std::vector<std::string> arguments_of(Operation op) {
  std::vector<std::string> out;
  for (std::string_view left = described[std::size_t(op)].arguments; !left.empty();) {
    const std::size_t end = std::min(left.find(", "), left.size());
    out.emplace_back(left.substr(0, end));
    left.remove_prefix(std::min(end + 2, left.size()));
  }
  return out;
}
bool is_composed(Operation op) {
  return described[std::size_t(op)].composed;
}

}  // namespace moe
