// Zip files of uncompressed entries, as numpy.savez writes them, in one pass: the size of an entry
// is said before its bytes come, its checksum stands behind them. Entries and files of 4 GiB and
// more take the 64-bit form.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/files/file.h"

namespace moe {

class ZipWriter {
 public:
  // Entries larger than `narrow`, or that begin behind it, take the 64-bit form.
  explicit ZipWriter(OutputFile& out, Index narrow = 0xFFFFFFFE) : out_(out), narrow_(narrow) {}

  // The next entry: its name and how many bytes will be written. Throws Error(bug) where the entry
  // before got another number of bytes.
  void begin(const std::string& name, Index bytes);
  void write(std::span<const std::byte>);
  void write(std::string_view text) {
    write(std::as_bytes(std::span(text)));
  }
  // The list of entries. Nothing may follow; whoever made the file commits it.
  void finish();

 private:
  struct Entry {
    std::string name;
    Index size = 0, at = 0;  // bytes; offset of its header
    std::uint32_t crc = 0;
    bool wide = false;
  };
  void end_entry();
  std::string list_entry(const Entry&) const;

  OutputFile& out_;
  Index narrow_, left_ = 0;  // bytes of the open entry still to come
  bool open_ = false;
  std::vector<Entry> entries_;
};

}  // namespace moe
