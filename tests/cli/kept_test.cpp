// What stays of a published folder in a model that was made from it: files byte for byte, every key
// of config.json that the edit does not touch, and the type of the numbers.
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "tests/cli/program.h"
#include "tests/sentencepiece_bytes.h"

namespace moe::cli {
namespace {

using Json = nlohmann::json;

Json json_of(const fs::path& path) {
  return Json::parse(text_of(path));
}

Result good(const Folder& f, const std::string& words) {
  INFO("moe " << words);
  const Result r = f.run(words);
  INFO(r.err);
  REQUIRE(r.code == 0);
  return r;
}

const std::vector<std::string> verbatim = {"LICENSE",
                                           "added_tokens.json",
                                           "chat_template.jinja",
                                           "generation_config.json",
                                           "merges.txt",
                                           "modeling_own.py",
                                           "special_tokens_map.json",
                                           "tokenizer.json",
                                           "tokenizer_config.json",
                                           "vocab.json"};

// A folder as it is published: a model of this program without what says so, with keys and files
// that it does not know, numbers in bf16.
void publish(const Folder& f, const std::string& name) {
  good(f, nano + " --tokenizer bpe:vocab=300 --steps 1 -o run");
  good(f, "train --init run --steps 0 --save-dtype bf16 -o half");
  const fs::path from = f / "half/checkpoint-00000000";
  fs::create_directory(f / name);
  for (const char* file : {"model.safetensors", "tokenizer.json"})
    fs::copy_file(from / file, f / (name + "/" + file));
  Json config = json_of(from / "config.json");
  config.erase("moe_training");
  config["eos_token_id"] = {0, 3};
  config["pad_token_id"] = 7;
  config["initializer_range"] = 0.013;
  config["router_aux_loss_coef"] = 0.001;
  config["transformers_version"] = "4.57.0";
  config["of_the_authors"] = {{"deep", {1, 2}}};
  put(f / (name + "/config.json"), config.dump());
  put(f / (name + "/generation_config.json"), "{\"eos_token_id\": [0, 3]}\n");
  put(f / (name + "/tokenizer_config.json"),
      "{\"eos_token\": \"<|endoftext|>\", \"model_max_length\": 128,  \"tokenizer_class\": "
      "\"PreTrainedTokenizerFast\"}");
  for (const std::string& file : verbatim) {
    if (!fs::exists(f / (name + "/" + file)))
      put(f / (name + "/" + file), "{}  \n# " + file);
  }
  put(f / (name + "/README.md"), "the authors' own\n");
}

void same_files(const Folder& f, const std::string& a, const std::string& b) {
  for (const std::string& file : verbatim) {
    INFO(b << " " << file);
    REQUIRE(fs::exists(f / (b + "/" + file)));
    CHECK(text_of(f / (a + "/" + file)) == text_of(f / (b + "/" + file)));
  }
}

// Keys in which two configurations differ.
std::vector<std::string> changed(const Json& a, const Json& b) {
  std::vector<std::string> out;
  for (const auto& [key, value] : a.items()) {
    if (!b.contains(key) || b.at(key) != value)
      out.push_back(key);
  }
  for (const auto& [key, value] : b.items()) {
    if (!a.contains(key))
      out.push_back(key);
  }
  return out;
}

std::string header_of(const fs::path& file) {
  const std::string all = text_of(file);
  return all.substr(8, all.find("}}") - 6);
}

}  // namespace

TEST_CASE("an edit of a published folder keeps what it does not change") {
  const Folder f;
  publish(f, "theirs");
  const Result r = good(f, "edit theirs --remove 0:1,1:5 -o less");
  CHECK(r.err.find("not copied: README.md") != r.err.npos);
  same_files(f, "theirs", "less");
  const Json before = json_of(f / "theirs/config.json");
  const Json after = json_of(f / "less/config.json");
  CHECK(changed(before, after) == std::vector<std::string>{"num_local_experts"});
  CHECK(after.at("torch_dtype") == "bfloat16");
  CHECK(header_of(f / "less/model.safetensors").find("F32") == std::string::npos);
  CHECK(json_of(f / "less/edit.json").at("from") == "theirs");
  CHECK_FALSE(fs::exists(f / "less/state.json"));
  CHECK(good(f, "verify less").out == "less: whole\n");
  CHECK(good(f, "show less").out.find("yes, as mixtral") != std::string::npos);
  good(f, "generate less --prompt 'the house' --tokens 2");
  good(f, "edit less --save f32 --remove 0:0,1:0 -o wide");
  CHECK(json_of(f / "wide/config.json").at("torch_dtype") == "float32");
  CHECK(header_of(f / "wide/model.safetensors").find("BF16") == std::string::npos);
}

TEST_CASE("a run that starts from a published folder keeps its files and keys, also resumed") {
  const Folder f;
  publish(f, "theirs");
  const std::string tune =
      "train --init theirs --data text:path=corpus --batch 2 --length 32 --eval-tokens 64 ";
  good(f, tune + "--steps 2 --save-every 1 -o tuned");
  const std::string last = "tuned/checkpoint-00000002";
  same_files(f, "theirs", last);
  const Json before = json_of(f / "theirs/config.json");
  const Json after = json_of(f / (last + "/config.json"));
  // float32, and what training adds
  CHECK(changed(before, after) == std::vector<std::string>{"torch_dtype", "moe_training"});
  const std::string whole = text_of(f / (last + "/config.json"));
  fs::remove_all(f / last);
  good(f, "train --resume tuned");
  same_files(f, "theirs", last);
  CHECK(text_of(f / (last + "/config.json")) == whole);
  good(f, "eval tuned --data text:path=corpus,split=valid --tokens 64 --length 32");
  good(f, "edit tuned --remove 0:1,1:5 -o less");
  same_files(f, "theirs", "less");
  CHECK(json_of(f / "less/state.json").at("tokenizer") ==
        json_of(f / (last + "/state.json")).at("tokenizer"));
}

TEST_CASE("a sentencepiece model stays with runs and edits") {
  const Folder f;
  publish(f, "theirs");
  for (const std::string& file : verbatim) {
    if (file.find("token") != file.npos || file == "vocab.json" || file == "merges.txt")
      fs::remove(f / ("theirs/" + file));
  }
  std::string model = test::scored_piece("<unk>", 0, 2) + test::scored_piece("<s>", 0, 3) +
                      test::scored_piece("</s>", 0, 3);
  for (int b = ' '; b < 127; ++b)
    model += test::scored_piece(std::string(1, char(b)), float(-b), 1);
  put(f / "theirs/tokenizer.model", model);
  good(f,
       "train --init theirs --data text:path=corpus --batch 2 --length 32 --eval-tokens 64 --steps "
       "1 -o tuned");
  const std::string last = "tuned/checkpoint-00000001/";
  CHECK(text_of(f / (last + "tokenizer.model")) == model);
  const std::string name = json_of(f / (last + "state.json")).at("tokenizer");
  CHECK(name.starts_with("tokenizer.model sha256:"));
  good(f, "generate tuned --prompt house --tokens 2");
  good(f, "edit tuned --remove 0:1,1:5 -o less");
  CHECK(text_of(f / "less/tokenizer.model") == model);
  good(f, "generate less --prompt house --tokens 2");
  good(f, "edit theirs --remove 0:1,1:5 -o bare");
  CHECK(text_of(f / "bare/tokenizer.model") == model);
  put(f / "less/tokenizer.model", model + test::scored_piece("zz", -3, 1));
  fs::remove(f / "less/MANIFEST.json");
  const Result r = f.run("generate less --prompt house --tokens 2");
  CHECK(r.code == 3);
  CHECK(r.err.find("the run was trained with " + name) != r.err.npos);
}

}  // namespace moe::cli
