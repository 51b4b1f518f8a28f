// Folders of checkpoints as they are found, through the program: packed experts, models saved
// without their head.
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <sstream>

#include "lib/checkpoint/safetensors.h"
#include "lib/files/json.h"
#include "tests/cli/program.h"

namespace moe::cli {
namespace {

const std::string data = " --data text:path=corpus,split=valid --tokens 200";

bool says(const Result& r, const std::string& part) {
  INFO(r.err);
  return r.err.find(part) != r.err.npos;
}

std::string checkpoint(const Folder& f) {
  REQUIRE(f.run(nano + " --steps 2 -o run").code == 0);
  return "run/checkpoint-00000002";
}

std::string losses(const Folder& f, const std::string& model) {
  const Result r = f.run("eval " + model + data + " --format csv");
  INFO(r.err);
  CHECK(r.code == 0);
  return r.out.substr(std::min(r.out.size(), r.out.find("loss,0")));
}

// The folder once more with other tensors and without state.
void copy_with(const fs::path& from, const fs::path& to, const std::vector<NamedTensor>& tensors) {
  fs::create_directories(to);
  Json config = read_json(from / "config.json");
  config.erase("moe_training");
  write_json(to / "config.json", config);
  write_safetensors(to / "model.safetensors", tensors);
}
std::vector<NamedTensor> tensors_but(const fs::path& folder, const std::string& without) {
  const Tensors all(folder);
  std::vector<NamedTensor> out;
  for (const std::string& name : all.names()) {
    if (name != without)
      out.emplace_back(name, all.get(name).copy());
  }
  return out;
}

}  // namespace

TEST_CASE("a checkpoint goes into the packed layout and back, byte for byte") {
  const Folder f;
  const std::string from = checkpoint(f);
  REQUIRE(f.run("edit " + from + " -o packed --layout packed").code == 0);
  const Tensors packed(f / "packed");
  CHECK(packed.find("model.layers.0.mlp.experts.gate_up_proj") != nullptr);
  CHECK(packed.find("model.layers.0.mlp.gate.weight") != nullptr);
  CHECK(packed.find("model.layers.0.block_sparse_moe.gate.weight") == nullptr);
  CHECK(losses(f, "packed") == losses(f, from));
  REQUIRE(f.run("edit packed -o back --layout published").code == 0);
  CHECK(text_of(f / "back/model.safetensors") == text_of(f / from / "model.safetensors"));
  REQUIRE(f.run("edit packed -o fewer --remove 0:1,1:3 --layout packed").code == 0);
  CHECK(Tensors(f / "fewer").at("model.layers.1.mlp.experts.down_proj").dims[0] == 7);
  const Result trained = f.run(
      "train --init packed --data text:path=corpus --steps 1 --batch 1 "
      "--length 16 --eval-tokens 32 -o more");
  INFO(trained.err);
  CHECK(trained.code == 0);
}

TEST_CASE("a layout that a model does not have is refused, and nothing is written") {
  const Folder f;
  REQUIRE(
      f.run("train --data text:path=corpus --model nano:sinks=1 --batch 1 --length 16 --steps 1 "
            "--eval-tokens 32 -o run")
          .code == 0);
  const Result r = f.run("edit run -o packed --layout packed");
  CHECK(r.code == 2);
  CHECK(says(r, "no published class holds this model"));
  CHECK_FALSE(fs::exists(f / "packed"));
  CHECK(f.run("edit run -o other --layout sideways").code == 2);
  const Result none = f.run("edit run -o other");
  CHECK(none.code == 2);
  CHECK(says(none, "0 edits were asked for"));
}

TEST_CASE("a model saved without its head is traced, and asked for no losses") {
  const Folder f;
  const fs::path from = f / checkpoint(f);
  copy_with(from, f / "base", tensors_but(from, "lm_head.weight"));
  copy_with(from, f / "whole", tensors_but(from, ""));
  const std::vector<std::string> refused = {
      "eval base" + data, "generate base --ids '1 2' --tokens 2",
      "edit base -o out --remove 0:1,1:3",
      "train --init base --data text:path=corpus --steps 1 -o out"};
  for (const std::string& verb : refused) {
    INFO(verb);
    const Result r = f.run(verb);
    CHECK(r.code == 3);
    CHECK(says(r, "tensor 'lm_head.weight' is missing in 'base' and tie_word_embeddings is false"));
    CHECK(says(r, "moe trace needs none"));
  }
  const Result traced = f.run("trace base" + data + " -o base.h5");
  INFO(traced.err);
  CHECK(traced.code == 0);
  CHECK(says(traced, "losses and predictions are left out"));
  CHECK_FALSE(says(traced, "loss 0"));
  REQUIRE(f.run("trace whole" + data + " -o whole.h5").code == 0);
  CHECK(f.run("verify base.h5").code == 0);
  const auto table = [&](const std::string& trace) {
    return f.run("report " + trace + " --format csv --bootstrap 0").out;
  };
  const std::string base = table("base.h5");
  CHECK(base.find("load") != base.npos);
  std::istringstream lines(base);
  const std::string whole = table("whole.h5");
  int same = 0;
  for (std::string line; std::getline(lines, line);)
    same += line.starts_with("load,") && whole.find(line) != whole.npos;
  CHECK(same > 8);
}

}  // namespace moe::cli
