#include "lib/files/foreign.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/file.h"

namespace moe {
namespace {

using std::string_view_literals::operator""sv;

constexpr std::size_t looked_at = 512;

std::string convert(const std::filesystem::path& file) {
  const std::string folder = file.parent_path().string();
  return torch_conversion(folder.empty() ? "." : folder, file.filename().string());
}

struct Signature {
  std::string_view first;
  const char *kind, *hint;
};
constexpr Signature signatures[] = {
    {"version https://git-lfs.github.com/spec/"sv,
     "a Git LFS pointer, without the contents that it stands for",
     "git lfs pull in its repository, or download the file again"},
    {"GGUF"sv, "a GGUF model", "name the .gguf file itself as the model"},
    {"\x89HDF\r\n\x1a\n"sv, "an HDF5 file", "moe verify FILE says whether it is a trace"},
    {"\x93NUMPY"sv, "a NumPy array", "--data tokens:path=FILE takes ids"},
    {"\x1f\x8b"sv, "compressed with gzip", "gunzip -k FILE"},
    {"\x28\xb5\x2f\xfd"sv, "compressed with zstd", "zstd -d FILE"},
    {"BZh"sv, "compressed with bzip2", "bunzip2 -k FILE"},
    {"\xfd"
     "7zXZ"sv,
     "compressed with xz", "unxz -k FILE"},
    {"%PDF-"sv, "a PDF document", "extract its text first, as with pdftotext"},
};

bool is_html(std::string_view first) {
  std::string begin;
  for (const char c : first.substr(0, 64)) {
    if (!std::isspace(static_cast<unsigned char>(c)) || !begin.empty())
      begin += char(std::tolower(static_cast<unsigned char>(c)));
  }
  return begin.starts_with("<!doctype html") || begin.starts_with("<html");
}

bool is_safetensors(std::string_view first) {
  if (first.size() < 10 || first[8] != '{')
    return false;
  return first[5] == 0 && first[6] == 0 && first[7] == 0;  // a header below a terabyte
}

ForeignFile archive(const std::filesystem::path& path) {
  const std::string ending = path.extension();
  if (ending == ".npz") {
    return {"a NumPy archive of several arrays",
            "numpy.save('ids.npy', numpy.load('FILE')['NAME'])"};
  }
  if (ending == ".bin" || ending == ".pt" || ending == ".pth" || ending == ".ckpt")
    return {"a PyTorch file", convert(path)};
  return {"a zip archive", "unzip it first"};
}

}  // namespace

std::string torch_conversion(const std::string& folder, const std::string& pattern) {
  return concat(
      "these lines of Python make safetensors of it:\n", "import glob, torch, safetensors.torch\n",
      "w = {k: v.clone().contiguous() for f in sorted(glob.glob('", folder, "/", pattern,
      "')) for k, v in torch.load(f, map_location='cpu', weights_only=True).items()}\n",
      "safetensors.torch.save_file(w, '", folder, "/model.safetensors', ", "{'format': 'pt'})");
}

std::optional<ForeignFile> foreign_file(const std::filesystem::path& path, std::string_view first) {
  for (const Signature& s : signatures) {
    if (first.starts_with(s.first))
      return ForeignFile{s.kind, s.hint};
  }
  if (first.starts_with("PK\x03\x04"sv))
    return archive(path);
  if (first.size() > 2 && first[0] == '\x80' && first[1] >= 2 && first[1] <= 5)
    return ForeignFile{"a Python pickle (an old PyTorch file?)", convert(path)};
  if (is_html(first)) {
    return ForeignFile{"an HTML page, perhaps an error of the server it was downloaded from",
                       "download the file again"};
  }
  if (is_safetensors(first))
    return ForeignFile{"a safetensors file", "name the folder that it is in"};
  return std::nullopt;
}

std::optional<ForeignFile> foreign_file(const std::filesystem::path& path) {
  std::array<char, looked_at> first{};
  std::size_t size = 0;
  try {
    size = InputFile(path).read(first);
  } catch (const Error&) {
    return std::nullopt;
  }
  return foreign_file(path, {first.data(), size});
}

void refuse_foreign(const std::filesystem::path& path, std::string_view expected) {
  const auto found = foreign_file(path);
  if (!found || found->kind == expected)
    return;
  throw Error(Exit::input, concat(in_quotes(path), " is ", found->kind, ", not ", expected))
      .hint(found->hint);
}

}  // namespace moe
