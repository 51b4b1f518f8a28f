// Files are found and read one way for every text dataset: sorted, copies dropped, bytes that are
// no text told apart by counting what is neither a UTF-8 character nor white space.
#include "datasets/files.h"

#include <fnmatch.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <unordered_set>

#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {
namespace {

namespace fs = std::filesystem;

bool hidden(const fs::path& p) {
  return p.filename().native().starts_with('.');
}

[[noreturn]] void unreadable(const fs::path& path, const std::string& reason) {
  throw Error(Exit::io, concat("'", path.native(), "' cannot be read: ", reason))
      .hint("check its permissions, or choose other files with glob=");
}

// At most `most` bytes of a file.
std::string read_file(const fs::path& path, Index most) {
  errno = 0;
  std::ifstream in(path, std::ios::binary);
  if (!in)
    unreadable(path, std::strerror(errno));
  std::string bytes(std::size_t(most), '\0');
  in.read(bytes.data(), most);
  if (in.bad())
    unreadable(path, std::strerror(errno));
  bytes.resize(std::size_t(in.gcount()));
  return bytes;
}

bool continues(unsigned char c) {
  return (c & 0xC0) == 0x80;
}

// Length of the character that starts here, 0 if it is none.
std::size_t character_length(std::string_view s) {
  const auto c = static_cast<unsigned char>(s[0]);
  const std::size_t n = c < 0x80                ? 1
                        : c >= 0xC2 && c < 0xE0 ? 2
                        : c >= 0xE0 && c < 0xF0 ? 3
                        : c >= 0xF0 && c < 0xF5 ? 4
                                                : 0;
  if (n == 0 || n > s.size())
    return 0;
  for (std::size_t i = 1; i < n; ++i) {
    if (!continues(static_cast<unsigned char>(s[i])))
      return 0;
  }
  return n;
}

// A limit may have cut the last character: leave out what is left of it.
void drop_cut_character(std::string& s) {
  std::size_t lead = s.size();
  while (lead > 0 && s.size() - lead < 3 && continues(static_cast<unsigned char>(s[lead - 1])))
    --lead;
  if (lead > 0 && character_length(std::string_view(s).substr(lead - 1)) == 0)
    s.resize(lead - 1);
}

bool is_control(char c) {
  return (static_cast<unsigned char>(c) < 0x20 && !std::strchr("\t\n\v\f\r\b\x1b", c)) || c == 0x7F;
}

// Adds a document unless it is empty, a copy or not text; false if it was left out.
bool take(DomainText& domain, const fs::path& path, std::string bytes, bool whole, bool binary,
          std::unordered_set<std::size_t>& seen) {
  if (bytes.empty()) {
    domain.empty += whole;
    return false;
  }
  if (const std::string reason = binary ? "" : not_text(bytes); !reason.empty()) {
    if (domain.binary++ == 0)
      domain.first_binary = concat("'", path.native(), "' ", reason);
    return false;
  }
  const auto begins_so = [&](const Document& d) {
    return d.text.starts_with(bytes);
  };
  if (!seen.insert(std::hash<std::string>()(bytes)).second ||
      (!whole && std::ranges::any_of(domain.documents, begins_so))) {
    ++domain.copies;
    return false;
  }
  domain.documents.push_back({std::move(bytes), whole});
  return true;
}

}  // namespace

bool matches(const std::string& patterns, const fs::path& below) {
  return std::ranges::any_of(split(patterns, ','), [&](const std::string& p) {
    return fnmatch(p.c_str(), (p.find('/') != p.npos ? below : below.filename()).c_str(), 0) == 0;
  });
}

Paths files_below(const fs::path& folder, const std::string& patterns, bool skip_denied) {
  Paths found;
  std::error_code code;
  const auto options =
      skip_denied ? fs::directory_options::skip_permission_denied : fs::directory_options::none;
  fs::recursive_directory_iterator it(folder, options, code);
  for (; !code && it != fs::recursive_directory_iterator(); it.increment(code)) {
    std::error_code ignored;  // a link that leads nowhere is no file
    if (hidden(it->path())) {
      it.disable_recursion_pending();
    } else if (it->is_regular_file(ignored) &&
               matches(patterns, it->path().lexically_relative(folder))) {
      found.push_back(it->path());
    }
  }
  if (code && !skip_denied)
    unreadable(folder, code.message());
  std::ranges::sort(found);
  return found;
}

DomainText read_domain(const std::string& name, const Paths& files, const Reading& reading,
                       bool skip_denied) {
  DomainText domain{.name = name, .documents = {}, .first_binary = {}};
  std::unordered_set<std::size_t> seen;  // hashes of whole files
  for (const fs::path& path : files) {
    std::error_code code;
    const Index size = Index(fs::file_size(path, code));
    if (code && skip_denied)
      continue;
    if (code)
      unreadable(path, code.message());
    const Index room = reading.limit ? reading.limit - domain.bytes : size;
    if (size > 0 && room <= 0) {
      domain.limited = true;
      break;
    }
    const Index most = std::min({size, room, reading.file_limit ? reading.file_limit : size});
    std::string bytes;
    try {
      bytes = read_file(path, most);
    } catch (const Error&) {
      if (skip_denied)
        continue;
      throw;
    }
    const bool whole = most == size;
    if (!whole && !reading.binary)
      drop_cut_character(bytes);
    const bool nothing_left = bytes.empty() && !whole;
    const bool taken = take(domain, path, std::move(bytes), whole, reading.binary, seen);
    domain.limited |= (taken || nothing_left) && most == room && !whole;
    domain.bytes += taken ? most : 0;
  }
  return domain;
}

std::string not_text(std::string_view bytes) {
  if (const auto at = bytes.find('\0'); at != bytes.npos)
    return concat("has a NUL byte at offset ", at);
  std::size_t odd = 0;
  for (std::size_t i = 0; i < bytes.size();) {
    const std::size_t n = character_length(bytes.substr(i));
    odd += n == 0 || is_control(bytes[i]);
    i += std::max<std::size_t>(n, 1);
  }
  if (odd * 10 <= bytes.size())
    return {};
  return concat("is not UTF-8 text: ", odd * 100 / bytes.size(), " % of its ", bytes.size(),
                " bytes are no part of a printable character");
}

Index character_edge(std::string_view text, Index at) {
  for (int i = 0; i < 3 && at < Index(text.size()) &&
                  continues(static_cast<unsigned char>(text[std::size_t(at)]));
       ++i) {
    ++at;
  }
  return at;
}

}  // namespace moe
