// GGUF files: keys of every type and tensors read back, split files come together, and a file that
// is not what it says is refused in one sentence before it costs anything.
#include "lib/files/gguf.h"

#include <catch2/catch.hpp>
#include <numeric>

#include "tests/files/scratch.h"
#include "tests/gguf_bytes.h"

using namespace moe;
using moe::test::gguf_string;
using moe::test::GgufBytes;
using moe::test::raw;
using moe::test::refusal;
using moe::test::Scratch;

namespace {

std::vector<float> counted(std::size_t n) {
  std::vector<float> out(n);
  std::iota(out.begin(), out.end(), 0.0f);
  return out;
}

GgufBytes small() {
  GgufBytes g;
  g.text("general.architecture", "llama");
  g.u32("llama.block_count", 2);
  g.floats("b", {3, 2}, counted(6));
  g.floats("a", {4}, counted(4));
  return g;
}

std::string opening(const std::string& bytes) {
  const Scratch folder;
  folder.put("x.gguf", bytes);
  return refusal([&] { GgufFile file(folder / "x.gguf"); });
}

// Refused as a wrong input, with these words and the file's name.
void refused(const std::string& bytes, const std::string& words) {
  const std::string why = opening(bytes);
  INFO(why);
  CHECK(why.starts_with("3: "));
  CHECK(why.find("x.gguf") != std::string::npos);
  CHECK(why.find(words) != std::string::npos);
}

}  // namespace

TEST_CASE("keys of a GGUF file are read as what they are") {
  const Scratch folder;
  GgufBytes g = small();
  g.key("u8", 0, raw(std::uint8_t(200)));
  g.key("i8", 1, raw(std::int8_t(-3)));
  g.key("u16", 2, raw(std::uint16_t(60000)));
  g.key("i16", 3, raw(std::int16_t(-300)));
  g.key("i32", 5, raw(std::int32_t(-70000)));
  g.key("bool", 7, raw(std::uint8_t(1)));
  g.key("u64", 10, raw(std::uint64_t(1) << 40));
  g.key("i64", 11, raw(std::int64_t(-1)));
  g.key("f64", 12, raw(0.1));
  g.f32("f32", 0.5f);
  g.texts("words", {"", "ab", "\xff"});
  g.key("list", 9, raw(std::uint32_t(5)) + raw(std::uint64_t(2)) + raw(7) + raw(-8));
  g.key("floats", 9, raw(std::uint32_t(6)) + raw(std::uint64_t(2)) + raw(0.25f) + raw(2.0f));
  folder.put("x.gguf", g.bytes());
  const GgufFile file(folder / "x.gguf");
  CHECK(file.text("general.architecture") == "llama");
  CHECK(file.whole("u8") == 200);
  CHECK(file.whole("i8") == -3);
  CHECK(file.whole("u16") == 60000);
  CHECK(file.whole("i16") == -300);
  CHECK(file.whole("i32") == -70000);
  CHECK(file.whole("u64") == std::int64_t(1) << 40);
  CHECK(file.whole("i64") == -1);
  CHECK(file.flag("bool", false));
  CHECK(file.real("f64") == 0.1);
  CHECK(file.real("f32") == 0.5);
  CHECK(file.real("u8") == 200);
  CHECK(file.texts("words") == std::vector<std::string_view>{"", "ab", "\xff"});
  CHECK(file.wholes("list") == std::vector<std::int64_t>{7, -8});
  CHECK(file.wholes("u8") == std::vector<std::int64_t>{200});
  CHECK(file.reals("floats") == std::vector<double>{0.25, 2});
  CHECK(file.whole("absent", 5) == 5);
  CHECK(file.text("absent", "x") == "x");
  CHECK(file.is_array("words"));
  CHECK_FALSE(file.is_array("u8"));
}

