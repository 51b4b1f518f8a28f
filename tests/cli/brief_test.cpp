// moe report without further words: the short answer, how long and wide it may be, what leads on
// from it, and what shows everything.
#include <catch2/catch.hpp>
#include <sstream>

#include "tests/cli/program.h"
#include "tests/skip.h"

namespace moe::cli {
namespace {

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> out;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);)
    out.push_back(line);
  return out;
}

// characters, which are as many columns in what is drawn here
std::size_t widest(const std::string& text) {
  std::size_t most = 0;
  for (const std::string& line : lines_of(text)) {
    most = std::max(
        most, std::size_t(std::ranges::count_if(line, [](char c) { return (c & 0xC0) != 0x80; })));
  }
  return most;
}

std::string said(const Folder& f, const std::string& words, int columns = 80) {
  const Result r = f.run(words, {.environment = {"COLUMNS=" + std::to_string(columns)}});
  INFO("moe " << words << "\n" << r.err);
  REQUIRE(r.code == 0);
  return r.out;
}

bool holds(const std::string& text, const std::string& part) {
  return text.find(part) != text.npos;
}

// Words with one blank between them, however lines were broken.
std::string in_one_line(const std::string& text) {
  std::istringstream in(text);
  std::string out;
  for (std::string word; in >> word;)
    out += (out.empty() ? "" : " ") + word;
  return out;
}

void make_small(const Folder& f, const std::string& name, const std::string& pattern) {
  said(f, "synth " + pattern + " -o " + name +
              " --tokens 2048 --layers 4 --experts 8 --topk 2 --sequence 64");
}

}  // namespace

TEST_CASE("a report is at most 50 lines that fit, for few experts and for many") {
  const Folder f;
  make_small(f, "small.h5", "hot:experts=2,share=0.9");
  said(f,
       "synth zipf:s=1 -o large.h5 --tokens 512 --layers 64 --experts 256 --topk 8 --sequence 32");
  for (const std::string name : {"small.h5", "large.h5"}) {
    for (const int columns : {60, 80, 160}) {
      const std::string text = said(f, "report " + name + " --bootstrap 20", columns);
      INFO(text);
      CHECK(lines_of(text).size() <= 50);
      CHECK(lines_of(text).size() >= 20);
      CHECK(widest(text) <= std::size_t(columns));
      for (const char* part : {"load CV", "MaxVio", "balancedness of ranks", "chance", "Load",
                               "Findings, worst first", "--all", "-o report.html", "--metric"})
        CHECK(holds(in_one_line(text), part));
    }
  }
  const std::string small = said(f, "report small.h5 --bootstrap 0", 100);
  CHECK(lines_of(small)[0] ==
        "synthetic hot:experts=2,share=0.9, 2,048 tokens, 4 MoE layers x 8 "
        "experts, k=2");
}

TEST_CASE("the findings of the short answer are the whole report's, the worst first") {
  const Folder f;
  make_small(f, "hot.h5", "hot:experts=2,share=0.9");
  const std::string brief = said(f, "report hot.h5 --bootstrap 0");
  const auto red = brief.find("\n  red");
  CHECK(red < brief.find("\n  note"));
  CHECK(red < brief.find("\n  chance"));
  const std::string whole = said(f, "report hot.h5 --bootstrap 0 --all", 400);
  std::istringstream in(brief.substr(brief.find("worst first")));
  for (std::string line; std::getline(in, line);) {
    const auto sentence = line.find("Routing is");
    if (sentence != line.npos)
      CHECK(holds(whole, line.substr(sentence, 40)));
  }
  CHECK(holds(brief, "Routing is badly unbalanced"));
  make_small(f, "even.h5", "uniform");
  const std::string even = said(f, "report even.h5 --bootstrap 0");
  CHECK_FALSE(holds(even, "\n  red"));
  CHECK(holds(even, "\n  chance"));
}

