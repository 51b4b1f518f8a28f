// Files made to break a reader: each is refused in one sentence that names the file, with the right
// exit code, quickly.
#include <sys/stat.h>

#include <nlohmann/json.hpp>

#include "lib/checkpoint/safetensors.h"
#include "lib/core/text.h"
#include "lib/files/json.h"
#include "tests/checkpoint/help.h"
#include "tests/skip.h"

using namespace moe;
using namespace moe::test;

namespace {

struct Case {
  const char* what;
  std::string header;
  std::size_t data;
  const char* mentions;  // a piece of the sentence
};

// "a" as a tensor of 8 bytes, with parts replaced.
std::string tensor(std::string dtype = R"("F32")", std::string shape = "[2]",
                   std::string offsets = "[0,8]") {
  return concat(R"({"dtype":)", dtype, R"(,"shape":)", shape, R"(,"data_offsets":)", offsets, "}");
}
std::string a(std::string t) {
  return R"({"a":)" + t + "}";
}
std::string repeat(std::string_view s, int n) {
  std::string out;
  for (int i = 0; i < n; ++i)
    out += s;
  return out;
}

std::string many_entries(int n) {
  std::string out = "\"k\":\"v\"";
  for (int i = 1; i < n; ++i)
    out += concat(",\"k", i, "\":\"v\"");
  return out;
}

const std::string f32 = R"("F32")";

// Not JSON, or not only JSON.
std::vector<Case> not_json() {
  const std::string good = tensor();
  return {
      {"not an object", R"(["a"])", 0, "begin with '{'"},
      {"a blank first", " {}", 0, "begin with '{'"},
      {"a byte order mark", "\xef\xbb\xbf{}", 0, "begin with '{'"},
      {"zeros", std::string(64, '\0'), 0, "zero byte"},
      {"zero byte at the end", std::string("{}\0\0", 4), 0, "zero byte"},
      {"zero byte inside a name", std::string("{\"a\0\":1}", 8), 0, "zero byte"},
      {"never closed", R"({"a":{"dtype":"F32")", 0, "not JSON"},
      {"text after the end", "{} x", 0, "not JSON"},
      {"two objects", "{}{}", 0, "not JSON"},
      {"a trailing comma", R"({"a":)" + good + ",}", 8, "not JSON"},
      {"a comment", "{/* */}", 0, "not JSON"},
      {"single quotes", "{'a':1}", 0, "not JSON"},
  };
}

// Bytes that are no text, and numbers that JSON does not have.
std::vector<Case> not_text() {
  const std::string good = tensor();
  return {
      {"bad UTF-8 in a name", "{\"a\xff\":" + good + "}", 8, "not JSON"},
      {"overlong UTF-8", "{\"a\xc0\xaf\":" + good + "}", 8, "not JSON"},
      {"half a surrogate pair", R"({"a\ud800":)" + good + "}", 8, "not JSON"},
      {"a control character in a name", "{\"a\n\":" + good + "}", 8, "not JSON"},
      {"NaN", a(tensor(f32, "[NaN]")), 8, "not JSON"},
      {"a number with 400 digits", a(tensor(f32, "[" + std::string(400, '9') + "]")), 8, "a"},
  };
}
// A tensor whose entry is of another kind, or lacks a key, or has one twice.
std::vector<Case> wrong_entries() {
  return {
      {"a tensor that is null", a("null"), 0, "is null"},
      {"a tensor that is a number", a("1"), 0, "'a'"},
      {"a tensor that is text", a(R"("x")"), 0, "'a'"},
      {"a tensor that is a list", a("[]"), 0, "'a'"},
      {"an empty tensor object", a("{}"), 0, "no dtype"},
      {"no dtype", a(R"({"shape":[2],"data_offsets":[0,8]})"), 8, "no dtype"},
      {"no shape", a(R"({"dtype":"F32","data_offsets":[0,8]})"), 8, "no shape"},
      {"no data_offsets", a(R"({"dtype":"F32","shape":[2]})"), 8, "no data_offsets"},
      {"a strange key", a(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1})"), 8,
       "unknown key 'x'"},
      {"dtype twice", a(R"({"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]})"), 8,
       "dtype twice"},
      {"shape twice", a(R"({"dtype":"F32","shape":[2],"shape":[2],"data_offsets":[0,8]})"), 8,
       "shape twice"},
      {"data_offsets twice",
       a(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8],)"
         R"("data_offsets":[0,8]})"),
       8, "data_offsets twice"},
  };
}
// A dtype, or a shape, of another kind.
std::vector<Case> wrong_types() {
  return {
      {"unknown dtype", a(tensor(R"("F33")")), 8, "'F33'"},
      {"dtype in small letters", a(tensor(R"("f32")")), 8, "'f32'"},
      {"empty dtype", a(tensor(R"("")")), 8, "unknown dtype"},
      {"dtype a number", a(tensor("32")), 8, "dtype"},
      {"dtype null", a(tensor("null")), 8, "null as its dtype"},
      {"dtype a list", a(tensor(R"(["F32"])")), 8, "dtype"},
      {"shape a number", a(tensor(f32, "2")), 8, "shape"},
      {"shape an object", a(tensor(f32, "{}")), 8, "shape"},
      {"shape of text", a(tensor(f32, R"(["2"])")), 8, "shape"},
      {"negative shape", a(tensor(f32, "[-2]")), 8, "-2"},
      {"two negatives", a(tensor(f32, "[-1,-2]")), 8, "-1"},
      {"a fraction in the shape", a(tensor(f32, "[2.0]")), 8, "2.0"},
      {"an exponent in the shape", a(tensor(f32, "[2e0]")), 8, "2e0"},
      {"a list in the shape", a(tensor(f32, "[[2]]")), 8, "list in its shape"},
      {"true in the shape", a(tensor(f32, "[true]")), 8, "shape"},
  };
}
// Shapes that overflow, or that do not come to the bytes there are.
std::vector<Case> wrong_sizes() {
  return {
      {"2^63 in the shape", a(tensor(f32, "[9223372036854775808]")), 8, "9223372036854775808"},
      {"2^64 in the shape", a(tensor(f32, "[18446744073709551616]")), 8, "18446744073709551616"},
      {"a shape that wraps to 2", a(tensor(f32, "[2,9223372036854775807]")), 8, "impossible shape"},
      {"a shape that wraps to 0", a(tensor(f32, "[4294967296,4294967296]")), 8, "impossible shape"},
      {"bytes that wrap", a(tensor(f32, "[4611686018427387906]")), 8, "impossible shape"},
      {"9 dimensions", a(tensor(f32, "[1,1,1,1,1,1,1,1,2]")), 8, "more than 8 dimensions"},
      {"a million dimensions", a(tensor(f32, "[1" + repeat(",1", 1'000'000) + "]")), 8,
       "dimensions"},
      {"half a byte", a(tensor(R"("F4")", "[3]", "[0,2]")), 2, "impossible shape"},
      {"too few bytes", a(tensor(f32, "[3]")), 8, "needs 12 bytes"},
      {"too many bytes", a(tensor(f32, "[1]")), 8, "needs 4 bytes"},
  };
}
// Offsets that are not two numbers inside the data.
std::vector<Case> wrong_offsets() {
  const std::string good = tensor();
  return {
      {"no offsets in the list", a(tensor(f32, "[2]", "[]")), 8, "0 data_offsets"},
      {"one offset", a(tensor(f32, "[2]", "[0]")), 8, "1 data_offsets"},
      {"three offsets", a(tensor(f32, "[2]", "[0,8,8]")), 8, "more than two"},
      {"offsets the wrong way", a(tensor(f32, "[2]", "[8,0]")), 8, "before it begins"},
      {"negative offset", a(tensor(f32, "[2]", "[-8,0]")), 8, "-8"},
      {"a fraction as offset", a(tensor(f32, "[2]", "[0,8.0]")), 8, "8.0"},
      {"offsets as text", a(tensor(f32, "[2]", R"(["0","8"])")), 8, "data_offsets"},
      {"offset 2^64-1", a(tensor(f32, "[2]", "[18446744073709551607,18446744073709551615]")), 8,
       "18446744073709551615"},
      {"offset 2^64", a(tensor(f32, "[2]", "[0,18446744073709551616]")), 8, "18446744073709551616"},
      {"past the end", a(tensor(f32, "[2]", "[4,12]")), 8, "12"},
      {"a hole at the start", a(tensor(f32, "[2]", "[4,12]")), 12, "4 bytes at byte 0"},
      {"bytes after the last tensor", a(good), 9, "describes"},
      {"bytes and no tensor", "{}", 4, "describes"},
  };
}
// Tensors of one name, or that share bytes, or leave some out.
std::vector<Case> wrong_neighbours() {
  const std::string good = tensor();
  return {
      {"the same name twice", R"({"a":)" + good + R"(,"a":)" + tensor(f32, "[2]", "[8,16]") + "}",
       16, "'a'"},
      {"the same name twice, once escaped",
       R"({"a":)" + good + R"(,"\u0061":)" + tensor(f32, "[2]", "[8,16]") + "}", 16, "'a'"},
      {"the same bytes twice", R"({"a":)" + good + R"(,"b":)" + good + "}", 8, "inside the tensor"},
      {"an overlap", R"({"a":)" + good + R"(,"b":)" + tensor(f32, "[2]", "[4,12]") + "}", 12,
       "'b'"},
      {"an empty tensor inside another",
       R"({"a":)" + good + R"(,"b":)" + tensor(f32, "[0]", "[4,4]") + "}", 8, "'"},
      {"a hole", R"({"a":)" + good + R"(,"b":)" + tensor(f32, "[2]", "[12,20]") + "}", 20,
       "4 bytes at byte 8"},
      {"an empty tensor past the end", a(tensor(f32, "[0]", "[9,9]")), 0, "'a'"},
  };
}
// Metadata that is not a list of texts.
std::vector<Case> wrong_metadata() {
  return {
      {"metadata a list", R"({"__metadata__":[]})", 0, "__metadata__"},
      {"metadata null within", R"({"__metadata__":{"a":null}})", 0, "metadata 'a'"},
      {"metadata of numbers", R"({"__metadata__":{"a":1}})", 0, "metadata 'a'"},
      {"metadata of objects", R"({"__metadata__":{"a":{}}})", 0, "metadata 'a'"},
      {"metadata key twice", R"({"__metadata__":{"a":"1","a":"2"}})", 0, "'a' twice"},
      {"metadata twice", R"({"__metadata__":{},"__metadata__":{}})", 0, "twice"},
  };
}
// Deep, or long.
std::vector<Case> too_much() {
  return {
      {"nested lists", "{\"a\":" + repeat("[", 1'000'000), 0, "'a'"},
      {"nested objects", repeat("{\"a\":", 1'000'000), 0, "'a'"},
      {"a name of five megabytes", "{\"" + std::string(5 << 20, 'n') + "\":1}", 0,
       "more than 4194304 bytes"},
      {"a number of five megabytes", a(tensor(f32, "[" + std::string(5 << 20, '9') + "]")), 8,
       "more than 4194304 bytes"},
      {"a blank of five megabytes", "{" + std::string(5 << 20, ' ') + "}", 0,
       "more than 4194304 bytes"},
      {"much metadata", "{\"__metadata__\":{" + many_entries(70'000) + "}}", 0,
       "more than 65536 metadata entries"},
      {"a name of a megabyte", "{\"" + repeat("n", 1'000'000) + "\":1}", 0, "..."},
  };
}

std::vector<Case> headers() {
  std::vector<Case> out;
  for (const auto& group : {not_json(), not_text(), wrong_entries(), wrong_types(), wrong_sizes(),
                            wrong_offsets(), wrong_neighbours(), wrong_metadata(), too_much()}) {
    out.insert(out.end(), group.begin(), group.end());
  }
  return out;
}

void refused(const fs::path& file, const char* what, const char* mentions) {
  INFO(what);
  const double start = cpu_seconds();
  const Outcome o = outcome([&] { Tensors t(file); });
  const double seconds = cpu_seconds() - start;
  INFO(o.what);
  CHECK(o.threw);
  CHECK(o.code == Exit::input);
  CHECK(o.what.find(file.filename().native()) != std::string::npos);
  CHECK(o.what.find(mentions) != std::string::npos);
  CHECK(o.what.find('\n') == std::string::npos);
  CHECK(o.what.size() < 800);
  CHECK(seconds < 1 * slowness);
}

}  // namespace

