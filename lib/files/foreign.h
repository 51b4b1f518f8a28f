// Files that are not what somebody expected, named for what they are: by their first bytes, and by
// their ending where several kinds begin alike.
#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace moe {

struct ForeignFile {
  std::string kind;  // "a Git LFS pointer, without the contents that it stands for"
  std::string hint;  // what to do about it; may be empty
};

// Three lines of Python that make FOLDER/model.safetensors of the PyTorch files FOLDER/PATTERN.
std::string torch_conversion(const std::string& folder, const std::string& pattern);

// first: the first bytes of the file, 512 of them where it has as many. Nothing where no kind is
// recognised.
std::optional<ForeignFile> foreign_file(const std::filesystem::path&, std::string_view first);
// The same of a file that is opened for it; nothing where it cannot be read.
std::optional<ForeignFile> foreign_file(const std::filesystem::path&);
// Throws Error(input): "'x.bin' is a PyTorch file, not EXPECTED", where another kind is recognised.
void refuse_foreign(const std::filesystem::path&, std::string_view expected);

}  // namespace moe
