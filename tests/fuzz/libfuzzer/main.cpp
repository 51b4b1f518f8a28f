// libFuzzer's two functions over the reader that MOE_FUZZ names: scripts/fuzz.sh builds and runs
// it.
#include <cstdio>
#include <cstdlib>
#include <string>

#include "tests/fuzz/readers.h"

namespace {
const moe::fuzz::Reader* reader = nullptr;
}

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  const char* name = std::getenv("MOE_FUZZ");
  reader = moe::fuzz::find_reader(name ? name : "");
  if (reader)
    return 0;
  std::fprintf(stderr, "MOE_FUZZ names one of:");
  for (const auto& r : moe::fuzz::readers())
    std::fprintf(stderr, " %s", std::string(r.name).c_str());
  std::fprintf(stderr, "\n");
  std::exit(2);
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  moe::fuzz::try_bytes(*reader, {data, size});
  return 0;
}
