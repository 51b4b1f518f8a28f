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
  CHECK(says(none, "no edit was asked for"));
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

TEST_CASE("an index and its shards that disagree are warned of where nothing needed is missing") {
  const Folder f;
  const fs::path from = f / checkpoint(f);
  const std::vector<NamedTensor> all = tensors_but(from, "");
  copy_with(from, f / "split", {});
  fs::remove(f / "split/model.safetensors");
  const std::vector<NamedTensor> first(all.begin(), all.begin() + 5);
  const std::vector<NamedTensor> rest(all.begin() + 5, all.end());
  write_safetensors(f / "split/a.safetensors", first);
  write_safetensors(f / "split/b.safetensors", rest);
  Json map = {{"mtp.fc.weight", "b.safetensors"}, {"mtp.norm.weight", "c.safetensors"}};
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (i != 2)
      map[all[i].name] = i < 5 ? "a.safetensors" : "b.safetensors";
  }
  write_json(f / "split/model.safetensors.index.json", {{"weight_map", map}});
  const Result r = f.run("eval split" + data + " --format csv");
  CHECK(r.code == 0);
  CHECK(
      says(r, "puts the tensor 'mtp.fc.weight' in 'split/b.safetensors', which does not hold it"));
  CHECK(
      says(r, "puts the tensor 'mtp.norm.weight' in 'split/c.safetensors', which does not exist"));
  CHECK(says(r, "leaves out the tensor '" + all[2].name + "', which its shards hold"));
  CHECK(losses(f, "split") == losses(f, "run/checkpoint-00000002"));
  fs::remove(f / "split/a.safetensors");
  const Result missing = f.run("eval split" + data);
  CHECK(missing.code == 3);
  CHECK(says(missing, "'split/a.safetensors', which does not exist"));
}

TEST_CASE("a model that somebody quantised is named by its tensors") {
  const Folder f;
  const fs::path from = f / checkpoint(f);
  std::vector<NamedTensor> all = tensors_but(from, "");
  all.emplace_back("model.layers.0.mlp.up_proj.qweight", Tensor(DType::u8, {4}));
  all.emplace_back("model.layers.0.mlp.up_proj.qzeros", Tensor(DType::u8, {4}));
  copy_with(from, f / "q", all);
  for (const std::string verb : {"show q", "eval q --data text:path=corpus"}) {
    const Result r = f.run(verb);
    CHECK(r.code == 3);
    CHECK(says(r, "'q' holds the tensors of a model quantised by AWQ or GPTQ"));
  }
}

TEST_CASE("a model in PyTorch files is refused with the lines that convert it") {
  const Folder f;
  const fs::path from = f / checkpoint(f);
  copy_with(from, f / "bin", {});
  fs::remove(f / "bin/model.safetensors");
  put(f / "bin/pytorch_model.bin", "PK");
  const Result r = f.run("show bin");
  CHECK(r.code == 3);
  CHECK(says(r, "'bin' is a model whose weights are PyTorch files (pytorch_model.bin)"));
  CHECK(says(r, "\nimport glob, torch, safetensors.torch\nw = {"));
  CHECK(says(r, "\nsafetensors.torch.save_file(w, 'bin/model.safetensors', {'format': 'pt'})\n"));
}

TEST_CASE("pointers and pages in the place of a GGUF file or a tokenizer are called that") {
  const Folder f;
  const std::string pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n";
  put(f / "x.gguf", pointer);
  CHECK(says(f.run("show x.gguf"), "'x.gguf' is a Git LFS pointer"));
  const std::string model = checkpoint(f);
  copy_with(f / model, f / "m", tensors_but(f / model, ""));
  for (const std::string name : {"tokenizer.json", "tokenizer.model"}) {
    put(f / ("m/" + name), pointer);
    const Result r = f.run("eval m --data text:path=corpus");
    CHECK(r.code == 3);
    CHECK(says(r, "'m/" + name + "' is a Git LFS pointer"));
    fs::remove(f / ("m/" + name));
  }
  put(f / "m/tokenizer.json", "<html><body>404</body></html>");
  CHECK(says(f.run("eval m --data text:path=corpus"), "'m/tokenizer.json' is an HTML page"));
}

TEST_CASE("a dense OLMo 2 made sparse is a FlexOlmo with the same losses") {
  const Folder f;
  REQUIRE(f.run("train --data text:path=corpus --model nano:dense=1,norm_after=1,qk_norm=full "
                "--batch 1 --length 32 --steps 2 --eval-tokens 32 -o dense")
              .code == 0);
  const std::string from = "dense/checkpoint-00000002";
  CHECK(read_json(f / from / "config.json").at("model_type") == "olmo2");
  REQUIRE(f.run("edit " + from + " -o sparse --upcycle copy:experts=4,k=2").code == 0);
  CHECK(read_json(f / "sparse/config.json").at("model_type") == "flex_olmo");
  const auto bits = [&](const std::string& model) {
    const std::string out = losses(f, model);
    return std::stod(out.substr(out.find("bits,") + 5));
  };
  CHECK(bits("sparse") == Approx(bits(from)).margin(1e-5));
}

}  // namespace moe::cli
