// moe help WORD, the glossary, manual pages and completions: every word of the field leads to a
// command, and what shells offer is what the program has.
#include <catch2/catch.hpp>

#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>

#include "tests/cli/program.h"
#include "tests/skip.h"

namespace moe::cli {
namespace {

struct Term {
  std::string words, chinese, meaning, command;
};
const std::vector<Term> terms = {
#define TERM(words, chinese, meaning, command) {words, chinese, meaning, command},
#include "apps/glossary.def"
#undef TERM
};

constexpr const char* page_head = R"(# Glossary

The words of the field, what they mean in this program, and a command that shows them. `moe help
WORD` finds them, in English or Chinese, beside options, names and figures. This page is written
from `apps/glossary.def`; a test keeps the two in step.

| word | 中文 | what it is here | try |
|---|---|---|---|
)";

bool holds(const std::string& text, const std::string& part) {
  return text.find(part) != text.npos;
}

std::vector<std::string> parts_of(const std::string& list) {
  std::vector<std::string> out;
  for (std::size_t from = 0; from < list.size();) {
    const std::size_t end = std::min(list.find(", ", from), list.size());
    out.push_back(list.substr(from, end - from));
    from = end + 2;
  }
  return out;
}

// Whether there is such a shell here.
bool has(const std::string& program) {
  return std::system((program + " --version > /dev/null 2>&1").c_str()) == 0;
}

// What a shell says to a script, run in the folder with moe first in the PATH.
std::string shell_says(const Folder& f, const std::string& shell, const std::string& script) {
  put(f / "script", script);
  const std::string command = "cd '" + f.path().string() + "' && PATH='" +
                              fs::path(MOE_PROGRAM).parent_path().string() + "':\"$PATH\" " +
                              shell + " script > said 2> trouble";
  INFO(command);
  CHECK(std::system(command.c_str()) == 0);
  INFO(text_of(f / "trouble"));
  CHECK(text_of(f / "trouble").empty());
  return text_of(f / "said");
}

}  // namespace

TEST_CASE("docs/glossary.md is in step with glossary.def") {
  std::string page = page_head;
  for (const Term& t : terms) {
    page += "| " + t.words + " | " + t.chinese + " | " + t.meaning + " | `" + t.command + "` |\n";
  }
  const fs::path path = fs::path(MOE_SOURCE_DIR) / "docs/glossary.md";
  if (std::getenv("MOE_UPDATE_GOLDEN")) {
    put(path, page);
    FAIL_CHECK("wrote it anew");
    return;
  }
  CHECK(text_of(path) == page);
}

TEST_CASE("every word of the field leads to a command, in English and Chinese") {
  const Folder f;
  std::set<std::string> seen;
  for (const Term& t : terms) {
    INFO(t.words);
    CHECK(t.command.starts_with("moe "));
    for (const std::string& list : {t.words, t.chinese}) {
      for (const std::string& word : parts_of(list))
        CHECK(seen.insert(word).second);
    }
  }
  // what five introductions that people read before speak of
  for (const std::string word : {"router",
                                 "gate",
                                 "top-k",
                                 "path",
                                 "sparsity",
                                 "activation ratio",
                                 "capacity",
                                 "overflow",
                                 "All-to-All",
                                 "noise",
                                 "temperature",
                                 "shared expert",
                                 "fine-grained",
                                 "ZeRO",
                                 "INT8",
                                 "initialisation",
                                 "pruning",
                                 "redundancy",
                                 "functional coverage",
                                 "dead expert",
                                 "expert group",
                                 "hash",
                                 "hierarchical",
                                 "continual learning",
                                 "Mamba",
                                 "perplexity",
                                 "门控",
                                 "路由",
                                 "负载均衡",
                                 "专家容量",
                                 "共享专家",
                                 "稀疏度",
                                 "动态路由",
                                 "冗余"}) {
    const Result r = f.run("help " + word);
    INFO(word << "\n" << r.out << r.err);
    CHECK(r.code == 0);
    CHECK(holds(r.out, "\n    moe "));
  }
}

TEST_CASE("the command of every word is taken by the program") {
  const Folder f;
  const Result made = f.run("synth uniform -o a.moetrace.h5 --tokens 256 --layers 2 --experts 8");
  REQUIRE(made.code == 0);
  for (const Term& t : terms) {
    const bool runs_here = holds(t.command, "--dry-run") || holds(t.command, "moe list") ||
                           holds(t.command, "--help") || holds(t.command, "report a.moetrace.h5") ||
                           holds(t.command, "show a.moetrace.h5") || holds(t.command, "synth");
    if (!runs_here)
      continue;
    const Result r =
        f.run(t.command.substr(4) + (holds(t.command, "report") ? " --sample 0 --all" : ""));
    INFO(t.command << "\n" << r.err);
    CHECK(r.code == 0);
  }
}