TEST_CASE("hostile headers") {
  Scratch dir;
  const auto cases = headers();
  REQUIRE(cases.size() >= 80);
  for (const Case& c : cases) {
    put(dir / "bad.safetensors", safetensors_bytes(c.header, c.data));
    refused(dir / "bad.safetensors", c.what, c.mentions);
  }
}

TEST_CASE("hostile lengths and things that are not files") {
  Scratch dir;
  const fs::path file = dir / "bad.safetensors";
  const std::string good = safetensors_bytes(a(tensor()), 8);
  const auto with_length = [&](std::uint64_t n) {
    std::string s = good;
    for (std::size_t i = 0; i < 8; ++i)
      s[i] = char(n >> (8 * i) & 255);
    put(file, s);
  };
  for (const std::uint64_t n : std::vector<std::uint64_t>{
           ~0ull, ~0ull - 7, 1ull << 63, 1ull << 60, 1ull << 32, good.size(), good.size() - 7}) {
    with_length(n);
    refused(file, "length beyond the file", "header has");
  }
  for (const std::uint64_t n : {0, 1}) {
    with_length(n);
    refused(file, "no room for {}", "too few");
  }
  put(file, "");
  refused(file, "empty", "0 bytes");
  put(file, good);
  fs::resize_file(file, 300'000'000);  // sparse
  std::string length(8, '\0');
  for (std::size_t i = 0; i < 8; ++i)
    length[i] = char(100'000'001ull >> (8 * i) & 255);
  {
    std::fstream f(file, std::ios::in | std::ios::out | std::ios::binary);
    f.write(length.data(), 8);
  }
  refused(file, "over the cap", "more than the 100000000 allowed");
  fs::remove(file);
  refused(file, "missing", "No such file");
  fs::create_directory(file);
  refused(file, "a folder", "neither model.safetensors");
  fs::remove(file);
  REQUIRE(::mkfifo(file.c_str(), 0600) == 0);
  refused(file, "a pipe", "not a regular file");
}

