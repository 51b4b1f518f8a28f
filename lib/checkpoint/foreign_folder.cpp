#include "lib/checkpoint/foreign_folder.h"

#include <algorithm>
#include <regex>

#include "lib/core/text.h"
#include "lib/files/file.h"

namespace moe {
namespace fs = std::filesystem;
namespace {

constexpr const char* unfinished_kind = "a download that did not finish";
constexpr const char* unfinished_hint =
    "download the folder again; huggingface-cli download goes on where it stopped";

// Files whose presence says what a folder is. The pattern takes whole names; `kind` and `hint` may
// say DIR, for the folder.
struct Mark {
  const char *pattern, *kind, *hint;
};
constexpr Mark marks[] = {
    {"adapter_config\\.json",
     "an adapter (LoRA), which is no model without the one it was made for",
     "these lines of Python make a whole model of it:\n"
     "from peft import AutoPeftModelForCausalLM\n"
     "AutoPeftModelForCausalLM.from_pretrained('DIR').merge_and_unload().save_pretrained('NEW')"},
    {"zero_to_fp32\\.py|zero_pp_rank_.*|global_step[0-9]+",
     "a checkpoint of DeepSpeed, whose weights lie in parts of its ranks",
     "python zero_to_fp32.py DIR NEW --safe_serialization"},
    {".*\\.distcp", "a checkpoint of torch.distributed, whose weights lie in parts of its ranks",
     "python -m torch.distributed.checkpoint.format_utils dcp_to_torch DIR NEW.pth"},
    {"latest_checkpointed_iteration\\.txt|mp_rank_[0-9_]+",
     "a checkpoint of Megatron, whose weights lie in parts of its ranks",
     "Megatron's tools/checkpoint/convert.py writes the layout of transformers"},
    {"consolidated.*\\.(safetensors|pth|pt)|params\\.json",
     "a model in the layout of its authors' own code (consolidated.*, params.json), whose tensors "
     "have other names and another order of rows than in transformers",
     "the folder of the same model in the layout of transformers, with config.json and "
     "model*.safetensors"},
    {"weights(\\.[0-9]+)?\\.(npz|safetensors)", "a model of MLX",
     "the model that it was made from, in the layout of transformers"},
    {"flax_model.*\\.msgpack", "a model whose weights are Flax files",
     "these lines of Python make safetensors of it, with transformers before version 5:\n"
     "from transformers import AutoModelForCausalLM\n"
     "AutoModelForCausalLM.from_pretrained('DIR', from_flax=True).save_pretrained('NEW')"},
    {"tf_model.*\\.h5", "a model whose weights are TensorFlow files",
     "these lines of Python make safetensors of it, with transformers before version 5:\n"
     "from transformers import AutoModelForCausalLM\n"
     "AutoModelForCausalLM.from_pretrained('DIR', from_tf=True).save_pretrained('NEW')"},
    {".*\\.onnx", "a model whose weights are ONNX files",
     "the model that it was made from, in the layout of transformers"},
    {".*\\.(incomplete|part|aria2|crdownload)", unfinished_kind, unfinished_hint}};

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> out;
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(folder, none))
    out.push_back(entry.path().filename().native());
  std::ranges::sort(out);
  return out;
}

std::string with_folder(std::string text, const fs::path& folder) {
  for (auto at = text.find("DIR"); at != text.npos; at = text.find("DIR", at + 1))
    text.replace(at, 3, folder.string());
  return text;
}

std::vector<std::string> matching(const std::vector<std::string>& names, const char* pattern) {
  const std::regex of(pattern);
  std::vector<std::string> out;
  std::ranges::copy_if(names, std::back_inserter(out),
                       [&](const std::string& name) { return std::regex_match(name, of); });
  return out;
}

std::string listed(const std::vector<std::string>& names) {
  return names.size() == 1 ? names[0] : concat(names[0], " and ", names.size() - 1, " more");
}

// Files of PyTorch whose names match; `pattern` names them in Python.
std::optional<ForeignFile> torch_files(const fs::path& folder,
                                       const std::vector<std::string>& files,
                                       const std::string& pattern) {
  if (files.empty())
    return std::nullopt;
  return ForeignFile{concat("a model whose weights are PyTorch files (", listed(files), ")"),
                     torch_conversion(folder.string(), pattern)};
}
std::optional<ForeignFile> any_torch_files(const fs::path& folder,
                                           const std::vector<std::string>& names) {
  const std::vector<std::string> files =
      matching(names, "(?!training_args|optimizer|scheduler|rng_state).*\\.(bin|pth|pt|ckpt)");
  if (files.size() < 2)
    return torch_files(folder, files, files.empty() ? "" : files[0]);
  return torch_files(folder, files, "*" + fs::path(files[0]).extension().string());
}