TEST_CASE("help finds options, names and figures, and says where nothing is") {
  const Folder f;
  CHECK(f.run("help report").out == f.run("report --help").out);
  CHECK(holds(f.run("help fail-on").out, "option of moe report"));
  CHECK(holds(f.run("help sinkhorn").out, "router"));
  const Result cv = f.run("help load_cv");
  CHECK(cv.out.starts_with("load_cv  figure"));
  CHECK(holds(cv.out, "moe report a.moetrace.h5 --metric load_cv"));
  CHECK(holds(f.run("help shared_width").out, "field"));
  const Result few = f.run("help load");
  const Result all = f.run("help load --all");
  CHECK(holds(few.out, "more: moe help load --all"));
  CHECK(all.out.size() > few.out.size());
  const Result none = f.run("help sinkhornn");
  CHECK(none.code == 2);
  CHECK(holds(none.err, "moe help sinkhorn"));
}

TEST_CASE("every verb has a manual page that man shows without complaint") {
  if (std::system("man --version > /dev/null 2>&1") != 0)
    return test::skip("no man");
  const Folder f;
  std::vector<std::string> pages{""};
  std::istringstream in(f.run("completions words -- ''").out);
  for (std::string line; std::getline(in, line);)
    pages.push_back(line.substr(0, line.find('\t')));
  CHECK(pages.size() > 15);
  for (const std::string& verb : pages) {
    const Result page = f.run("help " + verb + " --manual");
    REQUIRE(page.code == 0);
    put(f / "page.1", page.out);
    const std::string command =
        "cd '" + f.path().string() + "' && MANWIDTH=80 man --warnings -l page.1 > shown 2> trouble";
    INFO(verb);
    CHECK(std::system(command.c_str()) == 0);
    CHECK(text_of(f / "trouble").empty());
    const std::string shown = text_of(f / "shown");
    for (const char* part : {"NAME", "SYNOPSIS", "SEE ALSO"})
      CHECK(holds(shown, part));
    if (verb == "train")
      CHECK(holds(shown, "--router"));
  }
}

TEST_CASE("a shell is offered verbs, options, names, keys and files") {
  const Folder f;
  const auto offered = [&](const std::string& words) {
    return "\n" + f.run("completions words -- " + words).out;
  };
  CHECK(holds(offered("tr"), "\ntrain\t"));
  CHECK(holds(offered("tr"), "\ntrace\t"));
  CHECK_FALSE(holds(offered("tr"), "\nreport"));
  CHECK(holds(offered("train --rou"), "\n--router\t"));
  CHECK(holds(offered("train --router sink"), "\nsinkhorn"));
  CHECK(holds(offered("train --router softmax:k=2,no"), "\nsoftmax:k=2,norm="));
  CHECK(holds(offered("train --model tiny:shar"), "\ntiny:shared_width="));
  CHECK(holds(offered("report --metric load_c"), "\nload_cv\t"));
  CHECK(holds(offered("report ''"), "\n:files"));
  CHECK(holds(offered("bench ''"), "\nlayer\t"));
  CHECK(holds(offered("trace --special-tokens ''"), "\nids"));
  CHECK(f.run("completions tcsh").code == 2);
}

TEST_CASE("bash, zsh and fish complete a command line with the scripts") {
  const Folder f;
  REQUIRE(f.run("completions bash").code == 0);
  put(f / "moe.bash", f.run("completions bash").out);
  put(f / "moe.zsh", f.run("completions zsh").out);
  put(f / "moe.fish", f.run("completions fish").out);
  const std::string bash = shell_says(f, "bash", R"(source moe.bash
ask() { COMP_LINE="$1"; COMP_POINT=${#1}; _moe; echo "$1 -> ${COMPREPLY[*]}"; }
ask "moe rep"
ask "moe train --router sinkh"
ask "moe train --router softmax:k=2,tem"
ask "moe-train --resu"
ask "moe report corp"
)");
  CHECK(holds(bash, "moe rep -> report\n"));
  CHECK(holds(bash, "sinkh -> sinkhorn"));
  CHECK(holds(bash, "tem -> 2,temperature=\n"));
  CHECK(holds(bash, "--resu -> --resume\n"));
  CHECK(holds(bash, "corp -> corpus\n"));
  if (has("zsh")) {
    const std::string zsh = shell_says(f, "zsh", R"(autoload -U compinit && compinit -u -D
source moe.zsh
print -- ${_comps[moe]} ${_comps[moe-train]}
)");
    CHECK(holds(zsh, "_moe _moe"));
  }
  if (has("fish")) {
    const std::string fish =
        shell_says(f, "fish", "source moe.fish\ncomplete -C 'moe train --router sinkh'\n");
    CHECK(holds(fish, "sinkhorn"));
  }
}

}  // namespace moe::cli
