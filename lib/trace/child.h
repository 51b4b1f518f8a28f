// Runs a reading in a child process with limits, because libhdf5 itself crashes on some damaged
// files: the caller survives, and the child's death becomes a sentence.
#pragma once
#include <filesystem>
#include <functional>
#include <string>

namespace moe {

// Forks, limits the child to 2 GiB more memory and to CPU time for a file of this size, runs body
// there and returns its text. An Error in the child is thrown here; its death is Error(input) that
// names `path`.
std::string run_apart(const std::filesystem::path& path, const std::function<std::string()>& body);

}  // namespace moe
