// What we write, opened by transformers: MOE_PYTHON and MOE_PYTHON4 name pythons with torch and its
// versions 5 and 4.
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <fstream>
#include <iterator>

#include "tests/peers/write_model.h"
#include "tests/skip.h"

using namespace moe;

namespace {

// Runs check_logits.py on the folders; its words where it fails.
void check_with(const char* variable, const char* version, const std::filesystem::path& folder) {
  const char* python = std::getenv(variable);
  if (!python)
    return test::skip(concat(variable, " names no python with torch and transformers ", version));
  const std::string log = folder.string() + ".log";
  const int status = std::system(concat("'", python, "' '", MOE_SOURCE_DIR,
                                        "/tests/peers/check_logits.py' --expect ", version, " '",
                                        folder.string(), "' > '", log, "' 2>&1")
                                     .c_str());
  std::ifstream in(log);
  INFO(std::string(std::istreambuf_iterator<char>(in), {}));
  CHECK(status == 0);
  std::filesystem::remove(log);
}

}  // namespace

TEST_CASE("what is written opens in transformers 4 and 5 with the same logits") {
  if (!std::getenv("MOE_PYTHON") && !std::getenv("MOE_PYTHON4"))
    return test::skip("neither MOE_PYTHON nor MOE_PYTHON4 names a python with transformers");
  const auto folder = std::filesystem::temp_directory_path() / concat("moe-written-", ::getpid());
  const std::vector<std::string> specs = test::written_models();
  CHECK(specs.size() > 15);
  for (std::size_t i = 0; i < specs.size(); ++i)
    test::write_model(specs[i], folder / concat("model-", 100 + i));
  check_with("MOE_PYTHON", "5", folder);
  check_with("MOE_PYTHON4", "4", folder);
  std::filesystem::remove_all(folder);
}
