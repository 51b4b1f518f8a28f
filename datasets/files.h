// Finding and reading the files of a text dataset: always in the same order, never the same text
// twice, and nothing that is not text unless it was asked for. Files compressed with gzip or zstd
// are read as what they stand for.
#pragma once
#include <filesystem>
#include <limits>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "lib/core/view.h"

namespace moe {

struct Document {
  std::string text;
  bool whole = true;  // false: a limit cut its end off
};

struct Reading {
  Index limit = 0;       // bytes a domain; 0 = all
  Index file_limit = 0;  // bytes of one file; 0 = all
  bool binary = false;   // take files that are not text, as they are
  // Files are JSON lines, and this key of a line is its text (json_texts.h); "" = files are text
  std::string field = {};
};

struct DomainText {
  std::string name;
  std::vector<Document> documents;
  Index bytes = 0;       // of the documents
  bool limited = false;  // the domain held more
  // files (lines of JSON lines) left out; a copy would stand in both splits
  Index empty = 0, copies = 0, binary = 0;
  std::string first_binary;      // "logo.png has a NUL byte at offset 8"
  const char* counted = "file";  // what a document is
  Index json_files = 0;          // JSON lines that were taken as text
};

// A domain as its documents come.
class DomainCollector {
 public:
  DomainCollector(std::string name, Index limit);
  // Bytes that the limit leaves; 0 = the domain is full.
  Index room() const {
    return limit_ == 0 ? std::numeric_limits<Index>::max() : limit_ - domain.bytes;
  }
  // Adds a document unless it is empty or a copy; false if it was left out. whole: a limit did not
  // cut it. counted: what it takes of the limit. Throws Error(memory) for more text than this
  // machine can hold.
  bool add(std::string text, bool whole, Index counted);

  DomainText domain;

 private:
  Index limit_;
  std::unordered_set<std::size_t> seen_;  // hashes of whole documents
};

using Paths = std::vector<std::filesystem::path>;

// Patterns of `glob=`, separated by commas; one with a '/' is held against the path below the
// folder, others against the name.
bool matches(const std::string& patterns, const std::filesystem::path& below);
// Every file below a folder that matches, hidden ones left out, sorted by path. Unreadable folders
// throw Error(io) unless `skip_denied`.
Paths files_below(const std::filesystem::path& folder, const std::string& patterns,
                  bool skip_denied = false);
// The text of these files, in this order, up to the limits. Throws Error(io) for a file that cannot
// be read, unless `skip_denied`.
DomainText read_domain(const std::string& name, const Paths&, const Reading&,
                       bool skip_denied = false);
// Why these bytes are not text ("has a NUL byte at offset 8"), or "".
std::string not_text(std::string_view bytes);
// A limit may have cut the last character: leaves out what is left of it.
void drop_cut_character(std::string&);
// The first place at or after `at` where no UTF-8 character is cut.
Index character_edge(std::string_view text, Index at);

}  // namespace moe
