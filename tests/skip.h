// What a test may need from outside the repository. Where it is not there the test says so by
// skip() and returns: ctest shows it as skipped, and scripts/test.sh ends with how many and why.
#pragma once
#include <filesystem>
#include <string>

namespace moe::test {

// Counts the running test case as skipped, in whole or in part; the caller returns or goes on.
void skip(const std::string& why);

// A file or folder of the recorded values: below $MOE_SHARED, else below ../shared beside the
// source tree.
std::filesystem::path shared(const std::string& path);

}  // namespace moe::test
