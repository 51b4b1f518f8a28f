// Nobody asks for a router or a balancer by its name: code that compares names is silently wrong
// for the next one. What it wants to know stands in RouterFacts, in a capability or in Balancer.
// The folders that make routers and balancers, translate them for published classes and read them
// from golden files may name them; so may lists of names that only look alike, see `others`.
#include <catch2/catch.hpp>

#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <string>
#include <vector>

namespace fs = std::filesystem;

namespace {

const fs::path root = MOE_SOURCE_DIR;

// Folders that know routers and are held to the rule.
const std::vector<std::string> watched = {"lib/check", "lib/edit", "lib/layer", "lib/model",
                                          "lib/plan",  "lib/run",  "apps"};

// Words of other lists, by what stands around them.
const std::set<std::string> others = {
    R"(spec.name() == "cosine")",            // schedules of the learning rate
    R"(spec.name() != "cosine")",            // the same
    R"({"cosine", "wsd", "constant"})",      // the same
    R"(c.init == "switch")",                 // initial weights
    R"({"switch", "switch"})",               // their names in a model's spec
    R"({"switch", "switch_transformers"})",  // published model types
    R"(type == "gshard")",                   // the same
    R"(spec.name() == "load")",              // scores of experts
    R"(spec.name() != "load")",              // the same
    R"({"load", "reap"})",                   // the same
    R"({"z", &d->a})",                       // a tensor of a check
    R"({"index", "random"}) == "random")",   // the order of hidden units
};

// The names in a .def file: ROUTER(softmax, ... -> softmax; "none" says that there is nothing.
std::string names(const std::string& file, const std::string& macro) {
  std::ifstream in(root / file);
  std::string all;
  const std::regex entry("^" + macro + R"(\((\w+))");
  std::smatch m;
  for (std::string line; std::getline(in, line);) {
    if (std::regex_search(line, m, entry) && m[1] != "none")
      all += (all.empty() ? "" : "|") + m[1].str();
  }
  return all;
}

// A name compared, looked for, or as the key of a map.
std::regex comparison() {
  const std::string name = R"("(?:)" + names("lib/router/routers.def", "ROUTER") + "|" +
                           names("lib/balance/balancers.def", "BALANCER") + R"()[":])";
  return std::regex("[!=]= *" + name + "|" + name + " *[!=]=|" +
                    R"((?:starts_with|contains|find|count|rfind|compare)\( *)" + name + R"(|\{ *)" +
                    name + " *,");
}

bool of_another_list(const std::string& line, std::set<std::string>& used) {
  bool found = false;
  for (const std::string& text : others) {
    if (line.find(text) == line.npos)
      continue;
    used.insert(text);
    found = true;
  }
  return found;
}

}  // namespace

TEST_CASE("routers and balancers are asked for facts, not for their names") {
  const std::regex compared = comparison();
  std::set<std::string> used;
  int lines = 0;
  for (const std::string& folder : watched) {
    for (const auto& entry : fs::recursive_directory_iterator(root / folder)) {
      const std::string ending = entry.path().extension().string();
      if (ending != ".cpp" && ending != ".h")
        continue;
      std::ifstream in(entry.path());
      int number = 0;
      for (std::string line; std::getline(in, line); ++lines) {
        ++number;
        if (!std::regex_search(line, compared) || of_another_list(line, used))
          continue;
        INFO(fs::relative(entry.path(), root).generic_string() << ":" << number << ": " << line);
        CHECK(false);
      }
    }
  }
  CHECK(lines > 5000);
  CHECK(used == others);  // nothing is excused that is gone
}

TEST_CASE("a comparison with the name of a router or a balancer is seen") {
  const std::regex compared = comparison();
  for (const char* line :
       {R"(if (router.name() == "softmax"))", R"(b->name() != "bias")", R"("hash" == name)",
        R"(spec.starts_with("gshard"))", R"(spec.starts_with("replay:"))",
        R"({"sigmoid", ScoreFn::sigmoid},)", R"(known.contains("quantile"))"}) {
    INFO(line);
    CHECK(std::regex_search(line, compared));
  }
  for (const char* line :
       {R"(concat("softmax:k=", k))", R"(std::string router = "softmax:k=2";)",
        R"(.hint("--router softmax:k=2"))", R"(name == "softmaxes")", R"(balance == "none")"}) {
    INFO(line);
    CHECK_FALSE(std::regex_search(line, compared));
  }
}
