#include "lib/trace/library.h"

#include <hdf5.h>

namespace moe {
namespace {
std::string dotted(unsigned a, unsigned b, unsigned c) {
  return std::to_string(a) + "." + std::to_string(b) + "." + std::to_string(c);
}
}  // namespace

std::string hdf5_version_built() {
  return dotted(H5_VERS_MAJOR, H5_VERS_MINOR, H5_VERS_RELEASE);
}
std::string hdf5_version_here() {
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  H5get_libversion(&a, &b, &c);
  return dotted(a, b, c);
}

}  // namespace moe
