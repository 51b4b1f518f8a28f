// Writing and reading safetensors: every type, shards, foreign readers, many tensors.
#include <sys/resource.h>
#include <sys/wait.h>

#include "lib/checkpoint/safetensors.h"
#include "lib/core/text.h"
#include "lib/files/file.h"
#include "lib/files/json.h"
#include "tests/checkpoint/help.h"
#include "tests/skip.h"

using namespace moe;
using namespace moe::test;

namespace {

std::vector<NamedTensor> one_of_each() {
  std::vector<NamedTensor> out;
  for (int i = 0; i < dtype_count; ++i) {
    Tensor t(DType(i), {2, 8});
    int v = i;
    for (std::byte& b : t.mutable_bytes())
      b = std::byte(v++ * 7 & (DType(i) == DType::boolean ? 1 : 255));
    out.emplace_back(concat("t.", name_of(DType(i))), std::move(t));
  }
  out.emplace_back("empty", Tensor(DType::f32, {0, 3}));
  out.emplace_back("scalar", Tensor::from_float(DType::f32, {}, std::vector<float>{2.5f}));
  return out;
}

bool same(const Tensor& a, const Tensor& b) {
  return a.dtype() == b.dtype() && a.dims() == b.dims() && std::ranges::equal(a.bytes(), b.bytes());
}

int python(const std::string& code) {
  const char* named = std::getenv("MOE_PYTHON");
  return std::system(
      concat(named ? named : "python3", " -c \"", code, "\" >/dev/null 2>&1").c_str());
}

}  // namespace

TEST_CASE("every type comes back as it was written") {
  Scratch dir;
  const auto tensors = one_of_each();
  const WrittenFile w = write_safetensors(dir / "a.safetensors", tensors, {{"step", "12"}});
  CHECK(w.bytes == Index(fs::file_size(dir / "a.safetensors")));
  const Tensors back(dir / "a.safetensors");
  REQUIRE(back.list().size() == tensors.size());
  CHECK((back.metadata().at("format") == "pt" && back.metadata().at("step") == "12"));
  for (const NamedTensor& t : tensors) {
    INFO(t.name);
    CHECK(same(back.get(t.name), t.make()));
  }
  CHECK(back.get("scalar").to_float()(0, 0) == 2.5f);
  CHECK(outcome([&] { (void)back.get("t.f4").to_float(); }).code == Exit::input);
  CHECK(outcome([&] { (void)back.get("t.f33"); }).what.find("'t.f33' is missing") !=
        std::string::npos);
  const Outcome shape = outcome([&] { (void)back.get("t.f32", {8, 2}); });
  CHECK((shape.what.find("[2, 8]") != std::string::npos &&
         shape.what.find("[8, 2]") != std::string::npos));
  CHECK(std::distance(fs::directory_iterator(dir.path), {}) == 1);  // no temporary file stays
}

TEST_CASE("mapped tensors outlive the reader, unaligned ones are copied") {
  Scratch dir;
  Tensor kept;
  {
    write_safetensors(dir / "a.safetensors", one_of_each());
    kept = Tensors(dir / "a.safetensors").get("t.f32");
    CHECK_FALSE(kept.owned());
  }
  CHECK(same(kept, one_of_each()[1].make()));
  put(dir / "odd.safetensors",
      safetensors_bytes(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                        R"("b":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}})",
                        9));
  const Tensor b = Tensors(dir / "odd.safetensors").get("b");
  CHECK((b.owned() && b.view<float>()(0, 1) > 0.7f));
}

TEST_CASE("shards and their index") {
  Scratch dir;
  const auto tensors = one_of_each();
  const auto files = write_sharded(dir.path, tensors, 200);
  REQUIRE(files.size() > 4);
  CHECK(files.back().name == "model.safetensors.index.json");
  const Tensors back(dir.path);
  REQUIRE(back.list().size() == tensors.size());
  for (const NamedTensor& t : tensors)
    CHECK(same(back.get(t.name), t.make()));
  CHECK(same(Tensors(dir / "model.safetensors.index.json").get("scalar"), back.get("scalar")));
  CHECK(std::ranges::is_sorted(back.names()));
  SECTION("a shard is missing") {
    const std::string lost = Tensors(dir / files[1].name).names().at(0);
    fs::remove(dir / files[1].name);
    const Outcome o = outcome([&] { (void)Tensors(dir.path).get(lost); });
    CHECK((o.code == Exit::input && o.what.find(files[1].name) != std::string::npos));
  }
  SECTION("a tensor that is not where the index says is missed where it is needed") {
    put(dir / "model.safetensors.index.json", concat(R"({"weight_map":{"t.f64":")", files[1].name,
                                                     R"()"
                                                     R"("}})"));
    const Tensors opened(dir.path);
    REQUIRE(opened.notes().size() >= 1);
    CHECK(opened.notes()[0].find("'t.f64'") != std::string::npos);
    const Outcome o = outcome([&] { (void)opened.get("t.f64"); });
    CHECK((o.code == Exit::input && o.what.find("puts the tensor 't.f64'") != std::string::npos));
  }
  SECTION("a tensor that the index does not name is read and said") {
    put(dir / "model.safetensors.index.json", R"({"weight_map":{}})");
    CHECK(Tensors(dir.path).names().empty());
    put(dir / "model.safetensors.index.json", concat(R"({"weight_map":{"t.f32":")", files[1].name,
                                                     R"()"
                                                     R"("}})"));
    write_safetensors(dir / files[1].name, std::vector{tensors[1], tensors[2]});
    const Tensors t(dir.path);
    CHECK((t.list().size() == 2 && t.notes().size() == 1));
    CHECK(same(t.get(tensors[2].name), tensors[2].make()));
  }
  SECTION("hostile indexes") {
    for (const char* text :
         {R"({"weight_map":{"a":"../x.safetensors"}})", R"({"weight_map":{"a":"/etc/passwd"}})",
          R"({"weight_map":{"a":)"
          R"(1}})",
          R"({"weight_map":[]})", R"([])", R"({})", R"({"weight_map":{"a":"x","a":"y"}})", "", "{",
          R"({"weight_map":{"a)"
          R"(":""}})"}) {
      put(dir / "model.safetensors.index.json", text);
      CHECK(outcome([&] { Tensors t(dir.path); }).code == Exit::input);
    }
  }
}

