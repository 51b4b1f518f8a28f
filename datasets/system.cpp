// `system`: real text that a Debian machine has anyway, for a first run without a download. A
// domain is a kind of text; it is there if the machine holds enough of it. Files are taken in the
// order of a hash of their path, and only a part of a long one, so that a megabyte of headers is
// not one library.
#include <glob.h>

#include "datasets/stream.h"
#include "lib/core/error.h"

namespace moe {
namespace {

namespace fs = std::filesystem;
constexpr Index kLeast = 16384;  // bytes: less would be learnt by heart

struct Place {
  const char *domain, *folders, *glob, *except;  // folders may hold *; except: a part of the path
};
constexpr Place kPlaces[] = {
    {"licences", "/usr/share/common-licenses", "*", ""},
    {"c", "/usr/include", "*.h", "/c++/"},
    {"cpp", "/usr/include/c++", "*", ""},
    {"perl", "/usr/lib/*/perl-base /usr/share/perl /usr/share/perl5", "*.pm,*.pl,*.pod",
     "/unicore/"},
    {"python", "/usr/lib/python3 /usr/lib/python3.*", "*.py", ""},
    {"cmake", "/usr/share/cmake-*", "*.cmake", ""},
    {"shell", "/var/lib/dpkg/info", "*.preinst,*.postinst,*.prerm,*.postrm", ""},
    // questions of the installer, in many languages
    {"debconf", "/var/lib/dpkg/info", "*.templates", ""},
};

std::uint64_t fnv1a(std::string_view text) {
  std::uint64_t h = 0xcbf29ce484222325u;
  for (const char c : text)
    h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return h;
}

Paths folders_of(const std::string& root, const char* patterns) {
  Paths out;
  for (const std::string& pattern : split(patterns, ' ')) {
    glob_t found{};
    if (glob((root + pattern).c_str(), 0, nullptr, &found) == 0) {
      for (std::size_t i = 0; i < found.gl_pathc; ++i)
        out.emplace_back(found.gl_pathv[i]);
    }
    globfree(&found);
  }
  return out;
}

Paths files_of(const std::string& root, const Place& place) {
  Paths files;
  for (const fs::path& folder : folders_of(root, place.folders)) {
    for (fs::path& file : files_below(folder, place.glob, true)) {
      if (!*place.except || file.native().find(place.except, root.size()) == std::string::npos)
        files.push_back(std::move(file));
    }
  }
  const auto key = [&](const fs::path& p) {
    return std::pair(fnv1a(std::string_view(p.native()).substr(root.size())), p.native());
  };
  std::ranges::sort(files, {}, key);
  return files;
}

}  // namespace

std::unique_ptr<Dataset> make_system_dataset(Spec& spec, const Tokenizer& tokenizer) {
  const std::string limit = spec.get("limit", "1MB");
  std::string root = spec.get("root", "/");
  const Index bytes = parse_size(limit, "limit");
  spec.done();
  if (bytes < kLeast) {
    throw Error(Exit::usage, concat("limit=", limit, " is less than the ", kLeast,
                                    " bytes that a domain of system needs"))
        .hint("limit=1MB is the default");
  }
  while (root.ends_with('/'))
    root.pop_back();
  auto data = std::make_unique<StreamDataset>(spec, tokenizer);
  for (const Place& place : kPlaces) {
    const DomainText domain =
        read_domain(place.domain, files_of(root, place),
                    {.limit = bytes, .file_limit = std::max(bytes / 16, Index{4096})}, true);
    if (domain.bytes >= kLeast)
      data->add(domain, tokenizer);
  }
  if (data->info().domains.empty()) {
    throw Error(
        Exit::input,
        concat("no text was found below '", root,
               "/' where a Debian machine has it (/usr/share/common-licenses, /usr/include, ...)"))
        .hint("give your own text: --data text:path=FOLDER");
  }
  return data;
}

}  // namespace moe
