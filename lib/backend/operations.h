// The operations of a backend by name, from operations.def.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace moe {

enum class Operation {
#define OPERATION(group, name, arguments) name,
#include "lib/backend/operations.def"
};

const std::vector<Operation>& operations();        // all of them, in the order of the list
std::string_view name_of(Operation);               // "linear"
std::vector<std::string> arguments_of(Operation);  // "x", "w", "y", "beta"
bool is_composed(Operation);                       // made of other operations

}  // namespace moe
