// Reads small HDF5 files of expected values (golden cases of layers and metrics): every number as
// double or as 64-bit integer, whatever its stored type. For trusted files of a few megabytes;
// traces have their own reader.
#pragma once
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lib/core/view.h"

namespace moe {

template <class T>
struct GoldenArray {
  std::vector<Index> dims;  // empty = scalar
  std::vector<T> values;    // row-major

  Index size() const {
    return Index(values.size());
  }
};

class GoldenFile {
 public:
  explicit GoldenFile(const std::filesystem::path&);  // throws Error(input) where it does not open
  ~GoldenFile();
  GoldenFile(GoldenFile&&) noexcept;

  bool has(std::string_view dataset) const;         // "expected/grad/x"
  bool has_attribute(std::string_view name) const;  // of the root
  // full paths without the leading slash, sorted
  std::vector<std::string> datasets() const;
  std::vector<std::string> attributes() const;  // of the root, sorted
  bool is_text(std::string_view attribute) const;
  bool is_real(std::string_view attribute) const;  // floating point

  // Each throws Error(input) naming file and item where it is missing, of another kind, or
  // (integers) not whole.
  GoldenArray<double> reals(std::string_view dataset) const;
  GoldenArray<std::int64_t> integers(std::string_view dataset) const;
  GoldenArray<std::string> texts(std::string_view dataset) const;  // of variable length
  double real(std::string_view attribute) const;
  std::int64_t integer(std::string_view attribute) const;
  std::string text(std::string_view attribute) const;
  std::vector<double> real_list(std::string_view attribute) const;  // a scalar is a list of one
  std::vector<std::int64_t> integer_list(std::string_view attribute) const;

 private:
  struct File;
  std::unique_ptr<File> file_;
};

}  // namespace moe
