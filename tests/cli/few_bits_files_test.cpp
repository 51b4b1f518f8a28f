// Files whose matrices are in few bits, through the verbs that look on: read where they lie, with
// the rows of the widened model, said where they are widened, and shown and planned as they are.
#include <catch2/catch.hpp>
#include <map>
#include <nlohmann/json.hpp>

#include "tests/cli/program.h"
#include "tests/cli/rows.h"

namespace moe::cli {
namespace {

using nlohmann::json;

Result good(const Folder& f, const std::string& words) {
  Result r = f.run(words);
  INFO("moe " << words << "\n" << r.out << r.err);
  REQUIRE(r.code == 0);
  return r;
}
bool says(const std::string& text, const std::string& part) {
  return text.find(part) != text.npos;
}

const std::string data = " --data text:path=corpus --tokens 512 --length 64 --seed 3";
const std::string said = "matrices in few bits stay so";

// A run, and what became of it: q8_0.gguf, q4_0.gguf, and folders named after formats.
const std::vector<std::string> gguf{"q8_0.gguf", "q4_0.gguf"};
const std::vector<std::string> folders{"int8", "int8:block=32", "int4", "fp8", "mxfp4"};
void write_all(const Folder& f) {
  good(f, nano + " --steps 3 -o run");
  good(f, "edit run -o q8_0.gguf --save q8_0");
  good(f, "edit run -o q4_0.gguf --save q4_0");
  for (const std::string& format : folders)
    good(f, "edit run -o " + format + " --quantise experts=" + format);
}

double loss_of(const Result& r) {
  const json page = json::parse(r.out);
  for (const json& column : page.at("tables").at(0).at("columns")) {
    if (column.at("name") == "loss")
      return column.at("values").back().get<double>();
  }
  return -1;
}

// The table of formats of moe show: bytes by format.
std::map<std::string, double> bytes_by_format(const Result& r) {
  std::map<std::string, double> out;
  const json page = json::parse(r.out);
  for (const json& table : page.at("tables")) {
    if (table.at("id") != "types")
      continue;
    const json& columns = table.at("columns");
    for (std::size_t i = 0; i < columns.at(0).at("values").size(); ++i) {
      out[columns.at(0).at("values").at(i).get<std::string>()] =
          columns.at(3).at("values").at(i).get<double>();
    }
  }
  return out;
}

}  // namespace

TEST_CASE("verbs that look on read matrices in few bits as they lie, with the rows of wide ones") {
  const Folder f;
  write_all(f);
  std::vector<std::string> all = gguf;
  all.insert(all.end(), folders.begin(), folders.end());
  for (const std::string& m : all) {
    INFO(m);
    CHECK(says(good(f, "trace " + m + data + " -o there.h5 --force").err, said));
    CHECK_FALSE(
        says(good(f, "trace " + m + data + " -o wide.h5 --force --expert-memory all").err, said));
    CHECK(same_rows(f / "there.h5", f / "wide.h5", true));
    // few tokens are decoded, whose sums could have another order
    good(f, "trace " + m + " --prompt 'To be' -o there.h5 --force");
    good(f, "trace " + m + " --prompt 'To be' -o wide.h5 --force --expert-memory all");
    CHECK(same_rows(f / "there.h5", f / "wide.h5", true));
    const Result there = good(f, "eval " + m + data + " --format json");
    CHECK(says(there.err, said));
    CHECK(loss_of(there) ==
          loss_of(good(f, "eval " + m + data + " --format json --expert-memory all")));
    CHECK(good(f, "verify " + m).out == m + ": whole\n");
    const std::string ask = "generate " + m + " --prompt 'To be' --tokens 5 --temperature 0";
    CHECK_FALSE(says(good(f, ask).err, said));  // as always
    CHECK(good(f, "bench decode " + m + " --seconds 0.02 --threads 1").code == 0);
  }
}

TEST_CASE("moe show names the formats of a folder, and moe plan counts its bytes") {
  const Folder f;
  good(f, nano + " --steps 1 -o run");
  CHECK(bytes_by_format(good(f, "show run --format json")).empty());
  for (const std::string format : {"int8", "int4", "fp8", "mxfp4"}) {
    INFO(format);
    good(f, "edit run -o " + format + " --quantise experts=" + format);
    auto bytes = bytes_by_format(good(f, "show " + format + " --format json"));
    REQUIRE(bytes.size() == 2);
    CHECK(bytes.contains(format));
    CHECK(bytes.contains("f32"));
    const double file = double(fs::file_size(f / format / "model.safetensors"));
    CHECK(bytes[format] + bytes["f32"] < file);
    CHECK(bytes[format] + bytes["f32"] > 0.9 * file);
    // attention, embedding and router are in f32 as the file has them
    const Result plan = good(f, "plan " + format + " --device h100 --format json");
    CHECK(says(plan.out, "as they are"));
  }
}

TEST_CASE("what was quantised and is written otherwise is said") {
  const Folder f;
  good(f, nano + " --steps 1 -o run");
  good(f, "edit run -o q.gguf --save q8_0");
  good(f, "edit run -o int8 --quantise experts=int8");
  const std::string was = "the weights were quantised; they ";
  const auto told = [&](const std::string& words, const std::string& what) {
    const Result r = good(f, "edit " + words);
    INFO(words << ": " << r.err);
    CHECK(says(r.err, was + what));
  };
  told("q.gguf -o a --save f32", "stand as f32 now");
  told("q.gguf -o b --quantise experts=int4", "were decoded and rounded again");
  told("q.gguf -o c.gguf --save q4_0", "were decoded and rounded again");
  told("int8 -o d.gguf --save f32", "stand as F32 now");
  told("int8 -o e --save bf16", "stand as bfloat16 now, and quantization_config is gone");
  told("int8 -o g --quantise experts=int4",
       "were decoded and rounded again, and quantization_config speaks of the new ones");
  CHECK(says(text_of(f / "g/config.json"), "quantization_config"));
  CHECK_FALSE(says(text_of(f / "e/config.json"), "quantization_config"));
  CHECK_FALSE(says(good(f, "edit run -o h --save bf16").err, was));
  CHECK_FALSE(says(good(f, "edit run -o i.gguf --save f16").err, was));
}

}  // namespace moe::cli
