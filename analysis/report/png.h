// A picture with a palette as a data URI: one byte a cell, so a map of a hundred thousand cells
// stays small in a page.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "analysis/report/colour.h"

namespace moe::drawing {

std::string png(std::span<const std::uint8_t> cells /*(rows,cols)*/, std::size_t rows,
                std::size_t cols, const std::vector<Rgb>& palette);
std::string data_uri(std::string_view png);  // "data:image/png;base64,..."

}  // namespace moe::drawing