TEST_CASE("the whole report shows everything once, and where it comes from at its end") {
  const Folder f;
  make_small(f, "t.h5", "uniform");
  const std::string all = said(f, "report t.h5 --bootstrap 0 --all", 100);
  CHECK(lines_of(all).size() > 200);
  CHECK(all.find("\nFindings\n") < all.find("\nOrigin\n"));
  CHECK(all.find("\nOrigin\n") < all.find("moe synth uniform"));
  CHECK(all.find("moe synth uniform") == all.rfind("moe synth uniform"));
  const std::string meaning = "standard deviation of the load over its mean";
  CHECK(all.find(meaning) == all.rfind(meaning));
  CHECK(f.run("report t.h5 --all -o t.html").err.find("--all is for the text") !=
        std::string::npos);
  CHECK(f.run("report t.h5 --sample 20").err.find("--all, or -o") != std::string::npos);
  said(f, "report t.h5 --bootstrap 0 -o t.txt");
  CHECK(lines_of(text_of(f / "t.txt")).size() > 200);
  said(f, "report t.h5 --bootstrap 0 --format brief -o brief.txt");
  CHECK(lines_of(text_of(f / "brief.txt")).size() <= 50);
}

TEST_CASE("the id of a figure selects it") {
  const Folder f;
  make_small(f, "t.h5", "hot:experts=2,share=0.9");
  const std::string cv = said(f, "report t.h5 --bootstrap 0 --metric load_cv");
  CHECK(holds(cv, "CV"));
  CHECK(holds(cv, "badly unbalanced"));
  CHECK_FALSE(holds(cv, "max/min (x)"));
  CHECK_FALSE(holds(cv, "MaxVio per step"));
  const std::string both =
      said(f, "report t.h5 --bootstrap 0 --metric load_cv --metric paths --format csv");
  CHECK(holds(both, "\npaths,"));
  CHECK(holds(both, ",load_cv,"));
  CHECK_FALSE(holds(both, ",load_gini,"));
  CHECK(f.run("report t.h5 --metric router_saturation").code == 2);
  CHECK(f.run("report t.h5 --metric load_vc").code == 2);
}

TEST_CASE("several traces stand as columns, with what the differences are worth") {
  const Folder f;
  make_small(f, "a.h5", "uniform");
  make_small(f, "b.h5", "hot:experts=2,share=0.9");
  const std::string text = said(f, "report a.h5 b.h5 --bootstrap 50");
  INFO(text);
  CHECK(lines_of(text).size() <= 50);
  CHECK(widest(text) <= 80);
  CHECK(holds(text, "b.h5 differs from a.h5"));
  for (const std::string& line : lines_of(text)) {
    if (holds(line, "a.h5") && holds(line, "b.h5") && holds(line, "figure"))
      return;  // a row of headings holds both
  }
  FAIL_CHECK("no table has both traces side by side");
}

TEST_CASE("on a terminal --all goes through the pager, and PAGER=cat turns that off") {
  const Folder f;
  make_small(f, "t.h5", "uniform");
  const std::string program = R"(
import os, pty, sys
moe, trace, mark = sys.argv[1:4]
os.environ['PAGER'] = "sh -c 'cat > %s'" % mark
def read(fd):
    return os.read(fd, 65536)
status = pty.spawn([moe, 'report', trace, '--all', '--bootstrap', '0', '--metric', 'load'], read)
assert status == 0, status
text = open(mark).read()
assert '\x1b[1m' in text and 'Gini' in text, text[:400]
os.environ['PAGER'] = 'cat'
os.remove(mark)
assert pty.spawn([moe, 'report', trace, '--all', '--bootstrap', '0', '--metric', 'load'], read) == 0
assert not os.path.exists(mark)
)";
  put(f / "pager.py", program);
  if (std::system("/usr/bin/python3 -c 'import pty' 2> /dev/null") != 0)
    return test::skip("no python3");
  const std::string command = "cd '" + f.path().string() + "' && /usr/bin/python3 pager.py '" +
                              MOE_PROGRAM + "' t.h5 paged > screen";
  CHECK(std::system(command.c_str()) == 0);
  CHECK(holds(text_of(f / "screen"), "Gini"));
}

}  // namespace moe::cli
