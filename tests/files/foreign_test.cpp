// What is downloaded, cloned or saved in the place of what was wanted is called by its name.
#include <nlohmann/json.hpp>

#include "lib/files/foreign.h"
#include "lib/files/json.h"
#include "tests/files/scratch.h"

using namespace moe;
using moe::test::refusal;
using moe::test::Scratch;

namespace {

std::string kind_of(const std::string& name, const std::string& bytes) {
  const auto found = foreign_file(name, bytes);
  if (found)
    CHECK_FALSE(found->hint.empty());
  return found ? found->kind : "";
}

}  // namespace

TEST_CASE("foreign files are named by their first bytes and their ending") {
  const std::string zip("PK\x03\x04\x14\0", 6);
  const std::vector<std::vector<std::string>> cases = {
      {"model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
       "Git LFS pointer"},
      {"x.gguf", std::string("GGUF\3\0\0\0", 8), "GGUF model"},
      {"pytorch_model.bin", zip, "PyTorch file"},
      {"ids.npz", zip, "NumPy archive"},
      {"x", zip, "zip archive"},
      {"old.pt", std::string("\x80\x02\x8a\x0a", 4), "pickle"},
      {"x.jsonl.gz", "\x1f\x8b\x08", "gzip"},
      {"x.jsonl.zst", "\x28\xb5\x2f\xfd", "zstd"},
      {"model.safetensors", "\n <!DOCTYPE html><title>404</title>", "HTML page"},
      {"model.safetensors", "<HTML>", "HTML page"},
      {"ids.npy", "\x93NUMPY\x01", "NumPy array"},
      {"t.h5", "\x89HDF\r\n\x1a\n", "HDF5 file"},
      {"x.bin", std::string("\x40\1\0\0\0\0\0\0{\"a", 11), "safetensors file"}};
  for (const auto& c : cases) {
    CAPTURE(c[0], c[2]);
    CHECK(kind_of(c[0], c[1]).find(c[2]) != std::string::npos);
  }
  for (const std::string text :
       {"", "{\"a\": 1}", "12 13 14", "the version https://git", "P", "\x80"})
    CHECK(kind_of("x", text).empty());
}

TEST_CASE("a pointer in the place of a JSON file is refused by name") {
  const Scratch folder;
  folder.put("config.json", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n");
  const std::string sentence = refusal([&] { read_json(folder / "config.json"); });
  INFO(sentence);
  CHECK(sentence.find("is a Git LFS pointer") != sentence.npos);
  CHECK(sentence.find("not JSON") != sentence.npos);
}

TEST_CASE("Python's words for numbers that are not finite are read where they are allowed") {
  const JsonLimits python{.python_words = true};
  const std::string text = R"({"a": [0.0, Infinity, -Infinity], "b": NaN, "c": "Infinity \" NaN"})";
  const Json json = parse_json(text, "config.json", python);
  CHECK(json["a"][0] == 0.0);
  CHECK(std::isinf(json["a"][1].get<double>()));
  CHECK(json["a"][1] > 0);
  CHECK(std::isinf(json["a"][2].get<double>()));
  CHECK(json["a"][2] < 0);
  CHECK(json["b"].is_null());
  CHECK(json["c"] == "Infinity \" NaN");
  CHECK_THROWS_WITH(parse_json(text, "state.json"), Catch::Contains("column"));
  CHECK_THROWS_WITH(parse_json("{\"a\": Infinit}", "config.json", python),
                    Catch::Contains("config.json"));
}
