// Files are found and read one way for every text dataset: sorted, copies dropped, bytes that are
// no text told apart by counting what is neither a UTF-8 character nor white space.
#include "datasets/files.h"

#include <fnmatch.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "datasets/json_texts.h"
#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/unpacked.h"

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

// Text is kept in memory: half of the machine's is as much as it may take.
void refuse_more_than_memory(const std::string& what, Index bytes) {
  const double most = 0.5 * double(sysconf(_SC_PHYS_PAGES)) * double(sysconf(_SC_PAGESIZE));
  if (double(bytes) <= most)
    return;
  throw Error(Exit::memory, concat("the text of ", in_quotes(what), " is more than ",
                                   bytes_text(most), ", half of the memory of this machine"))
      .hint("limit= takes the first bytes of each domain");
}

// The beginning of a file.
struct Beginning {
  std::string text;
  bool whole;  // it is all of the file
};

// At most `most` bytes of a file that is read as it is.
Beginning read_plain(const fs::path& path, Index most) {
  errno = 0;
  std::ifstream in(path, std::ios::binary);
  if (!in)
    unreadable(path, std::strerror(errno));
  std::error_code code;
  const Index size = Index(fs::file_size(path, code));
  if (code)
    unreadable(path, code.message());
  std::string bytes(std::size_t(std::min(most, size)), '\0');
  in.read(bytes.data(), Index(bytes.size()));
  if (in.bad())
    unreadable(path, std::strerror(errno));
  bytes.resize(std::size_t(in.gcount()));
  return {std::move(bytes), most >= size};
}

// At most `most` bytes of what a compressed file stands for, however long that is.
Beginning read_unpacked(UnpackedFile& file, Index most) {
  constexpr std::size_t step = std::size_t(1) << 20;
  std::string bytes;
  for (bool more = true; more;) {
    const std::size_t before = bytes.size();
    const std::size_t wanted = std::min(step, std::size_t(most) - before);
    refuse_more_than_memory(file.path().native(), Index(before + wanted));
    bytes.resize(before + wanted);
    bytes.resize(before + file.read(std::span(bytes).subspan(before)));
    more = wanted > 0 && bytes.size() == before + wanted;
  }
  char next = 0;
  const bool whole = Index(bytes.size()) < most || file.read({&next, 1}) == 0;
  return {std::move(bytes), whole};
}

Beginning read_beginning(const fs::path& path, Index most, bool unpack) {
  if (!unpack)
    return read_plain(path, most);
  UnpackedFile file(path);
  return file.packed() ? read_unpacked(file, most) : read_plain(path, most);
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

bool is_control(char c) {
  return (static_cast<unsigned char>(c) < 0x20 && !std::strchr("\t\n\v\f\r\b\x1b", c)) || c == 0x7F;
}

// Adds a file unless it is empty, a copy or not text.
bool take(DomainCollector& out, const fs::path& path, Beginning file, Index counted, bool binary) {
  const std::string reason = binary || file.text.empty() ? "" : not_text(file.text);
  if (reason.empty())
    return out.add(std::move(file.text), file.whole, counted);
  if (out.domain.binary++ == 0)
    out.domain.first_binary = concat("'", path.native(), "' ", reason);
  return false;
}

// Adds a file, or as much of it as the limits leave.
void add_file(DomainCollector& out, const fs::path& path, const Reading& reading) {
  const Index room = out.room();
  const Index most = reading.file_limit ? std::min(room, reading.file_limit) : room;
  Beginning file = read_beginning(path, most, !reading.binary);
  const bool whole = file.whole;
  const Index counted = Index(file.text.size());
  if (!whole && !reading.binary)
    drop_cut_character(file.text);
  const bool nothing_left = file.text.empty() && !whole;
  const bool taken = take(out, path, std::move(file), counted, reading.binary);
  const std::string ending = without_packing(path).extension();
  out.domain.json_files += taken && (ending == ".jsonl" || ending == ".ndjson");
  out.domain.limited |= (taken || nothing_left) && most == room && !whole;
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

DomainCollector::DomainCollector(std::string name, Index limit)
    : domain{.name = std::move(name), .documents = {}, .first_binary = {}}, limit_(limit) {}

bool DomainCollector::add(std::string text, bool whole, Index counted) {
  if (text.empty()) {
    domain.empty += whole;
    return false;
  }
  const auto begins_so = [&](const Document& d) {
    return d.text.starts_with(text);
  };
  if (!seen_.insert(std::hash<std::string>()(text)).second ||
      (!whole && std::ranges::any_of(domain.documents, begins_so))) {
    ++domain.copies;
    return false;
  }
  domain.bytes += counted;
  refuse_more_than_memory(domain.name, domain.bytes);
  domain.documents.push_back({std::move(text), whole});
  return true;
}

DomainText read_domain(const std::string& name, const Paths& files, const Reading& reading,
                       bool skip_denied) {
  DomainCollector out(name, reading.limit);
  for (const fs::path& path : files) {
    std::error_code code;
    const auto size = fs::file_size(path, code);
    if (code && skip_denied)
      continue;
    if (code)
      unreadable(path, code.message());
    if (size > 0 && out.room() <= 0) {
      out.domain.limited = true;
      break;
    }
    try {
      if (reading.field.empty())
        add_file(out, path, reading);
      else
        add_json_texts(out, path, reading.field);
    } catch (const Error&) {
      if (!skip_denied)
        throw;
    }
  }
  return std::move(out.domain);
}

void drop_cut_character(std::string& s) {
  std::size_t lead = s.size();
  while (lead > 0 && s.size() - lead < 3 && continues(static_cast<unsigned char>(s[lead - 1])))
    --lead;
  if (lead > 0 && character_length(std::string_view(s).substr(lead - 1)) == 0)
    s.resize(lead - 1);
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
  for (int i = 0;
       i < 3 && at < Index(text.size()) && continues(static_cast<unsigned char>(text[at])); ++i) {
    ++at;
  }
  return at;
}

}  // namespace moe
