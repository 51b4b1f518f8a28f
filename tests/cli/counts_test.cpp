// Recordings of engines that only count, through the whole program: every recorded case is
// imported, verified and reported in each format, and its loads are those of its counts.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "lib/trace/reader.h"
#include "tests/cli/program.h"
#include "tests/skip.h"

namespace moe::cli {
namespace {

using nlohmann::json;

fs::path import_cases() {
  const char* shared = std::getenv("MOE_SHARED");
  return fs::path(shared ? shared : MOE_SOURCE_DIR "/../shared") / "golden/import";
}

// "import FILES --config ...", nothing where the case is not one of counts.
std::string import_of(const fs::path& folder) {
  std::ifstream in(folder / "expected.json");
  const json e = json::parse(in);
  if (e.at("outcome") != "counts")
    return "";
  std::string out = "import";
  for (const auto& input : e.at("inputs"))
    out += " " + (folder / input.get<std::string>()).string();
  for (const auto& [key, value] : e.at("options").items()) {
    std::string flag = key;
    std::ranges::replace(flag, '_', '-');
    out += " --" + flag + " " +
           (key == "config"     ? (folder / value.get<std::string>()).string()
            : value.is_string() ? value.get<std::string>()
                                : value.dump());
  }
  return out;
}

// Of the report's table of counts: by layer, the sum over experts.
std::map<std::string, double> reported_sums(const std::string& csv) {
  std::vector<std::string> layer;
  std::map<std::string, double> out;
  std::istringstream lines(csv);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream cells(line);
    std::string table, row, column, value;
    std::getline(cells, table, ',');
    std::getline(cells, row, ',');
    std::getline(cells, column, ',');
    std::getline(cells, value, ',');
    if (table != "load_counts")
      continue;
    if (column == "layer")
      layer.push_back(value);
    if (column == "assignments")
      out[layer.at(std::stoul(row))] += std::stod(value);
  }
  return out;
}

std::map<std::string, double> recorded_sums(const fs::path& path) {
  const TraceReader r(path);
  const Matrix<std::uint32_t> counts = r.counts(0, r.count_steps());
  std::map<std::string, double> out;
  const Index width = r.header().max_experts();
  for (Index s = 0; s < counts.rows(); ++s) {
    for (Index i = 0; i < counts.cols(); ++i)
      out[std::to_string(r.header().layers[std::size_t(i / width)].index)] += counts(s, i);
  }
  return out;
}

void check_case(const Folder& f, const fs::path& folder, const std::string& import) {
  const Result made = f.run(import + " -o t.h5 --force");
  INFO(folder << "\n" << made.err);
  REQUIRE(made.code == 0);
  CHECK(f.run("verify t.h5").code == 0);
  for (const std::string format : {"text", "md", "html", "csv", "json"}) {
    const Result r = f.run("report t.h5 --format " + format);
    INFO(format << ": " << r.err);
    CHECK(r.code == 0);
    for (const char* word : {" nan", "-nan", ",nan", ">nan", "holds no tokens\n"})
      CHECK(r.out.find(word) == r.out.npos);
    if (format == "json")
      CHECK(json::accept(r.out));
    if (format != "csv")
      CHECK(r.out.find("the trace holds no tokens, only how many") != r.out.npos);
  }
  const Result csv = f.run("report t.h5 --metric load --format csv");
  CHECK(reported_sums(csv.out) == recorded_sums(f / "t.h5"));
}

}  // namespace

TEST_CASE("every recording of counts gets a report of its loads") {
  if (!fs::exists(import_cases()))
    return test::skip("no golden/import in ../shared");
  const Folder f;
  int cases = 0;
  for (const auto& entry : fs::recursive_directory_iterator(import_cases())) {
    if (entry.path().filename() != "expected.json")
      continue;
    const fs::path folder = entry.path().parent_path();
    if (const std::string import = import_of(folder); !import.empty()) {
      check_case(f, folder, import);
      ++cases;
    }
  }
  CHECK(cases >= 16);
}

TEST_CASE("counts of a table are shown, set side by side, and refused where tokens are needed") {
  const Folder f;
  put(f / "a.json", "[[40, 10, 30, 20], [25, 25, 26, 24]]");
  put(f / "b.json", "[[10, 40, 20, 30], [0, 50, 0, 50]]");
  REQUIRE(f.run("import a.json --from eplb-counts --topk 2 -o a.h5").code == 0);
  REQUIRE(f.run("import b.json --from eplb-counts -o b.h5").code == 0);
  const Result shown = f.run("show a.h5");
  CHECK(shown.out.find("counts of 1 step x 2 MoE layers") != shown.out.npos);
  CHECK(shown.out.find("assignments in a layer  100") != shown.out.npos);
  const Result one = f.run("report a.h5 --all");
  INFO(one.out);
  CHECK(one.out.find("1 step, 100 assignments in a MoE layer") != one.out.npos);
  CHECK(one.out.find("E=4 k=2") != one.out.npos);
  CHECK(f.run("report b.h5 --all").out.find("E=4 k unknown") != std::string::npos);
  const Result two = f.run("report a.h5 b.h5");
  CHECK(two.code == 0);
  CHECK(two.out.find("counts of 1 step") != two.out.npos);
  CHECK(two.out.find("load CV") != two.out.npos);
  const Result against = f.run("report a.h5 --against b.h5");
  CHECK(against.code == 3);
  CHECK(against.err.find("both hold only how many tokens each expert took") != against.err.npos);
  const Result by_name = f.run("report a.h5 --metric vocabulary");
  CHECK(by_name.code == 0);
  CHECK(by_name.out.find("vocabulary needs tokens and is left out") != by_name.out.npos);
  const Result sglang = f.run("report a.h5 --convention vllm");
  CHECK(sglang.code == 0);
  CHECK(sglang.out.find("balancedness avg") != sglang.out.npos);
  CHECK(f.run("report a.h5 --values v.h5").code == 0);
  put(f / "c.json", "[[40, 0, 0, 0], [0, 0, 24, 0]]");  // zeros where routes should be
  REQUIRE(f.run("import c.json --from eplb-counts --topk 2 -o c.h5").code == 0);
  const Result zeros = f.run("report c.h5");
  CHECK(zeros.code == 3);
  CHECK(zeros.err.find("nothing in the trace can be routing") != zeros.err.npos);
  CHECK(f.run("verify c.h5").code == 1);
}

}  // namespace moe::cli
