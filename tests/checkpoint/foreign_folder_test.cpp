// Folders that hold no weights in safetensors are called what they are, by their files and by the
// names of their tensors.
#include <catch2/catch.hpp>

#include "lib/checkpoint/folder.h"
#include "lib/checkpoint/foreign_folder.h"
#include "lib/core/text.h"
#include "tests/checkpoint/help.h"

using namespace moe;
using namespace moe::test;
namespace fs = std::filesystem;

namespace {

struct Case {
  std::vector<std::string> files;  // ending in "/": a folder
  std::string kind, hint;          // parts of them
};

void make(const fs::path& folder, const std::vector<std::string>& files) {
  for (const std::string& name : files) {
    fs::create_directories((folder / name).parent_path());
    if (!name.ends_with('/'))
      put(folder / name, "x");
  }
}

}  // namespace

TEST_CASE("folders without safetensors are called what they are") {
  const std::vector<Case> all = {
      {{"config.json", "pytorch_model.bin"},
       "PyTorch files (pytorch_model.bin)",
       "glob('DIR/pytorch_model*.bin')"},
      {{"config.json", "pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin",
        "zero_to_fp32.py"},
       "PyTorch files (pytorch_model-00001-of-00002.bin and 1 more)",
       "glob('DIR/pytorch_model*.bin')"},
      {{"config.json", "model.pth", "optimizer.pt", "training_args.bin"},
       "PyTorch files (model.pth)",
       "glob('DIR/model.pth')"},
      {{"a.pth", "b.pth"}, "PyTorch files (a.pth and 1 more)", "glob('DIR/*.pth')"},
      {{"consolidated.00.pth", "params.json", "tokenizer.model"},
       "authors' own code",
       "config.json"},
      {{"consolidated.safetensors", "params.json"}, "authors' own code", "model*.safetensors"},
      {{"config.json", "adapter_config.json", "adapter_model.safetensors"},
       "adapter (LoRA)",
       "from_pretrained('DIR').merge_and_unload()"},
      {{"config.json", "zero_to_fp32.py", "global_step10/", "latest"},
       "DeepSpeed",
       "zero_to_fp32.py DIR"},
      {{"__0_0.distcp", ".metadata"}, "torch.distributed", "dcp_to_torch DIR"},
      {{"latest_checkpointed_iteration.txt", "iter_0000010/"}, "Megatron", "convert"},
      {{"config.json", "flax_model.msgpack"}, "Flax", "from_flax=True"},
      {{"config.json", "tf_model.h5"}, "TensorFlow", "from_tf=True"},
      {{"config.json", "weights.npz"}, "MLX", "it was made from"},
      {{"model.onnx"}, "ONNX", "it was made from"},
      {{"a.gguf", "b.gguf"}, "GGUF models (a.gguf and 1 more)", "name the .gguf file"},
      {{"snapshots/abc/x", "refs/main"}, "hub's cache", "DIR/snapshots/abc"},
      {{"config.json", "model.safetensors.incomplete"}, "did not finish", "download"},
      {{"config.json", ".cache/huggingface/download/x.incomplete"}, "did not finish", "download"},
      {{"config.json", "all-weights.safetensors"}, "all-weights.safetensors", "model.safetensors"}};
  for (const Case& c : all) {
    Scratch dir;
    make(dir.path, c.files);
    std::string hint = c.hint;
    if (const auto at = hint.find("DIR"); at != hint.npos)
      hint.replace(at, 3, dir.path.string());
    const Outcome o = outcome([&] { find_checkpoint(dir.path); });
    INFO(c.files.back() << ": " << o.what << "\n" << o.hint);
    CHECK(o.code == Exit::input);
    CHECK(o.what.find(c.kind) != std::string::npos);
    CHECK(o.what.find("DIR") == std::string::npos);
    CHECK(o.hint.find(hint) != std::string::npos);
  }
}

TEST_CASE("folders of nothing in particular are not called anything") {
  Scratch dir;
  make(dir.path, {"config.json", "README.md", "training_args.bin", "optimizer.pt"});
  CHECK_FALSE(foreign_folder(dir.path));
  const Outcome o = outcome([&] { find_checkpoint(dir.path); });
  CHECK(o.what.find("neither model.safetensors nor") != std::string::npos);
}

TEST_CASE("a PyTorch file that is named itself is called that") {
  Scratch dir;
  put(dir / "model.bin", std::string("PK\x03\x04", 4));
  const Outcome o = outcome([&] { find_checkpoint(dir / "model.bin"); });
  CHECK(o.what.find("is a PyTorch file, not a run or checkpoint folder") != std::string::npos);
  CHECK(o.hint.find(concat("glob('", dir.path.string(), "/model.bin')")) != std::string::npos);
  CHECK(std::ranges::count(o.hint, '\n') == 3);
}

TEST_CASE("names of tensors say by whom a model was quantised") {
  const auto kind = [](std::vector<std::string> names) {
    const auto found = foreign_tensors(names);
    return found ? found->kind : "";
  };
  const std::string at = "model.layers.0.mlp.up_proj";
  CHECK(kind({at + ".g_idx", at + ".qweight", at + ".qzeros"}) == "a model quantised by GPTQ");
  CHECK(kind({at + ".qweight", at + ".qzeros", at + ".scales"}) ==
        "a model quantised by AWQ or GPTQ");
  CHECK(kind({at + ".weight", at + ".weight.absmax"}) == "a model quantised by bitsandbytes");
  CHECK(kind({at + ".SCB", at + ".weight"}) == "a model quantised by bitsandbytes");
  CHECK(kind({at + ".biases", at + ".scales", at + ".weight"}) == "a model quantised by MLX");
  CHECK(kind({"model.layers.0.mlp.switch_mlp.up_proj.weight"}).find("MLX") != std::string::npos);
  CHECK(kind({"base_model.model.model.layers.0.q_proj.lora_A.weight"}).find("LoRA") !=
        std::string::npos);
  CHECK(kind({"layers.0.attention.wq.weight"}).find("authors' own code") != std::string::npos);
  CHECK(kind({at + ".weight", at + ".weight_scale_inv", "model.layers.0.mlp.experts.down_proj"})
            .empty());
  CHECK(kind({at + ".scales", at + ".weight"}).empty());
}
