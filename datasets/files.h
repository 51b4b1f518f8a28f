// Finding and reading the files of a text dataset: always in the same order, never the same file
// twice, and nothing that is not text unless it was asked for.
#pragma once
#include <filesystem>
#include <string>
#include <string_view>
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
  bool binary = false;   // take files that are not text
};

struct DomainText {
  std::string name;
  std::vector<Document> documents;
  Index bytes = 0;                          // of the documents
  bool limited = false;                     // the domain held more
  Index empty = 0, copies = 0, binary = 0;  // files left out; a copy would stand in both splits
  std::string first_binary;                 // "logo.png has a NUL byte at offset 8"
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
// The first place at or after `at` where no UTF-8 character is cut.
Index character_edge(std::string_view text, Index at);

}  // namespace moe
