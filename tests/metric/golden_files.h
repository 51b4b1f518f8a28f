// Where the shared golden files are, when they are: $MOE_SHARED, else ../shared beside the source
// tree.
#pragma once
#include <cstdlib>
#include <filesystem>

inline std::filesystem::path shared_golden(const char* folder) {
  const char* set = std::getenv("MOE_SHARED");
  const std::filesystem::path root =
      set ? std::filesystem::path(set) : std::filesystem::path(MOE_SOURCE_DIR) / ".." / "shared";
  return root / "golden" / folder;
}