// The hub's tools keep what they have so far beside the folder's files.
std::optional<ForeignFile> unfinished(const fs::path& folder) {
  const std::vector<std::string> names = names_in(folder / ".cache/huggingface/download");
  if (matching(names, ".*\\.incomplete").empty())
    return std::nullopt;
  return ForeignFile{unfinished_kind, unfinished_hint};
}

// Of the cache of the hub: the files stand below snapshots/.
std::optional<ForeignFile> hub_cache(const fs::path& folder) {
  std::error_code none;
  if (!fs::is_directory(folder / "snapshots", none) || !fs::is_directory(folder / "refs", none))
    return std::nullopt;
  const std::vector<std::string> snapshots = names_in(folder / "snapshots");
  const std::string first = snapshots.empty() ? "HASH" : snapshots.back();
  return ForeignFile{"a folder of the hub's cache, whose files stand in snapshots/",
                     "name " + (folder / "snapshots" / first).string()};
}

std::optional<ForeignFile> several_gguf(const std::vector<std::string>& names) {
  const std::vector<std::string> files = matching(names, ".*\\.gguf");
  if (files.empty())
    return std::nullopt;
  return ForeignFile{concat("a folder of GGUF models (", listed(files), ")"),
                     "name the .gguf file itself as the model"};
}

std::optional<ForeignFile> other_safetensors(const std::vector<std::string>& names) {
  const std::vector<std::string> files = matching(names, ".*\\.safetensors");
  if (files.empty())
    return std::nullopt;
  return ForeignFile{
      concat("a folder whose weights stand in ", listed(files), " and in no model.safetensors"),
      "where that is the whole model, name it model.safetensors"};
}

// An ending or a part of tensors' names, and who writes it.
struct Trace {
  const char *part, *kind;
};
constexpr Trace traces[] = {
    {".g_idx", "a model quantised by GPTQ"},
    {".qzeros", "a model quantised by AWQ or GPTQ"},
    {".qweight", "a model quantised by AWQ or GPTQ"},
    {".quant_state.bitsandbytes__", "a model quantised by bitsandbytes"},
    {".absmax", "a model quantised by bitsandbytes"},
    {".SCB", "a model quantised by bitsandbytes"},
    {".switch_mlp.", "a model of MLX, which keeps experts under names of its own"},
    {".lora_A.", "an adapter (LoRA), which is no model without the one it was made for"},
    {".attention.wq.",
     "a model in the layout of its authors' own code, whose tensors have other "
     "names and another order of rows than in transformers"}};

}  // namespace

std::optional<ForeignFile> foreign_folder(const fs::path& folder) {
  const std::vector<std::string> names = names_in(folder);
  if (auto found =
          torch_files(folder, matching(names, "pytorch_model.*\\.bin"), "pytorch_model*.bin"))
    return found;
  for (const Mark& m : marks) {
    if (!matching(names, m.pattern).empty())
      return ForeignFile{m.kind, with_folder(m.hint, folder)};
  }
  for (auto found : {unfinished(folder), any_torch_files(folder, names), hub_cache(folder),
                     several_gguf(names), other_safetensors(names)}) {
    if (found)
      return found;
  }
  return std::nullopt;
}

std::optional<ForeignFile> foreign_tensors(const std::vector<std::string>& names) {
  const auto any = [&](std::string_view part) {
    return std::ranges::any_of(
        names, [&](const std::string& name) { return name.find(part) != name.npos; });
  };
  const char* hint = "the model that it was made from, in float32, bfloat16 or float16";
  for (const Trace& t : traces) {
    if (any(t.part))
      return ForeignFile{t.kind, hint};
  }
  // a matrix of words beside its scales and offsets
  const auto quantised = std::ranges::find_if(names, [&](const std::string& name) {
    return name.ends_with(".scales") &&
           std::ranges::binary_search(names, name.substr(0, name.size() - 6) + "biases");
  });
  if (quantised != names.end())
    return ForeignFile{"a model quantised by MLX", hint};
  return std::nullopt;
}

}  // namespace moe
