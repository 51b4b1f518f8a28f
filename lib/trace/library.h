// The HDF5 library's versions: the headers this was built with, and the library found at run time.
#pragma once
#include <string>

namespace moe {
std::string hdf5_version_built();
std::string hdf5_version_here();
}  // namespace moe
