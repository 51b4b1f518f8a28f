// Arrays as numpy.save writes them, read a stretch at a time: a file of any size takes one buffer.
// What cannot be right (a header that is cut short, a length that is not what the shape takes) is
// refused when the file is opened, before anything is allocated by what it says.
#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/files/file.h"

namespace moe {

// What the header of a .npy file says, and where its numbers begin.
struct NpyHeader {
  std::string type;          // "<u2": byte order, kind (u i f b c ...), bytes of a number
  char kind = 0;             // 'u' unsigned, 'i' signed whole numbers, ...
  int width = 0;             // bytes of a number
  std::vector<Index> shape;  // of a scalar: empty
  Index numbers = 1;         // product of the shape
  Index data_at = 0;         // offset of the first number
  bool by_column = false;    // the first index runs fastest ("fortran_order")
};

// The header of a whole .npy file in memory, of any kind of element ('U' is text of `width`
// characters of 4 bytes, 'S' of bytes). Throws Error(input) that begins with `name` where it is
// none, holds Python objects, or has another length than its shape takes.
NpyHeader npy_header(std::string_view bytes, const std::string& name);

class NpyFile {
 public:
  // Throws Error(input) naming the file where it is missing, is no NumPy file, is stored column by
  // column, is big-endian or has another length than its shape takes.
  explicit NpyFile(const std::filesystem::path&);
  const NpyHeader& header() const {
    return header_;
  }
  // The next whole numbers in C order: fills `out`, or less of it at the end of the file. Throws
  // Error(input) for other kinds of numbers, and for one above 2^63 - 1.
  std::size_t read(std::span<std::int64_t> out);

 private:
  InputFile file_;
  NpyHeader header_;
  Index read_ = 0;  // numbers
  std::vector<char> buffer_;
};

}  // namespace moe
