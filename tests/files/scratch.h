// A folder that goes away, and refusals as text.
#pragma once
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "lib/core/error.h"

namespace moe::test {

class Scratch {
 public:
  Scratch() {
    std::string name = (std::filesystem::temp_directory_path() / "moe-files-XXXXXX").native();
    REQUIRE(::mkdtemp(name.data()));
    path_ = name;
  }
  Scratch(const Scratch&) = delete;
  ~Scratch() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::filesystem::path operator/(const std::string& name) const {
    return path_ / name;
  }
  void put(const std::string& name, const std::string& bytes) const {
    std::ofstream(path_ / name, std::ios::binary) << bytes;
  }

 private:
  std::filesystem::path path_;
};

// What an action throws: "CODE: sentence"; "" if nothing. A refusal without a hint is marked.
template <class F>
std::string refusal(F action) {
  try {
    action();
  } catch (const Error& e) {
    return std::to_string(int(e.code())) + ": " + e.what() + (e.hint().empty() ? " [no hint]" : "");
  }
  return "";
}

}  // namespace moe::test
