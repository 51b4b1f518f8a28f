#include "apps/version.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "apps/build_info.h"
#include "lib/core/parallel.h"
#include "lib/trace/library.h"

namespace moe {
namespace {

std::string simd() {  // what the machine offers, as far as kernels care
  std::string out = "sse2";
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    out += " avx2 fma";
  if (__builtin_cpu_supports("avx512f"))
    out += " avx512f";
  if (__builtin_cpu_supports("avx512bf16"))
    out += " avx512bf16";
  return out;
}

nlohmann::ordered_json facts() {
  return {{"version", build::version},
          {"revision", build::revision},
          {"build_type", build::type},
          {"sanitizers", build::sanitizers},
          {"compiler", build::compiler},
          {"simd_compiled", build::simd},
          {"simd_here", simd()},
          {"threads", threads()},
          {"hdf5_built", hdf5_version_built()},
          {"hdf5_here", hdf5_version_here()},
          {"onednn", build::onednn},
          {"eigen", build::eigen},
          {"cuda", build::cuda}};
}

}  // namespace

std::string version_short() {
  return fmt::format("{} ({})", build::version, build::revision);
}
std::string version_json() {
  return facts().dump(2) + "\n";
}
std::string version_text() {
  std::string out = fmt::format("moe {}\n", version_short());
  const auto all = facts();
  for (const auto& [key, value] : all.items()) {
    if (key != "version" && key != "revision") {
      out += fmt::format("  {:<14} {}\n", key,
                         value.is_string() ? value.get<std::string>() : value.dump());
    }
  }
  return out;
}

}  // namespace moe