TEST_CASE("keys of a GGUF file of another type, or absent, are refused by name") {
  const Scratch folder;
  GgufBytes g = small();
  g.key("u8", 0, raw(std::uint8_t(200)));
  g.f32("f32", 0.5f);
  g.texts("words", {"ab"});
  g.key("huge", 10, raw(~std::uint64_t(0)));
  g.key("list", 9, raw(std::uint32_t(5)) + raw(std::uint64_t(1)) + raw(7));
  folder.put("x.gguf", g.bytes());
  const GgufFile file(folder / "x.gguf");
  CHECK(refusal([&] { file.whole("absent"); }).find("has no key 'absent'") != std::string::npos);
  CHECK(refusal([&] { file.whole("f32"); }).find("as f32 where an integer is expected") !=
        std::string::npos);
  CHECK(refusal([&] { file.whole("huge"); }).find("above 2^63 - 1") != std::string::npos);
  CHECK(refusal([&] { file.text("words"); }).find("as an array of string") != std::string::npos);
  CHECK(refusal([&] { file.texts("list"); }).find("array of strings is expected") !=
        std::string::npos);
  CHECK(refusal([&] { file.flag("u8", true); }).find("true or false") != std::string::npos);
}

TEST_CASE("tensors of a GGUF file lie where it says, outermost size first") {
  const Scratch folder;
  for (const std::uint32_t version : {2, 3}) {
    GgufBytes g = small();
    g.version = version;
    g.tensor("q", {64, 2}, 8, std::string(4 * 34, '\1'));
    folder.put("x.gguf", g.bytes());
    const GgufFile file(folder / "x.gguf");
    REQUIRE(file.tensors().size() == 3);
    CHECK(file.tensors()[0].name == "a");
    const GgufTensor& b = file.at("b");
    CHECK(b.dims == Dims{2, 3});
    CHECK(b.size() == 6);
    float last = 0;
    std::memcpy(&last, file.bytes(b).data() + 20, sizeof last);
    CHECK(last == 5);
    CHECK(file.at("q").type->name == "Q8_0");
    CHECK(file.at("q").size() == 128);
    CHECK(refusal([&] { file.at("bb"); }).find("'bb' is missing") != std::string::npos);
  }
}

TEST_CASE("a GGUF file with another alignment") {
  const Scratch folder;
  GgufBytes g;
  g.alignment = 64;
  g.u32("general.alignment", 64);
  g.floats("a", {1}, {1});
  g.floats("b", {1}, {2});
  folder.put("x.gguf", g.bytes());
  const GgufFile file(folder / "x.gguf");
  CHECK(file.at("b").offset - file.at("a").offset == 64);
  g.keys = "";
  g.key_count = 0;
  g.u32("general.alignment", 48);
  refused(g.bytes(), "power of two");
}

TEST_CASE("broken GGUF files are refused in a sentence") {
  refused("", "is empty");
  refused("GG", "ends inside");
  refused("GGML" + small().bytes().substr(4), "magic GGUF");
  GgufBytes g = small();
  g.version = 1;
  refused(g.bytes(), "version 1");
  g.version = 0x03000000;
  refused(g.bytes(), "big-endian");
  g = small();
  g.key_count = std::uint64_t(1) << 60;
  refused(g.bytes(), "keys, more than the file can hold");
  std::string many = small().bytes();
  many.replace(8, 8, raw(std::uint64_t(1) << 60));
  refused(many, "tensors, more than the file can hold");
  g = small();
  g.u32("llama.block_count", 3);
  refused(g.bytes(), "'llama.block_count' twice");
  g = small();
  g.floats("b", {1}, {1});
  refused(g.bytes(), "'b' in");
  g = small();
  g.key("odd", 13, "");
  refused(g.bytes(), "of type 13");
  g = small();
  g.key("nested", 9, raw(std::uint32_t(9)) + raw(std::uint64_t(1)));
  refused(g.bytes(), "arrays inside the array");
  g = small();
  g.key("long", 9, raw(std::uint32_t(4)) + raw(std::uint64_t(1) << 61));
  refused(g.bytes(), "more than the file can hold");
  g = small();
  g.key("texts", 9, raw(std::uint32_t(8)) + raw(std::uint64_t(1)) + raw(~std::uint64_t(0)));
  refused(g.bytes(), "ends inside");
  g = small();
  g.key("maybe", 7, raw(std::uint8_t(2)));
  refused(g.bytes(), "neither true nor false");
  const std::string whole = small().bytes();
  refused(whole.substr(0, whole.size() - 1), "cut short");
  for (std::size_t n = 0; n < whole.size(); n += 3)
    CHECK(opening(whole.substr(0, n)).starts_with("3: "));
}

