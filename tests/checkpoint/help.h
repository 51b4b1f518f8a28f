// Small things that the checkpoint tests share: a folder that goes away, raw safetensors bytes, and
// errors as values.
#pragma once
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>
#include <string>

#include "lib/core/error.h"

namespace moe::test {
namespace fs = std::filesystem;

struct Scratch {
  fs::path path;
  Scratch() {
    std::string name = (fs::temp_directory_path() / "moe-test-XXXXXX").native();
    REQUIRE(::mkdtemp(name.data()));
    path = name;
  }
  Scratch(const Scratch&) = delete;
  ~Scratch() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
  fs::path operator/(const std::string& name) const {
    return path / name;
  }
};

inline void put(const fs::path& path, const std::string& bytes) {
  fs::remove(path);  // truncating in place makes some file systems flush
  std::ofstream out(path, std::ios::binary);
  out.write(bytes.data(), std::streamsize(bytes.size()));
  REQUIRE(out.flush().good());
}

inline std::string slurp(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

inline std::string safetensors_bytes(const std::string& header, std::size_t data_bytes) {
  std::string out(8, '\0');
  for (std::size_t i = 0; i < 8; ++i)
    out[i] = char(header.size() >> (8 * i) & 255);
  return out + header + std::string(data_bytes, '\x3f');
}

// Limits are on processor time, so that they hold on a busy machine too; sanitizers get more of it.
#ifdef __SANITIZE_ADDRESS__
inline constexpr int slowness = 15;
#else
inline constexpr int slowness = 1;
#endif
inline double cpu_seconds() {
  return double(std::clock()) / CLOCKS_PER_SEC;
}

struct Outcome {
  bool threw = false;
  Exit code = Exit::done;
  std::string what, hint;
};

inline Outcome outcome(const std::function<void()>& body) {
  try {
    body();
    return {};
  } catch (const Error& e) {
    return {true, e.code(), e.what(), e.hint()};
  }
}

}  // namespace moe::test
