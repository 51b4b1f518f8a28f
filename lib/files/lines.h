// Text files read in order, in bounded memory: by lines, by words between blanks, or a JSON value a
// line. A line or word longer than its limit is refused by its number, not read to its end first.
#pragma once
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "lib/files/unpacked.h"

namespace moe {

// Bytes of a file, one after the other; of a compressed one those that it stands for.
class ByteReader {
 public:
  explicit ByteReader(const std::filesystem::path& path) : file_(path) {}
  // The next byte as 0..255, or -1 at the end.
  int next() {
    return at_ < buffer_.size() || fill() ? static_cast<unsigned char>(buffer_[at_++]) : -1;
  }
  const std::filesystem::path& path() const {
    return file_.path();
  }

 private:
  bool fill();

  UnpackedFile file_;
  std::vector<char> buffer_;
  std::size_t at_ = 0;
};

class LineReader {
 public:
  static constexpr std::size_t usual_limit = std::size_t(256) << 20;  // bytes of a line
  explicit LineReader(const std::filesystem::path& path, std::size_t limit = usual_limit)
      : bytes_(path), limit_(limit) {}
  // The next line without its end ("\n" or "\r\n"); false behind the last. Throws Error(input)
  // naming file and line where a line is longer than the limit.
  bool next(std::string& line);
  Index number() const {  // of the line read last, from 1
    return number_;
  }
  // Error(input): "'a.csv' line 3 WHY"
  [[noreturn]] void refuse(const std::string& why, const std::string& hint) const;

 private:
  ByteReader bytes_;
  std::size_t limit_;
  Index number_ = 0;
};

class WordReader {
 public:
  explicit WordReader(const std::filesystem::path& path) : bytes_(path) {}
  // The next word between white space; false behind the last. Of a word longer than 255 bytes the
  // first 256 are given, and no number is that long.
  bool next(std::string& word);

 private:
  ByteReader bytes_;
};

// JSON lines: a value a line, empty lines left out.
class JsonLineReader {
 public:
  // `example`: a right line, for the hint of a refusal
  JsonLineReader(const std::filesystem::path& path, std::string example)
      : lines_(path), example_(std::move(example)) {}
  // False behind the last line. Throws Error(input) naming file and line for what is not JSON (bad
  // UTF-8, NaN and Infinity are not).
  bool next(nlohmann::json& value);
  Index number() const {
    return lines_.number();
  }
  [[noreturn]] void refuse(const std::string& why) const {
    lines_.refuse(why, example_);
  }

 private:
  LineReader lines_;
  std::string example_, line_;
};

}  // namespace moe
