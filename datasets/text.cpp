// `text`: a file, or a folder in which each file and each sub-folder is a domain (all of it one, if
// domain= names it). Files that are not text, empty ones and copies are left out of a folder and
// said so; a file that was named itself is refused instead. `path=-` is the standard input.
#include <iostream>
#include <iterator>
#include <map>

#include "datasets/json_texts.h"
#include "datasets/text_domains.h"
#include "lib/core/error.h"
#include "lib/files/unpacked.h"

namespace moe {
namespace {

namespace fs = std::filesystem;

struct Found {
  std::string name;
  Paths files;
};

// "book" of book.txt and book.txt.gz.
std::string stem_of(const fs::path& path) {
  return without_packing(path).stem();
}

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
    ++stems[stem_of(entry)];
  for (const fs::path& entry : entries) {
    if (!fs::is_directory(entry, code))
      out.push_back(
          {stems[stem_of(entry)] > 1 ? entry.filename().string() : stem_of(entry), {entry}});
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
  return {{domain.empty() ? stem_of(path) : domain, {path}}};
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

// What the domains that came to nothing left out.
void add_left_out(DomainText& all, const DomainText& domain) {
  all.limited |= domain.limited;
  all.empty += domain.empty;
  if (all.binary == 0)
    all.first_binary = domain.first_binary;
  all.binary += domain.binary;
  all.counted = domain.counted;
}

// Read at the first call; a process has one.
const std::string& standard_input() {
  static const std::string all{std::istreambuf_iterator<char>(std::cin), {}};
  return all;
}

DomainText input_domain(const TextOptions& o) {
  DomainCollector out(o.domain.empty() ? "input" : o.domain, o.reading.limit);
  std::string text = standard_input().substr(0, std::size_t(out.room()));
  const bool whole = text.size() == standard_input().size();
  if (!whole && !o.reading.binary)
    drop_cut_character(text);
  out.domain.limited = !whole;
  const std::string reason = o.reading.binary || text.empty() ? "" : not_text(text);
  if (reason.empty()) {
    const Index counted = Index(text.size());
    out.add(std::move(text), whole, counted);
    return std::move(out.domain);
  }
  out.domain.binary = 1;
  out.domain.first_binary = concat("the standard input ", reason);
  return std::move(out.domain);
}

Error no_text(const TextOptions& o, const DomainText& all) {
  const fs::path& path = o.path;
  const std::string& glob = o.glob;
  const std::string& limit = o.limit;
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
  if (o.from_input()) {
    return Error(Exit::input, "the standard input holds no text")
        .hint("echo 'some text' | moe trace RUN --data text:path=-,whole=1,split=valid -o a.h5");
  }
  if (all.empty > 0) {
    return Error(Exit::input,
                 concat("'", path.native(), "' holds no text: ",
                        all.empty == 1 ? concat("its ", all.counted, " is")
                                       : concat("its ", all.empty, " ", all.counted, "s are"),
                        " empty"))
        .hint("give a file or folder with text in it");
  }
  if (!is_folder(path) && matches(glob, path.filename())) {
    return Error(Exit::input, concat("'", path.native(), "' holds no line"))
        .hint("JSON lines: an object with a text on every line");
  }
  if (glob == "*") {
    return Error(Exit::input, concat("folder '", path.native(), "' holds no file"))
        .hint("name a file or folder with text in it");
  }
  return Error(Exit::input, concat("no file of '", path.native(), "' matches glob=", glob))
      .hint("name a folder with text files, or another glob=");
}

}  // namespace

TextOptions text_options(Spec& spec) {
  TextOptions o;
  o.path = spec.get("path", "");
  o.glob = spec.get("glob", "*");
  o.domain = spec.get("domain", "");
  o.limit = spec.get("limit", "none");
  o.reading = {.limit = o.limit == "none" ? 0 : parse_size(o.limit, "limit"),
               .binary = spec.get("binary", false)};
  if (spec.has("field"))
    o.reading.field = spec.get("field", "");
  if (spec.has("whole"))
    o.whole = spec.get("whole", false);
  o.special = special_option(spec);
  spec.done();
  if (o.path.empty()) {
    throw Error(Exit::usage, "the dataset text was given no path")
        .hint("text:path=FILE, text:path=FOLDER, or text:path=- for the standard input");
  }
  if (o.from_input() && !o.reading.field.empty()) {
    throw Error(Exit::usage, "field= reads files of JSON lines, and path=- is the standard input")
        .hint("write the lines to a file first");
  }
  if (o.limit != "none" && o.reading.limit == 0) {
    throw Error(Exit::usage, concat("limit=", o.limit, " leaves no text"))
        .hint("limit=none reads everything");
  }
  if (o.reading.binary && !o.reading.field.empty()) {
    throw Error(Exit::usage, "field= reads JSON lines and binary=1 takes files as they are")
        .hint("leave one of them out");
  }
  return o;
}

void text_domains(const TextOptions& o, const DomainSink& sink) {
  const bool by_line = !o.reading.field.empty() && !o.domain.empty();
  DomainText without;
  bool any = false;
  const auto give = [&](DomainText&& domain) {
    any |= !domain.documents.empty();
    if (domain.documents.empty())
      add_left_out(without, domain);
    sink(std::move(domain));
  };
  if (o.from_input())
    give(input_domain(o));
  for (const Found& f :
       o.from_input() ? std::vector<Found>{} : find(o.path, o.glob, o.domain, is_folder(o.path))) {
    if (!by_line) {
      give(read_domain(f.name, f.files, o.reading));
      continue;
    }
    for (DomainText& domain : read_json_domains(f.files, o.reading, o.domain))
      give(std::move(domain));
  }
  if (!any)
    throw no_text(o, without);
}

std::unique_ptr<Dataset> make_text_dataset(Spec& spec, const Tokenizer& tokenizer) {
  const TextOptions o = text_options(spec);
  auto data = std::make_unique<StreamDataset>(spec, tokenizer, o.special, o.whole);
  text_domains(o, [&](DomainText&& domain) { data->add(domain, tokenizer); });
  return data;
}

}  // namespace moe
