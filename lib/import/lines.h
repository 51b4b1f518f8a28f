// Lines of separated numbers: what CSV and blank-separated dumps have in common.
#pragma once
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/files/mapped_lines.h"
#include "lib/import/inputs.h"

namespace moe {

class NumberLine {
 public:
  explicit NumberLine(const MappedLines& lines, std::string_view text)
      : lines_(&lines), text_(text) {}
  std::string_view text() const {
    return text_;
  }
  Index number() const {
    return lines_->number();
  }
  std::string where() const {
    return lines_->where();
  }
  std::vector<std::string_view> cells(char separator) const;
  // Every cell as a whole number; refuses others.
  std::vector<std::int64_t> wholes(char separator) const;
  std::int64_t whole(std::string_view cell) const;
  double real(std::string_view cell) const;  // "nan" is NaN
  [[noreturn]] void refuse(const std::string& why) const;

 private:
  const MappedLines* lines_;
  std::string_view text_;
};

// Calls `take` for each line that is not empty.
void each_line(const ImportFile&, const std::function<void(NumberLine&)>& take);

}  // namespace moe
