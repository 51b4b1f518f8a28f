// Columns of the tables that `moe plan` prints.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "analysis/table.h"

namespace moe {

inline Column text_column(std::string name, std::vector<std::string> cells) {
  return {.name = std::move(name), .cells = std::move(cells)};
}
inline Column number_column(std::string name, std::string unit, std::string meaning,
                            std::vector<double> cells, int digits) {
  return {.name = std::move(name),
          .unit = std::move(unit),
          .meaning = std::move(meaning),
          .cells = std::move(cells),
          .digits = digits};
}

}  // namespace moe