TEST_CASE("what looks odd and is allowed") {
  Scratch dir;
  const std::pair<std::string, std::size_t> fine[] = {
      {"{}", 0},
      {"{}      ", 0},
      {"{ \n\t}", 0},
      {a(tensor()), 8},
      {a(tensor(R"("F32")", "[0]", "[0,0]")), 0},
      {a(tensor(R"("F32")", "[]", "[0,4]")), 4},
      {R"({"__metadata__":{"x":"y"}})", 0},
      {R"({"__metadata__":null})", 0},  // safetensors opens it
      {R"({"b":{"data_offsets":[8,16],"shape":[2],"dtype":"F32"},"a":)" + tensor() + "}", 16},
      {R"({"":)" + tensor() + "}", 8},
      {R"({"e":)" + tensor(R"("F32")", "[0,7]", "[8,8]") + R"(,"a":)" + tensor() + "}", 8},
      {a(tensor(R"("F4")", "[3,2]", "[0,3]")), 3},
      {a(tensor(R"("F32")", "[1,1,1,1,1,2]")), 8}};
  for (const auto& [header, data] : fine) {
    INFO(header);
    put(dir / "fine.safetensors", safetensors_bytes(header, data));
    CHECK_FALSE(outcome([&] { Tensors t(dir / "fine.safetensors"); }).threw);
  }
  // six dimensions: listed, not opened
  CHECK(outcome([&] { (void)Tensors(dir / "fine.safetensors").get("a"); }).code == Exit::input);
}

