// What a launcher, or the user, tells a process.
#pragma once
#include <cstdlib>
#include <string>

namespace moe {

inline std::string environment(const char* name) {  // "" where it is not set
  const char* value = std::getenv(name);
  return value ? value : "";
}

}  // namespace moe
