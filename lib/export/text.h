// Numbers and names as text, gathered until a window is full; which sequence of the export a row
// belongs to.
#pragma once
#include <charconv>
#include <concepts>
#include <string>
#include <string_view>
#include <vector>

#include "lib/files/file.h"
#include "lib/trace/trace.h"

namespace moe {

class ExportText {
 public:
  explicit ExportText(OutputFile& file) : file_(file) {}
  ExportText& operator<<(std::string_view text) {
    text_ += text;
    return *this;
  }
  ExportText& operator<<(char c) {
    text_ += c;
    return *this;
  }
  // The shortest decimal that reads back as the same number.
  template <class T>
  requires std::integral<T> || std::floating_point<T> ExportText& operator<<(T v) {
    char digits[40];
    const auto end = std::to_chars(digits, digits + sizeof digits, v).ptr;
    text_.append(digits, end);
    return *this;
  }
  // To the file, where so many bytes have come together.
  void flush(std::size_t at_least = 1) {
    if (text_.size() < at_least || text_.empty())
      return;
    file_.write(text_);
    text_.clear();
  }

 private:
  OutputFile& file_;
  std::string text_;
};

// Numbers the sequences of the rows that are exported, from 0. Rows are asked for in order.
class SequenceNumber {
 public:
  std::size_t of(const TraceRows& r, std::size_t row) {
    const std::uint64_t own = r.sequence.empty() ? 0 : r.sequence[row];
    if (own != last_)
      ++count_;
    last_ = own;
    return count_ - 1;
  }

 private:
  std::uint64_t last_ = UINT64_MAX;
  std::size_t count_ = 0;
};

}  // namespace moe
