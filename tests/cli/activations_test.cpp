// Activations rounded to 8 bits: said, recorded, refused where it means nothing, and near the exact
// model.
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include <cmath>

#include "tests/cli/program.h"

namespace moe::cli {
namespace {

using nlohmann::json;

Result good(const Folder& f, const std::string& words) {
  Result r = f.run(words);
  INFO("moe " << words << "\n" << r.out << r.err);
  REQUIRE(r.code == 0);
  return r;
}
bool says(const Result& r, const std::string& part) {
  return r.err.find(part) != r.err.npos;
}

// Of the mean of domains.
double loss_of(const Result& r) {
  const json table = json::parse(r.out).at("tables").at(0);
  for (const json& column : table.at("columns")) {
    if (column.at("name") == "loss")
      return column.at("values").back().get<double>();
  }
  return NAN;
}

const std::string how = " --activations int8";
const std::string said = "activations are rounded to 8 bits";
const std::string data = " --data text:path=corpus --tokens 1024 --length 64 --seed 3";

}  // namespace

TEST_CASE("activations rounded to 8 bits are near the exact model, and said") {
  const Folder f;
  good(f, nano + " --steps 20 -o a");
  good(f, "edit a -o q.gguf --save q8_0");
  const std::string ask = "generate q.gguf --prompt 'To be' --tokens 9 --temperature 0";
  CHECK_FALSE(says(good(f, ask), said));
  const Result one = good(f, ask + how + " --threads 1");
  CHECK(says(one, said));
  CHECK(good(f, ask + how + " --threads 2").out == one.out);
  const Result exact = good(f, "eval q.gguf --format json" + data);
  const Result rounded = good(f, "eval q.gguf --format json" + data + how);
  CHECK_FALSE(says(exact, said));
  CHECK(says(rounded, said));
  CHECK(loss_of(rounded) != loss_of(exact));
  CHECK(loss_of(rounded) == Approx(loss_of(exact)).epsilon(0.01));
}

TEST_CASE("what rounding changes of choices is read from two traces") {
  const Folder f;
  good(f, nano + " --steps 20 -o a");
  good(f, "edit a -o q.gguf --save q8_0");
  good(f, "trace q.gguf -o exact.h5" + data);
  good(f, "trace q.gguf -o int8.h5" + data + how);
  CHECK(text_of(f / "int8.h5").find("\"activations\":\"int8\"") != std::string::npos);
  CHECK(text_of(f / "exact.h5").find("activations") == std::string::npos);
  const Result r = good(f, "report int8.h5 --against exact.h5");
  CHECK(r.out.find("The two traces differ in") != r.out.npos);
}

TEST_CASE("where activations are not rounded, it is said") {
  const Folder f;
  good(f, nano + " --steps 3 -o a");
  good(f, "edit a -o q.gguf --save q8_0");
  const std::string ask = "generate a --prompt 'To be' --tokens 5 --temperature 0";
  const Result none = good(f, ask + how);
  CHECK(says(none, "--activations int8 changes nothing"));
  CHECK(none.out == good(f, ask).out);
  const Result both = f.run("eval q.gguf --expert-memory 1MB" + data + how);
  CHECK(both.code == 2);
  CHECK(says(both, "one of the two"));
  CHECK(f.run("eval q.gguf --activations int9" + data).code == 2);
  const Result bench =
      good(f, "bench decode q.gguf --seconds 0.05 --threads 1 --format json" + how);
  CHECK(json::parse(bench.out.substr(0, bench.out.find('\n'))).at("activations") == "int8");
  const Result plain = good(f, "bench decode q.gguf --seconds 0.05 --threads 1 --format json");
  CHECK(json::parse(plain.out.substr(0, plain.out.find('\n'))).at("activations") == "exact");
}

}  // namespace moe::cli
