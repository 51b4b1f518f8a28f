// The words on a model's fields: none is missing, none is made up, and the page is in step.
#include <catch2/catch.hpp>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>

#include "lib/model/fields.h"

using namespace moe;

namespace {

// Asks a written spec for every field that is told; it refuses what nobody asked for.
void check_told(const std::string& model, std::set<std::string>& there) {
  Spec written(to_full_spec(model_config(model)));
  for (const ModelField& f : model_fields()) {
    if (written.has(f.name)) {
      there.insert(std::string(f.name));
      written.get(f.name, "");
    }
  }
  INFO("a field of " << model << " has no line in lib/model/fields.def");
  CHECK_NOTHROW(written.done());
}

}  // namespace

TEST_CASE("every field of a model's spec is told in fields.def, once") {
  std::set<std::string> told;
  for (const ModelField& f : model_fields()) {
    INFO(f.name);
    CHECK(told.insert(std::string(f.name)).second);
    CHECK_FALSE(f.about.empty());
    CHECK_FALSE(f.source.empty());
  }
  std::set<std::string> there;
  check_told("tiny", there);
  for (const Preset& p : model_presets())
    check_told(std::string(p.name), there);
  for (const std::string& name : told) {
    INFO("lib/model/fields.def names " << name << ", which no spec has");
    CHECK(there.contains(name));
  }
}

TEST_CASE("docs/fields.md is in step with fields.def") {
  const auto path = std::filesystem::path(MOE_SOURCE_DIR) / "docs/fields.md";
  if (std::getenv("MOE_UPDATE_GOLDEN")) {
    std::ofstream(path) << fields_page();
    FAIL_CHECK("wrote it anew");
    return;
  }
  std::ifstream in(path);
  CHECK(std::string(std::istreambuf_iterator<char>(in), {}) == fields_page());
}

TEST_CASE("a model is told by what differs from its preset, and read back from that") {
  for (const Preset& p : model_presets())
    CHECK(spec_beside_preset(model_config(std::string(p.name))) == p.name);
  const std::string spec = "tiny:layers=6,router={softmax:k=1},shared_width=32";
  const ModelConfig c = model_config(spec);
  const std::string brief = spec_beside_preset(c);
  INFO(brief);
  CHECK(brief.starts_with("tiny:layers=6,"));
  CHECK(brief.find("shared_width=32") != brief.npos);
  CHECK(brief.find("hidden") == brief.npos);
  CHECK(to_spec(model_config(brief)) == to_spec(c));
  ModelConfig foreign = c;
  foreign.preset = "olmoe";
  CHECK(spec_beside_preset(foreign) == to_spec(foreign));
}
