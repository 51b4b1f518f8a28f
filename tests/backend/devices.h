// The backends that this machine can run: all of them, but for `cuda` where it is not built or no
// GPU is there.
#pragma once
#include <catch2/catch.hpp>

#include "lib/backend/backend.h"
#include "lib/core/error.h"

namespace moe {

inline std::vector<std::string> devices() {
  std::vector<std::string> names;
  for (const auto& e : backends().entries()) {
    const std::string name(e.name);
    try {
      make_backend(name);
      names.push_back(name);
    } catch (const Error& error) {
      WARN(name << " is left out: " << error.what());
      CHECK(name == "cuda");
      CHECK(error.code() == Exit::environment);
      CHECK_FALSE(error.hint().empty());
    }
  }
  return names;
}

}  // namespace moe
