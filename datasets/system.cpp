// `system`: real text that a Debian machine has anyway, for a first run without a download. A
// domain is a kind of text; it is there if the machine holds enough of it. Files are taken in the
// order of a hash of their path, and only a part of a long one, so that a megabyte of headers is
// not one library.
#include <glob.h>

#include "datasets/text_domains.h"
#include "lib/core/error.h"
#include "lib/core/fnv.h"

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

SystemOptions system_options(Spec& spec) {
  SystemOptions o;
  const std::string limit = spec.get("limit", "1MB");
  o.root = spec.get("root", "/");
  o.special = special_option(spec);
  o.bytes = parse_size(limit, "limit");
  spec.done();
  if (o.bytes < kLeast) {
    throw Error(Exit::usage, concat("limit=", limit, " is less than the ", kLeast,
                                    " bytes that a domain of system needs"))
        .hint("limit=1MB is the default");
  }
  while (o.root.ends_with('/'))
    o.root.pop_back();
  return o;
}

void system_domains(const SystemOptions& o, const DomainSink& sink) {
  bool found = false;
  for (const Place& place : kPlaces) {
    DomainText domain =
        read_domain(place.domain, files_of(o.root, place),
                    {.limit = o.bytes, .file_limit = std::max(o.bytes / 16, Index{4096})}, true);
    if (domain.bytes < kLeast)
      continue;
    found = true;
    sink(std::move(domain));
  }
  if (!found) {
    throw Error(
        Exit::input,
        concat("no text was found below '", o.root,
               "/' where a Debian machine has it (/usr/share/common-licenses, /usr/include, ...)"))
        .hint("give your own text: --data text:path=FOLDER");
  }
}

std::unique_ptr<Dataset> make_system_dataset(Spec& spec, const Tokenizer& tokenizer) {
  const SystemOptions o = system_options(spec);
  auto data = std::make_unique<StreamDataset>(spec, tokenizer, o.special);
  system_domains(o, [&](DomainText&& domain) { data->add(domain, tokenizer); });
  return data;
}

}  // namespace moe
