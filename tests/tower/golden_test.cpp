// Encoders of pictures and sounds beside what the classes of published models gave, and their
// sizes beside the tensors of these checkpoints.
#include <catch2/catch.hpp>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "lib/checkpoint/safetensors.h"
#include "lib/files/json.h"
#include "lib/run/golden_towers.h"
#include "lib/tower/tower.h"
#include "tests/skip.h"

namespace fs = std::filesystem;
using namespace moe;

namespace {

void add_cases(const fs::path& all, std::vector<fs::path>& out) {
  if (!fs::is_directory(all))
    return;
  for (const auto& entry : fs::directory_iterator(all)) {
    if (fs::exists(entry.path() / "expected.h5"))
      out.push_back(entry.path());
  }
}

// Folders of the recorded models, and those that tests/peers/record_towers.py made in the folder
// $MOE_TOWER_CASES; none where they are not here.
std::vector<fs::path> cases() {
  std::vector<fs::path> out;
  add_cases(test::shared("golden/modal/hf"), out);
  if (const char* more = std::getenv("MOE_TOWER_CASES"))
    add_cases(more, out);
  std::ranges::sort(out);
  return out;
}

template <class S>
void check(const fs::path& folder, Backend<S>& backend) {
  const GoldenFile expected(folder / "expected.h5");
  std::set<std::string> seen;
  for (const TowerDifference& d : compare_towers(folder, expected, backend)) {
    INFO(folder.filename().string() << ": " << d.dataset << " differs by " << d.most);
    CHECK(d.most <= d.allowed);
    seen.insert(d.dataset);
  }
  INFO(folder.filename().string());
  CHECK((seen.contains("image_features") || seen.contains("audio_last_hidden")));
  CHECK(seen.contains("inputs_embeds") == expected.has("inputs_embeds"));
}

}  // namespace

TEST_CASE("encoders and projectors give what their classes gave") {
  const std::vector<fs::path> all = cases();
  if (all.empty())
    return test::skip("no recorded multimodal models");
  const auto cpu = make_backend("cpu");
  for (const fs::path& folder : all)
    check(folder, *cpu);
}

TEST_CASE("encoders and projectors give the same by definition, in double") {
  const std::vector<fs::path> all = cases();
  if (all.empty())
    return test::skip("no recorded multimodal models");
  const auto reference = make_reference<double>();
  for (const fs::path& folder : all)
    check(folder, *reference);
}

TEST_CASE("parameters of encoders from the configuration are those of the checkpoint") {
  const std::vector<fs::path> all = cases();
  if (all.empty())
    return test::skip("no recorded multimodal models");
  for (const fs::path& folder : all) {
    INFO(folder.filename().string());
    Index counted = 0;
    for (const TowerPart& part : tower_sizes(read_json(folder / "config.json"), folder)) {
      CHECK(part.numbers > 0);
      counted += part.numbers;
    }
    Index stored = 0;
    const auto add = [&](const fs::path& where, bool whole) {
      const Tensors tensors(where);
      for (const TensorInfo& t : tensors.list()) {
        const auto part_of = [&](const char* name) {
          return t.name.find(name) != std::string::npos;
        };
        const bool tower = part_of("vision") || part_of("visual") || part_of("audio_tower") ||
                           part_of("projector") || part_of("resampler");
        Index size = 1;
        for (const Index d : t.dims)
          size *= d;
        if (whole || tower)
          stored += size;
      }
    };
    add(folder, false);
    if (fs::exists(folder / "image_tower"))
      add(folder / "image_tower", true);
    CHECK(counted == stored);
  }
}
