// An edited model keeps the folder of its encoder, so that it opens as a whole.
#include <unistd.h>
#include <catch2/catch.hpp>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "lib/family/families.h"
#include "lib/files/file.h"
#include "lib/model/decoder.h"
#include "lib/run/run_folder.h"

using namespace moe;

namespace {

namespace fs = std::filesystem;

Json config_of(const char* family) {
  return read_json(fs::path(MOE_SOURCE_DIR) / "tests/model/families" / concat(family, ".json"))
      .at("config");
}

struct Scratch {
  Scratch() : path(fs::temp_directory_path() / concat("moe-kept-", ::getpid())) {
    fs::create_directories(path);
  }
  ~Scratch() {
    fs::remove_all(path);
  }
  fs::path path;
};

void write_text(const fs::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

}  // namespace

TEST_CASE("the folder of an encoder that config.json names is kept, and no folder outside") {
  const Scratch scratch;
  const fs::path folder = scratch.path / "llava";
  fs::create_directories(folder / "clip/large");
  fs::create_directories(folder / "other");
  Json config = config_of("moe_llava_stablelm");
  config["mm_image_tower"] = "clip/large";
  const auto backend = make_reference<float>();
  Decoder<float> made(config_from_json(config).config, *backend);
  made.initialise(2);
  const std::vector<NamedTensor> tensors = store(made, "moe_llava_stablelm");
  write_safetensors(folder / "model.safetensors", tensors);
  write_text(folder / "config.json", config.dump());
  write_text(folder / "clip/large/config.json", "{\"hidden_size\": 3}");
  write_text(folder / "clip/large/model.safetensors", std::string(70'000, 'w'));
  write_text(folder / "other/notes", "?");
  const KeptFiles found = kept_files(folder);
  REQUIRE(found.copies.size() == 2);
  CHECK(found.copies[1].name == "clip/large/model.safetensors");
  CHECK(found.left == std::vector<std::string>{"other"});
  LoadedModel loaded = load_model(folder, *backend);
  const TokenizerFiles kept{.kept = std::make_shared<const KeptFiles>(found)};
  save_model(scratch.path / "out", *loaded.model,
             {.state = nullptr,
              .tokenizer = kept,
              .type = [](const std::string&) { return DType::f32; },
              .made = Json::object()});
  CHECK(checkpoint_problem(scratch.path / "out").empty());
  const fs::path tower = scratch.path / "out/clip/large/model.safetensors";
  CHECK(read_file(tower, 1 << 20) == std::string(70'000, 'w'));
  CHECK(load_model(scratch.path / "out", *backend).family == "moe_llava_stablelm");
  for (const char* outside : {"../llava/other", "/tmp", ".", ""}) {
    config["mm_image_tower"] = outside;
    write_text(folder / "config.json", config.dump());
    INFO(outside);
    CHECK(kept_files(folder).copies.empty());
  }
}