TEST_CASE("cut at every length, and every single byte of the header changed") {
  Scratch dir;
  const fs::path file = dir / "cut.safetensors";
  const std::vector<NamedTensor> tensors{{"a", Tensor(DType::f32, {2, 3})},
                                         {"b", Tensor(DType::bf16, {5})}};
  write_safetensors(file, tensors);
  const std::string whole = slurp(file);
  for (std::size_t n = 0; n < whole.size(); ++n) {
    put(file, whole.substr(0, n));
    const Outcome o = outcome([&] { Tensors t(file); });
    INFO(n << " of " << whole.size() << ": " << o.what);
    CHECK(
        (o.threw && o.code == Exit::input && o.what.find("cut.safetensors") != std::string::npos));
  }
  for (std::size_t i = 0; i + 34 < whole.size(); ++i) {
    for (const char c : {'\0', '"', '{', '9', ',', '\xff', ' '}) {
      std::string changed = whole;
      changed[i] = c;
      put(file, changed);
      // a changed name or digit may still be valid; reading all of it must be safe
      const Outcome o = outcome([&] {
        const Tensors t(file);
        for (const TensorInfo& info : t.list()) {
          if (info.dims.size() <= max_rank && bits_of(info.dtype) >= 8 && info.dtype != DType::c64)
            (void)t.get(info.name).to_float();
        }
      });
      INFO(i << ' ' << int(c) << ": " << o.what);
      CHECK((!o.threw || o.code == Exit::input));
    }
  }
}

