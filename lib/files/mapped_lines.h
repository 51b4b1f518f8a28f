// Lines of a text file as views into its mapping: no copy, no limit but the file, and pages behind
// the reader are given back. What is compressed by gzip is inflated as it is read, a line at a time
// in memory.
#pragma once
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "lib/files/file.h"

namespace moe {

class MappedLines {
 public:
  explicit MappedLines(const std::filesystem::path&);
  ~MappedLines();
  // The next line without its end, valid until the next call; false behind the last one.
  bool next(std::string_view& line);
  Index number() const {  // of the line read last, from 1
    return number_;
  }
  // Lines stay valid as long as this object lives, not only until the next call.
  bool lasting() const {
    return inflater_ == nullptr;
  }
  // The line read last has no end of line: whoever wrote the file may have been stopped in it.
  bool unfinished() const {
    return unfinished_;
  }
  // "'a.jsonl' line 3"
  std::string where() const;
  const std::filesystem::path& path() const {
    return file_.path();
  }

 private:
  struct Inflater;
  bool next_inflated(std::string_view& line);

  InputFile file_;
  std::shared_ptr<const std::byte> bytes_;
  const char *at_ = nullptr, *end_ = nullptr, *kept_ = nullptr;
  std::unique_ptr<Inflater> inflater_;
  Index number_ = 0;
  bool unfinished_ = false;
};

// The first bytes of a file, inflated where it is compressed by gzip: what a format is recognised
// by. An empty file has none.
std::string first_bytes(const std::filesystem::path&, std::size_t count);

}  // namespace moe
