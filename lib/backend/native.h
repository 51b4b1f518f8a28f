// Which operations a backend overrides, told from its class: a pointer to a member has the type of
// the class that declares the member.
#pragma once
#include <type_traits>

#include "lib/backend/backend.h"

namespace moe {

template <class B>
bool overrides(Operation op) {
  switch (op) {
#define OPERATION(Group, name, arguments) \
  case Operation::name:                   \
    return !std::is_same_v<decltype(&B::name), decltype(&Group<float>::name)>;
#include "lib/backend/operations.def"
  }
  return false;
}

}  // namespace moe
