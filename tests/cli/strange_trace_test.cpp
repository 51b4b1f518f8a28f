// Traces that nobody would record on purpose: nothing in them, one token, one expert, numbers that
// are none, ids beyond the experts, shapes that do not fit, bytes changed at random. report, verify
// and show give a sentence or a report that says what is wrong; they never crash or hang.
#include <catch2/catch.hpp>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <random>

#include "tests/cli/program.h"
#include "tests/skip.h"

namespace moe::cli {
namespace {

using nlohmann::json;

bool has_h5py() {
  if (std::system("/usr/bin/python3 -c 'import h5py' 2>/dev/null") == 0)
    return true;
  test::skip("/usr/bin/python3 has no h5py");
  return false;
}

// The trace of `synth`, then lines of Python on the open file f.
void edit(const Folder& f, const std::string& synth, const std::string& python) {
  REQUIRE(f.run("synth " + synth + " --force -o t.h5").code == 0);
  put(f / "edit.py", "import h5py, sys\nimport numpy as np\nf = h5py.File(sys.argv[1], 'r+')\n" +
                         python + "\nf.close()\n");
  REQUIRE(std::system(("/usr/bin/python3 '" + (f / "edit.py").string() + "' '" +
                       (f / "t.h5").string() + "'")
                          .c_str()) == 0);
}

bool bare_number(const std::string& text) {  // a cell that shows what a division by zero gives
  for (const char* word : {" nan", "-nan", " inf ", "-inf", ">nan", ",nan"}) {
    if (text.find(word) != text.npos)
      return true;
  }
  return false;
}

void reports(const Folder& f, const std::string& warning) {
  for (const char* format : {"text", "md", "html", "csv", "json"}) {
    const Result r = f.run(std::string("report t.h5 --format ") + format);
    INFO(format << ": " << r.err);
    CHECK(r.code == 0);
    CHECK(!bare_number(r.out));
    if (std::string(format) == "json")
      CHECK(json::accept(r.out));
    if (!warning.empty() && std::string(format) != "csv")
      CHECK(r.out.find(warning) != r.out.npos);
  }
  CHECK(f.run("show t.h5").code == 0);
}

void refused(const Folder& f, const std::string& part) {
  for (const char* verb : {"report", "show", "verify"}) {
    const Result r = f.run(std::string(verb) + " t.h5");
    INFO(verb << ": " << r.out << r.err);
    CHECK(r.code == (verb[0] == 'v' ? 1 : 3));
    CHECK((r.out + r.err).find(part) != std::string::npos);
  }
}

}  // namespace

TEST_CASE("no token, one token, one expert, one layer: a report without a division by zero") {
  const Folder f;
  const auto made = [&](const std::string& options, const std::string& warning) {
    INFO(options);
    REQUIRE(f.run("synth uniform --force -o t.h5 " + options).code == 0);
    reports(f, warning);
    CHECK(f.run("verify t.h5").code == 0);
  };
  made("--tokens 0", "no tokens");
  made("--tokens 0 --domains 3 --weights --ranks 2", "no tokens");
  made("--tokens 1", "");
  made("--tokens 1 --layers 1 --experts 1 --topk 1 --domains 1 --ranks 1 --weights", "");
  made("--tokens 300 --layers 2 --experts 1 --topk 1 --domains 2", "");
  made("--tokens 300 --layers 1 --experts 4 --topk 4 --sequence 1 --step 1", "");
}

TEST_CASE("numbers that are none, and ids that are nobody's") {
  if (!has_h5py())
    return;
  const Folder f;
  const std::string small =
      "uniform --tokens 600 --layers 2 --experts 8 --topk 2 --weights --domains 2";
  edit(f, small, "w = f['routing/weights']; w[5:9] = np.nan; w[20:30] = np.inf");
  reports(f, "not finite");
  CHECK(f.run("verify t.h5").out.find("not finite") != std::string::npos);
  edit(f, small, "w = f['routing/weights']; w[:] = np.nan");
  reports(f, "not finite");
  edit(f, small, "i = f['routing/expert_ids']; i[7, 1, 0] = 9");
  const Result bad = f.run("report t.h5");
  CHECK(bad.code == 3);
  CHECK(bad.err.find("names expert 9 in row 7") != bad.err.npos);
  CHECK(f.run("verify t.h5").code == 1);
  edit(f, small, "i = f['routing/expert_ids']; i[:] = 65535");  // no token chose anybody
  reports(f, "");
  edit(f, small, "t = f['tokens/flags']; t[:] = 1");  // padding and nothing else
  reports(f, "");
  edit(f, small, "t = f['tokens/token_id']; t[:] = 0xFFFFFFFF");  // withheld
  reports(f, "");
  edit(f, small, "t = f['tokens/position']; t[:] = 0xFFFFFFFF");
  reports(f, "");
  edit(f, small, "f['model/num_experts'][:] = 0");
  refused(f, "experts");
}

TEST_CASE("shapes that do not fit, and datasets that are missing") {
  if (!has_h5py())
    return;
  const Folder f;
  const std::string small = "uniform --tokens 600 --layers 2 --experts 8 --topk 2";
  for (const char* change :
       {"del f['routing/expert_ids']", "del f['model/num_experts']",
        "f['routing/expert_ids'].resize(300, 0)", "f['tokens/position'].resize(10, 0)",
        "d = f['routing/expert_ids'][:, :1]; del f['routing/expert_ids']; f['routing/expert_ids'] "
        "= d",
        "del f['tokens/flags']; f['tokens/flags'] = np.zeros(600, 'f8')",
        "f.attrs['format'] = 'something'", "f.attrs['format_version'] = '9.0'"}) {
    INFO(change);
    edit(f, small, change);
    refused(f, "t.h5");
  }
  edit(f, small, "del f['tokens/sequence']");  // records that can be stood in for
  reports(f, "");
  edit(f, small, "del f['commits']");
  reports(f, "");  // the attributes of a finished file say the same
  put(f / "t.h5", "");
  refused(f, "t.h5");
  put(f / "t.h5", "token,expert\n1,2\n");
  refused(f, "not an HDF5 file");
  const Result folder = f.run("report corpus");
  CHECK((folder.code == 3 && folder.err.find("is a folder") != folder.err.npos));
}

// 60 of them; MOE_MUTANTS=3000 for more. The seed of each is its number.
TEST_CASE("reports of traces with bytes changed at random end with a report or a sentence") {
  const Folder f;
  const int most = std::getenv("MOE_MUTANTS") ? std::atoi(std::getenv("MOE_MUTANTS")) : 60;
  std::string whole[2];
  for (const int deflate : {0, 1}) {
    REQUIRE(f.run("synth zipf --tokens 150 --layers 2 --experts 8 --topk 2 --domains 2 --sequence "
                  "50 --step 60 --weights --force --deflate " +
                  std::to_string(deflate) + " -o t.h5")
                .code == 0);
    whole[deflate] = text_of(f / "t.h5");
  }
  int read = 0;
  int refused = 0;
  for (int n = 0; n < most; ++n) {
    std::mt19937 random{std::uint32_t(n)};
    std::string bytes = whole[n % 2];
    // half of them where the structure lies
    const std::size_t used = n % 4 < 2 ? bytes.size() : std::min<std::size_t>(bytes.size(), 16384);
    for (auto left = 1 + random() % 12; left > 0; --left)
      bytes[random() % used] = char(random());
    put(f / "t.h5", bytes);
    const Result r = f.run("report t.h5 --all --sample 50");
    INFO("mutant " << n << " of MOE_MUTANTS, code " << r.code << ", " << r.seconds
                   << " s: " << r.err);
    REQUIRE((r.code == 0 || r.code == 3));
    REQUIRE(r.seconds < 60);
    if (r.code == 3)
      REQUIRE(r.err.size() > 20);
    ++(r.code == 0 ? read : refused);
  }
  if (std::getenv("MOE_MUTANTS"))
    WARN(most << " mutants: " << read << " read, " << refused << " refused in a sentence");
  CHECK(read > 0);
  CHECK(refused > 0);
}

}  // namespace moe::cli
