// The files of an import: what was named, folders opened, in order of their names, and what each
// one is by its first bytes.
#pragma once
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/files/torch_file.h"
#include "lib/import/import.h"
#include "lib/import/model_config.h"

namespace moe {

enum class FileKind : std::uint8_t {
  empty,
  torch,
  npz,
  npy,
  gguf,
  safetensors,
  pickle,
  json,
  text,
  parquet,
  binary
};

struct ImportFile {
  std::filesystem::path path;
  FileKind kind = FileKind::binary;
  std::string start;  // the first bytes, inflated
  Index size = 0;
  std::shared_ptr<const TorchFile> torch;  // where it is one

  std::string name() const {
    return path.filename().string();
  }
  // The first bytes hold this text: `"top_indices"`.
  bool mentions(std::string_view text) const {
    return start.find(text) != start.npos;
  }
  std::string_view first_line() const;
  std::string quoted() const {
    return in_quotes(path);
  }
};

class ImportInputs {
 public:
  explicit ImportInputs(const ImportOptions&);  // throws Error(input) where one is missing

  const ImportOptions& options() const {
    return options_;
  }
  const std::vector<ImportFile>& files() const {
    return files_;
  }
  // Files of one kind, or whose name ends so.
  std::vector<const ImportFile*> of_kind(FileKind) const;
  std::vector<const ImportFile*> ending(std::string_view) const;
  // The first file, for formats that are recognised by one.
  const ImportFile& first() const {
    return files_.front();
  }
  bool any_mentions(std::string_view text) const;
  // config.json of the model, where one was named.
  const RecordedModel* config() const {
    return config_ ? &*config_ : nullptr;
  }
  // The label of a file's sequences: its folder (ranks' folders passed over), its own name, or "".
  std::string domain_of(const ImportFile&) const;

 private:
  void add(const std::filesystem::path&);

  ImportOptions options_;
  std::vector<ImportFile> files_;
  std::optional<RecordedModel> config_;
};

[[noreturn]] void refuse_import(const std::string& where, const std::string& why,
                                const std::string& hint);
// The number behind the last `before` in a name: number_in("rank12.jsonl", "rank") = 12; -1 where
// there is none.
std::int64_t number_in(std::string_view name, std::string_view before);

}  // namespace moe
