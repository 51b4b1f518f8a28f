// The language parts of published multimodal models from their config.json alone, against the
// tensors of tiny checkpoints of them.
#include <catch2/catch.hpp>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "lib/checkpoint/safetensors.h"
#include "lib/family/families.h"
#include "lib/family/family.h"
#include "lib/model/sizes.h"
#include "lib/plan/describe.h"
#include "tests/skip.h"

using namespace moe;
namespace fs = std::filesystem;

namespace {

// Numbers of the tensors that are no part of encoders and projectors.
Count of_language(const fs::path& folder, const std::string& family) {
  const Tensors file(folder / "model.safetensors");
  Count out = 0;
  for (const TensorInfo& t : file.list()) {
    const bool beside = std::ranges::any_of(names_of(family).beside, [&](const std::string& start) {
      return t.name.starts_with(start);
    });
    Count size = 1;
    for (const Index n : t.dims)
      size *= n;
    out += beside ? 0 : size;
  }
  return out;
}

}  // namespace

TEST_CASE("the language part of a multimodal model has as many parameters as its file holds") {
  const fs::path golden = test::shared("golden/modal/hf");
  if (!fs::exists(golden))
    return test::skip("no " + golden.string());
  int seen = 0;
  for (const auto& entry : fs::directory_iterator(golden)) {
    INFO(entry.path());
    const Json config = read_json(entry.path() / "config.json");
    const Architecture a = plan::describe_path(entry.path().string());
    CHECK(parameters(a).total == of_language(entry.path(), config.at("model_type")));
    ++seen;
  }
  CHECK(seen >= 7);
}
