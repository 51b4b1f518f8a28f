// Files named, folders opened, kinds by first bytes: see inputs.h.
#include "lib/import/inputs.h"

#include <algorithm>
#include <charconv>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/mapped_lines.h"
#include "lib/files/zip.h"

namespace moe {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t start_bytes = std::size_t(4) << 20;
constexpr std::size_t most_files = 100'000;

bool looks_like_text(std::string_view bytes) {
  for (const char c : bytes.substr(0, 4096)) {
    const auto u = static_cast<unsigned char>(c);
    if (u < 0x20 && c != '\n' && c != '\r' && c != '\t')
      return false;
  }
  return true;
}

// A safetensors file begins with the length of its header, which is JSON.
bool is_safetensors(std::string_view start) {
  return start.size() > 9 && start[8] == '{' && start.substr(5, 3) == std::string_view("\0\0\0", 3);
}

FileKind kind_of(const fs::path& path, std::string_view start) {
  if (start.empty())
    return FileKind::empty;
  if (start.starts_with("PK\x03\x04") || start.starts_with("PK\x05\x06")) {
    const ZipFile zip(path);
    const bool torch = std::any_of(zip.entries().begin(), zip.entries().end(),
                                   [](const auto& e) { return e.name.ends_with("/data.pkl"); });
    return torch ? FileKind::torch : FileKind::npz;
  }
  if (start.starts_with("\x93NUMPY"))
    return FileKind::npy;
  if (start.starts_with("GGUF"))
    return FileKind::gguf;
  if (start.starts_with("PAR1"))
    return FileKind::parquet;
  if (is_bare_pickle(start))
    return FileKind::pickle;
  if (is_safetensors(start))
    return FileKind::safetensors;
  if (!looks_like_text(start))
    return FileKind::binary;
  const auto first = start.find_first_not_of(" \t\r\n");
  const bool json = first != start.npos && (start[first] == '{' || start[first] == '[');
  return json ? FileKind::json : FileKind::text;
}

}  // namespace

void refuse_import(const std::string& where, const std::string& why, const std::string& hint) {
  throw Error(Exit::input, concat(where, " ", why)).hint(hint);
}

std::int64_t number_in(std::string_view name, std::string_view before) {
  const auto at = before.empty() ? 0 : name.rfind(before);
  std::int64_t n = -1;
  if (at == name.npos)
    return n;
  const char* first = name.data() + at + before.size();
  const auto [stop, error] = std::from_chars(first, name.data() + name.size(), n);
  return error == std::errc() && n >= 0 ? n : -1;
}

std::string_view ImportFile::first_line() const {
  const std::string_view text = start;
  return text.substr(0, text.find_first_of("\r\n"));
}

void ImportInputs::add(const fs::path& path) {
  if (files_.size() == most_files)
    refuse_import(in_quotes(path), concat("is one of more than ", most_files, " files"), "fewer");
  ImportFile f;
  f.path = path;
  f.size = InputFile(path).size();
  f.start = first_bytes(path, start_bytes / std::min<std::size_t>(files_.size() + 1, 64));
  f.kind = kind_of(path, f.start);
  if (f.kind == FileKind::torch || f.kind == FileKind::pickle)
    f.torch = std::make_shared<TorchFile>(path);
  files_.push_back(std::move(f));
}

ImportInputs::ImportInputs(const ImportOptions& options) : options_(options) {
  for (const fs::path& given : options.inputs) {
    if (!fs::is_directory(given)) {
      add(given);
      continue;
    }
    std::vector<fs::path> found;
    for (const auto& entry : fs::recursive_directory_iterator(given)) {
      if (entry.is_regular_file())
        found.push_back(entry.path());
    }
    std::sort(found.begin(), found.end());
    for (const fs::path& path : found)
      add(path);
  }
  if (files_.empty()) {
    refuse_import(options.inputs.empty() ? "the import" : in_quotes(options.inputs.front()),
                  "holds no file", "the files that an engine recorded");
  }
  if (!options.config.empty())
    config_ = read_model_config(options.config);
}

std::vector<const ImportFile*> ImportInputs::of_kind(FileKind kind) const {
  std::vector<const ImportFile*> out;
  for (const ImportFile& f : files_) {
    if (f.kind == kind)
      out.push_back(&f);
  }
  return out;
}

std::vector<const ImportFile*> ImportInputs::ending(std::string_view end) const {
  std::vector<const ImportFile*> out;
  for (const ImportFile& f : files_) {
    if (f.name().ends_with(end))
      out.push_back(&f);
  }
  return out;
}

bool ImportInputs::any_mentions(std::string_view text) const {
  return std::any_of(files_.begin(), files_.end(),
                     [&](const ImportFile& f) { return f.mentions(text); });
}

std::string ImportInputs::domain_of(const ImportFile& f) const {
  if (options_.domain_by.empty())
    return "";
  if (options_.domain_by == "file")
    return f.path.stem().string();
  fs::path folder = fs::absolute(f.path).lexically_normal().parent_path();
  while (folder.filename().string().starts_with("rank_"))
    folder = folder.parent_path();
  return folder.filename().string();
}

}  // namespace moe
