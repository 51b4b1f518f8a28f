// A zip with ROOT/data.pkl and ROOT/data/KEY: see torch_file.h.
#include "lib/files/torch_file.h"

#include <map>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/mapped_lines.h"

namespace moe {
namespace {

constexpr std::string_view legacy_start("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19",
                                        14);

void refuse_bare(const std::filesystem::path& path) {
  const std::string first = first_bytes(path, 64);
  if (std::string_view(first).starts_with(legacy_start)) {
    throw Error(Exit::input, concat(in_quotes(path),
                                    " is in the legacy format of torch.save (before PyTorch 1.6): "
                                    "pickles in a row"))
        .hint(
            "load it in Python and torch.save it again, without "
            "_use_new_zipfile_serialization=False");
  }
  if (is_bare_pickle(first)) {
    throw Error(Exit::input, concat(in_quotes(path), " is a plain pickle, which is not read"))
        .hint("torch.save of tensors, numpy.savez, or JSON");
  }
}

std::string root_folder(const ZipFile& zip) {
  constexpr std::string_view ending = "/data.pkl";
  for (const ZipEntry& e : zip.entries()) {
    if (e.name.ends_with(ending) && e.name.find('/') + ending.size() == e.name.size())
      return e.name.substr(0, e.name.size() - ending.size());
  }
  throw Error(Exit::input, concat(in_quotes(zip.path()), " is a zip file without a data.pkl"))
      .hint("a file of torch.save");
}

}  // namespace

bool is_bare_pickle(std::string_view first) {
  return first.size() > 2 && first[0] == '\x80' && first[1] >= 2 && first[1] <= 5;
}

TorchFile::TorchFile(const std::filesystem::path& path) {
  refuse_bare(path);
  ZipFile zip(path);
  const std::string root = root_folder(zip);
  if (const ZipEntry* order = zip.find(root + "/byteorder");
      order && zip.read(*order).text() != "little") {
    throw Error(Exit::input, concat(in_quotes(path), " was written with the high byte first"))
        .hint("a file from a little-endian machine");
  }
  std::map<std::string, const ZipEntry*> by_name;
  for (const ZipEntry& e : zip.entries())
    by_name.emplace(e.name, &e);
  std::map<std::string, Bytes> read;
  const auto storage = [&](const std::string& key) {
    const auto at = by_name.find(concat(root, "/data/", key));
    if (at == by_name.end()) {
      throw Error(Exit::input, concat(in_quotes(path), " has no storage ", key))
          .hint("the file is cut short or damaged");
    }
    const auto [known, fresh] = read.try_emplace(key);
    if (fresh)
      known->second = zip.read(*at->second);
    return known->second;
  };
  const Bytes pickle = zip.read(*by_name.at(root + "/data.pkl"));
  tree_ = read_pickle(pickle.text(), in_quotes(path), storage);
}

}  // namespace moe
