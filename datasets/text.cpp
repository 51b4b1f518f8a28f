// `text`: a file, or a folder in which each file and each sub-folder is a domain (all of it one, if
// domain= names it). Files that are not text, empty ones and copies are left out of a folder and
// said so; a file that was named itself is refused instead.
#include <map>

#include "datasets/stream.h"
#include "lib/core/error.h"

namespace moe {
namespace {

namespace fs = std::filesystem;

struct Found {
  std::string name;
  Paths files;
};

// The entries of the folder itself, sorted by name.
std::vector<Found> domains_of(const fs::path& folder, const std::string& glob) {
  std::vector<Found> out;
  std::error_code code;
  fs::directory_iterator it(folder, code);
  Paths entries;
  for (; !code && it != fs::directory_iterator(); it.increment(code))
    entries.push_back(it->path());
  if (code) {
    throw Error(Exit::io, concat("folder '", folder.native(), "' cannot be read: ", code.message()))
        .hint("check its permissions");
  }
  std::ranges::sort(entries);
  std::erase_if(entries, [&](const fs::path& p) {
    return p.filename().native().starts_with('.') ||
           !(fs::is_directory(p, code) ||
             (fs::is_regular_file(p, code) && matches(glob, p.filename())));
  });
  std::map<std::string, int> stems;
  for (const fs::path& entry : entries)
    ++stems[entry.stem()];
  for (const fs::path& entry : entries) {
    if (!fs::is_directory(entry, code))
      out.push_back({stems[entry.stem()] > 1 ? entry.filename() : entry.stem(), {entry}});
    else if (Paths files = files_below(entry, glob); !files.empty())
      out.push_back({entry.filename(), std::move(files)});
  }
  return out;
}

std::vector<Found> find(const fs::path& path, const std::string& glob, const std::string& domain,
                        bool folder) {
  if (folder && domain.empty())
    return domains_of(path, glob);
  if (folder)
    return {{domain, files_below(path, glob)}};
  if (!matches(glob, path.filename()))
    return {};
  return {{domain.empty() ? path.stem().string() : domain, {path}}};
}

// Refuses what is neither a file nor a folder.
bool is_folder(const fs::path& path) {
  std::error_code code;
  const auto kind = fs::status(path, code).type();
  if (kind == fs::file_type::not_found) {
    throw Error(Exit::input, concat("'", path.native(), "' does not exist"))
        .hint("check the path; it is taken from the current folder");
  }
  if (kind != fs::file_type::regular && kind != fs::file_type::directory) {
    throw Error(code ? Exit::io : Exit::input,
                concat("'", path.native(), "' ",
                       code ? concat("cannot be read: ", code.message())
                            : "is neither a file nor a folder"))
        .hint("name a text file, or a folder of them");
  }
  return kind == fs::file_type::directory;
}

Error no_text(const fs::path& path, const std::string& glob, const std::string& limit,
              const DomainText& all) {
  if (all.binary > 0) {
    return Error(Exit::input,
                 concat(all.first_binary,
                        all.binary > 1 ? concat(", and ", all.binary - 1, " more files are like it")
                                       : ""))
        .hint(
            "choose text files with glob=, convert other encodings with iconv, or take the bytes "
            "as they are with binary=1");
  }
  if (all.limited) {
    return Error(Exit::usage,
                 concat("limit=", limit, " leaves no whole character of '", path.native(), "'"))
        .hint("give a larger limit");
  }
  if (all.empty > 0) {
    return Error(Exit::input,
                 concat("'", path.native(), "' holds no text: ",
                        all.empty == 1 ? "its file is" : concat("its ", all.empty, " files are"),
                        " empty"))
        .hint("give a file or folder with text in it");
  }
  if (glob == "*") {
    return Error(Exit::input, concat("folder '", path.native(), "' holds no file"))
        .hint("name a file or folder with text in it");
  }
  return Error(Exit::input, concat("no file of '", path.native(), "' matches glob=", glob))
      .hint("name a folder with text files, or another glob=");
}

}  // namespace

std::unique_ptr<Dataset> make_text_dataset(Spec& spec, const Tokenizer& tokenizer) {
  const fs::path path = spec.get("path", "");
  const std::string glob = spec.get("glob", "*");
  const std::string domain_name = spec.get("domain", "");
  const std::string limit = spec.get("limit", "none");
  const Reading reading{.limit = limit == "none" ? 0 : parse_size(limit, "limit"),
                        .binary = spec.get("binary", false)};
  spec.done();
  if (path.empty()) {
    throw Error(Exit::usage, "the dataset text was given no path")
        .hint("text:path=FILE or text:path=FOLDER");
  }
  if (limit != "none" && reading.limit == 0) {
    throw Error(Exit::usage, concat("limit=", limit, " leaves no text"))
        .hint("limit=none reads everything");
  }

  const std::vector<Found> found = find(path, glob, domain_name, is_folder(path));
  auto data = std::make_unique<StreamDataset>(spec, tokenizer);
  DomainText without;  // what the domains that came to nothing left out
  for (const Found& f : found) {
    const DomainText domain = read_domain(f.name, f.files, reading);
    if (!domain.documents.empty()) {
      data->add(domain, tokenizer);
      continue;
    }
    data->note_left_out(domain);
    without.limited |= domain.limited;
    without.empty += domain.empty;
    if (without.binary == 0)
      without.first_binary = domain.first_binary;
    without.binary += domain.binary;
  }
  if (data->info().domains.empty())
    throw no_text(path, glob, limit, without);
  return data;
}

}  // namespace moe