TEST_CASE("golden malformed checkpoints") {
  const fs::path bad = shared("golden/hf/bad");
  if (!fs::exists(bad / "expected.json"))
    return test::skip("no " + bad.string());
  const auto open = [&](const char* name) {
    return outcome([&] {
      const Tensors t(bad / name);
      for (const std::string& absent : t.absent())
        (void)t.get(absent);
    });
  };
  CHECK_FALSE(open("control").threw);
  CHECK_FALSE(open("tensor_extra").threw);
  CHECK_FALSE(open("nan_weights").threw);
  const std::pair<const char*, const char*> cases[] = {
      {"dtype_unknown", "F33"},
      {"duplicate_key", "model.layers.0.block_sparse_moe.gate.weight"},
      {"header_beyond_file", "model.safetensors"},
      {"header_length_huge", "1152921504606846976"},
      {"offsets_hole", "64 bytes"},
      {"offsets_overlap", "in '"},
      {"shape_overflow", "model.layers.0.block_sparse_moe.gate.weight"},
      {"shard_missing", "model-00002-of-00002.safetensors"},
      {"shard_truncated", "model-00002-of-00002.safetensors"}};
  for (const auto& [name, mentions] : cases) {
    const Outcome o = open(name);
    INFO(name << ": " << o.what);
    CHECK((o.threw && o.code == Exit::input && o.what.find(mentions) != std::string::npos));
  }
  const Outcome shape = outcome([&] {
    (void)Tensors(bad / "shape_mismatch").get("model.layers.0.self_attn.k_proj.weight", {4, 8});
  });
  CHECK((shape.what.find("[8, 8]") != std::string::npos &&
         shape.what.find("[4, 8]") != std::string::npos));
  const Outcome missing = outcome([&] {
    (void)Tensors(bad / "tensor_missing").at("model.layers.0.block_sparse_moe.experts.3.w2.weight");
  });
  CHECK(missing.what.find("experts.3.w2.weight' is missing") != std::string::npos);
}

TEST_CASE("JSON files: strict reading, floats that stay floats") {
  const auto says = [](const std::string& text, const char* mentions) {
    const Outcome o =
        outcome([&] { (void)parse_json(text, "c.json", {.bytes = 4000, .depth = 8}); });
    INFO(o.what);
    CHECK((o.threw && o.code == Exit::input && o.what.find("c.json") != std::string::npos &&
           o.what.find(mentions) != std::string::npos));
  };
  says("{\n \"a\":1,\n \"a\":2}", "line 3, column 4: the key 'a' occurs twice");
  says("{\"x\":{\"a\":1,\"b\":{\"a\":2},\"a\":3}}", "'a' occurs twice");
  says("{\n\n  oops}", "line 3");
  says(repeat("[", 20), "nested more than 8 deep");
  says("", "c.json");
  says("{} {}", "line 1");
  says(std::string("{}\0", 3), "zero byte");
  says("\"\xff\"", "line 1");
  says("[NaN]", "line 1");
  says(std::string(5000, ' '), "5000 bytes");
  CHECK(parse_json(R"([{"a":1},{"a":2}])", "c.json").size() == 2);

  const Json j = {{"eps", json_number(1e-6f)}, {"zero", 0.0}, {"one", 1}, {"big", 10000.0}};
  const std::string text = json_text(j);
  for (const char* piece : {"\"eps\": 1e-06", "\"zero\": 0.0", "\"one\": 1,", "\"big\": 10000.0"})
    CHECK(text.find(piece) != std::string::npos);
  CHECK(parse_json(text, "c.json") == j);
  const Outcome o = outcome([] { (void)json_text({{"a", {1.0, NAN}}}); });
  CHECK((o.code == Exit::numeric && o.what.find("a[1]") != std::string::npos));
}
