// Numbers that training moves without a gradient, by name: what a checkpoint holds besides
// parameters (a correction bias, a temperature, the coefficient of a loss).
#pragma once
#include <span>
#include <string>
#include <utility>

namespace moe {

using State = std::pair<std::string, std::span<double>>;

}  // namespace moe
