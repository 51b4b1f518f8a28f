// Named arrays of numbers in a plain HDF5 file: what `moe report --values` gives to h5py.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace moe {

using Notes = std::vector<std::pair<std::string, std::string>>;  // attributes: name and text

struct NamedArray {
  std::string name;
  std::vector<std::uint64_t> dims;  // empty = one number
  std::vector<double> values;       // row by row; as many as dims say
  Notes notes;
};

struct NamedTexts {
  std::string name;
  std::vector<std::string> values;  // UTF-8
};

// A dataset of float64 for each array, with its notes; notes of the whole on the root. Written
// beside and renamed: the file is there whole, or as it was. Throws Error(io) where it cannot be
// written. `texts`: datasets of text beside them.
void write_arrays(const std::filesystem::path&, const std::vector<NamedArray>&, const Notes&,
                  const std::vector<NamedTexts>& texts = {});

}  // namespace moe