TEST_CASE("tensors that cannot be are refused by name") {
  const auto with = [](const GgufBytes::Tensor& t) {
    GgufBytes g = small();
    g.tensors.push_back(t);
    return g.bytes();
  };
  const std::uint64_t big = std::uint64_t(1) << 62;
  refused(with({"t", {4}, 200, std::string(16, 0), 64}), "'t' in");
  refused(with({"t", {4}, 200, std::string(16, 0), 64}), "type 200");
  refused(with({"t", {4}, 31, std::string(16, 0), 64}), "taken out of the format");
  refused(with({"t", {32}, 9, std::string(36, 0), 64}), "for activations");
  refused(with({"t", {8}, 8, std::string(34, 0), 64}), "no multiple of the 32");
  refused(with({"t", {0}, 0, "", 64}), "a dimension of 0");
  refused(with({"t", {}, 0, "", 64}), "0 dimensions");
  refused(with({"t", {1, 1, 1, 1, 1}, 0, "", 64}), "5 dimensions");
  refused(with({"t", {big, big}, 0, "", 64}), "more numbers than can be counted");
  refused(with({"t", {big}, 0, "", 64}), "outside of the file");
  refused(with({"t", {4}, 0, std::string(16, 0), 68}), "multiple of the alignment");
  refused(with({"t", {4}, 0, std::string(16, 0), 0}), "overlaps");
  refused(with({"t", {4}, 0, "", 1 << 20}), "cut short");
  refused(with({"t", {4}, 0, "", ~std::uint64_t(31)}), "'t' in");
}

namespace {

void put_parts(const Scratch& folder, int count, const std::string& damage) {
  for (int p = 0; p < count; ++p) {
    GgufBytes g;
    g.key("split.no", 2, raw(std::uint16_t(damage == "number" && p == 1 ? 5 : p)));
    g.key("split.count", 2, raw(std::uint16_t(count)));
    g.key("split.tensors.count", 5, raw(std::int32_t(damage == "sum" ? 9 : count)));
    const std::string name = damage == "name" ? "t" : "t" + std::to_string(p);
    g.floats(name, {2}, {float(p), 0});
    if (damage == "gone" && p == 1)
      continue;
    folder.put("m-0000" + std::to_string(p + 1) + "-of-0000" + std::to_string(count) + ".gguf",
               g.bytes());
  }
}

std::string opening_parts(const std::string& damage, const std::string& which = "1") {
  const Scratch folder;
  put_parts(folder, 3, damage);
  return refusal([&] { GgufFile file(folder / ("m-0000" + which + "-of-00003.gguf")); });
}

}  // namespace

TEST_CASE("the parts of a split GGUF model come together") {
  const Scratch folder;
  put_parts(folder, 3, "");
  const GgufFile file(folder / "m-00001-of-00003.gguf");
  REQUIRE(file.tensors().size() == 3);
  for (int p = 0; p < 3; ++p) {
    const GgufTensor& t = file.at("t" + std::to_string(p));
    float first = -1;
    std::memcpy(&first, file.bytes(t).data(), sizeof first);
    CHECK(first == float(p));
    CHECK(file.file(t).filename() == "m-0000" + std::to_string(p + 1) + "-of-00003.gguf");
  }
  CHECK(opening_parts("").empty());
  CHECK(opening_parts("gone").find("does not exist") != std::string::npos);
  CHECK(opening_parts("number").find("does not say that it is part 2 of 3") != std::string::npos);
  CHECK(opening_parts("sum").find("hold 9 tensors and they hold 3") != std::string::npos);
  CHECK(opening_parts("name").find("twice") != std::string::npos);
  CHECK(opening_parts("", "2").find("part 2 of 3") != std::string::npos);
  CHECK(gguf_file_of(folder / "m-00001-of-00003.gguf")->filename() == "m-00001-of-00003.gguf");
  CHECK(gguf_file_of((folder / "x").parent_path())->filename() == "m-00001-of-00003.gguf");
  folder.put("other.gguf", "");
  CHECK_FALSE(gguf_file_of((folder / "x").parent_path()));
}