TEST_CASE("mistakes of the caller are refused before a file exists") {
  Scratch dir;
  const NamedTensor a("a", Tensor(DType::f32, {2}));
  CHECK(outcome([&] { write_safetensors(dir / "x", std::vector{a, a}); }).code == Exit::bug);
  CHECK(outcome([&] {
          write_safetensors(dir / "x",
                            std::vector{NamedTensor("__metadata__", Tensor(DType::f32, {2}))});
        }).code == Exit::bug);
  CHECK(outcome([&] {
          write_safetensors(dir / "x", std::vector{NamedTensor("a", DType::f32, {3}, a.make)});
        }).code == Exit::bug);
  CHECK(fs::is_empty(dir.path));
  CHECK(outcome([&] { write_safetensors(dir / "no/such/x", std::vector{a}); }).code == Exit::io);
}

TEST_CASE("the reference implementation reads what was written, byte for byte the same file") {
  Scratch dir;
  if (python("import safetensors.numpy") != 0)
    return test::skip("no python with safetensors (MOE_PYTHON names another python)");
  std::vector<NamedTensor> plain;
  for (const NamedTensor& t : one_of_each()) {
    if (t.dtype != DType::c64 && t.dtype != DType::bf16 && bits_of(t.dtype) >= 8 &&
        name_of(t.dtype).find("f8") != 0) {
      plain.push_back(t);
    }
  }
  write_safetensors(dir / "a.safetensors", plain);
  const std::string a = (dir / "a.safetensors").native();
  const std::string b = (dir / "b.safetensors").native();
  CHECK(
      python(concat(
          "import safetensors.numpy as s; t=s.load_file('", a, "'); assert len(t)==", plain.size(),
          "; assert float(t['scalar'])==2.5; assert t['t.i16'].shape==(2,8); s.save_file(t,'", b,
          "',metadata={'format':'pt'})")) == 0);
  CHECK(slurp(a) == slurp(b));
  write_safetensors(dir / "all.safetensors", one_of_each());
  CHECK(python(concat("import safetensors; f=safetensors.safe_open('",
                      (dir / "all.safetensors").native(),
                      "','np'); assert len(f.keys())==", one_of_each().size(),
                      "; assert f.get_slice('t.bf16').get_shape()==[2,8]")) == 0);
}

TEST_CASE("a header of 140,000 tensors: time and memory") {
  Scratch dir;
  std::string header = R"({"__metadata__":{"format":"pt"})";
  for (int i = 0; i < 140'000; ++i) {
    header += concat(R"(,"model.layers.)", i / 2400, ".mlp.experts.", i % 2400 / 6, ".", i % 6,
                     R"(.down_proj.weight":{"dtype":"BF16","shape":[2,2],"data_offsets":[)", i * 8,
                     ",", i * 8 + 8, "]}");
  }
  put(dir / "many.safetensors", safetensors_bytes(header + "}", 140'000 * 8));
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {  // alone, so that its memory can be measured
    rusage before{};
    rusage after{};
    ::getrusage(RUSAGE_SELF, &before);
    double start = cpu_seconds();
    {
      InputFile file(dir / "many.safetensors");
      if (read_safetensors_header(file).tensors.size() != 140'000)
        ::_exit(4);
    }
    const double parse = cpu_seconds() - start;
    start = cpu_seconds();
    const Tensors t(dir / "many.safetensors");
    const double seconds = cpu_seconds() - start;
    ::getrusage(RUSAGE_SELF, &after);
    if (std::getenv("MOE_TIMES")) {
      std::fprintf(stderr,
                   "140000 tensors: header parsed in %.3f s, file opened in %.3f s, %ld KiB\n",
                   parse, seconds, after.ru_maxrss - before.ru_maxrss);
    }
#if defined(__OPTIMIZE__) && !defined(__SANITIZE_ADDRESS__)
    if (!(parse < 3))  // of processor time: 0.2 s when optimised, up to 1.1 s at -O1
      ::_exit(5);
#endif
    const bool good =
        t.list().size() == 140'000 && t.find("model.layers.58.mlp.experts.133.1.down_proj.weight");
    const long kib = after.ru_maxrss - before.ru_maxrss;
    ::_exit(!good ? 1 : !(seconds < 2 * slowness) ? 2 : !(kib < 64 * 1024 * slowness) ? 3 : 0);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK((WIFEXITED(status) && WEXITSTATUS(status) == 0));
}
