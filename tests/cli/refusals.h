// A command that is refused: its exit code and sentence, a way out, and nothing written.
#pragma once
#include <catch2/catch.hpp>
#include <string>

#include "tests/cli/program.h"

namespace moe::cli {

inline bool holds(const std::string& text, const std::string& part) {
  return text.find(part) != text.npos;
}

inline void refuses(const Folder& f, const std::string& words, int code, const std::string& says,
                    const Start& how = {}) {
  INFO("moe " << words);
  const auto before = f.names();
  const Result r = f.run(words, how);
  INFO(r.err);
  CHECK(r.code == code);
  CHECK(r.out.empty());
  CHECK(holds(r.err, says));
  CHECK(holds(r.err, "\n  try:  "));
  CHECK(f.names() == before);
}

}  // namespace moe::cli
