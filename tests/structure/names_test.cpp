// Nobody asks for a router, a balancer or a mixer by its name: code that compares names is silently
// wrong for the next one. What it wants to know stands in RouterFacts, in a capability, in
// Balancer, in ModelParameter or in MixerShape. The folders that make them, translate routers and
// balancers for published classes and read them from golden files may name them; so may lists of
// names that only look alike, see `others` and `other_lists`.
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
    R"(spec.name() == "cosine")",                                  // schedules of the learning rate
    R"(spec.name() != "cosine")",                                  // the same
    R"({"cosine", "wsd", "constant"})",                            // the same
    R"(c.init == "switch")",                                       // initial weights
    R"({"switch", "switch"})",                                     // their names in a model's spec
    R"({"switch", "switch_transformers"})",                        // published model types
    R"(spec.get(group, "") == "load")",                            // a rule of learning rates
    R"(spec.name() == "load")",                                    // scores of experts
    R"(spec.name() != "load")",                                    // the same
    R"({"load", "reap"})",                                         // the same
    R"({"z", &d->a})",                                             // a tensor of a check
    R"({"index", "random"}) == "random")",                         // the order of hidden units
    R"({"dense", "norms", "streams", "embedding", "projector"})",  // groups of parameters
    R"(entry == "dense")",                                         // feed-forwards of layers
};

// The same for mixers, whose names may stand in no string at all outside their folder, the registry
// and the files that translate published classes.
const std::vector<std::string> watched_for_mixers = {"lib/edit", "lib/layer", "lib/model",
                                                     "lib/plan", "lib/run",   "apps"};
const std::set<std::string> homes_of_mixers = {"lib/model/mixers", "lib/model/mixer_type.cpp",
                                               "lib/model/mixer_type.h"};
const std::set<std::string> other_lists = {
    R"(names[] = {"attention",)",                  // kinds of mixers, for people
    R"("attention",      "dense feed-forward",)",  // parts of a model, for people
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

// A string that is a mixer's name, or begins with one as a spec or a list does.
std::regex quoted_mixer() {
  return std::regex(R"("(?:)" + names("lib/model/mixers.def", "MIXER") + R"()[":;*])");
}

// Looks for a pattern in the lines of C++ files, but for lines that another list's text excuses.
class Search {
 public:
  Search(std::regex pattern, std::set<std::string> excused)
      : pattern_(std::move(pattern)), excused_(std::move(excused)) {}

  void folder(const std::string& name, const std::set<std::string>& left_out = {}) {
    for (const auto& entry : fs::recursive_directory_iterator(root / name)) {
      const fs::path path = fs::relative(entry.path(), root);
      const std::string ending = path.extension().string();
      const bool home = left_out.count(path.generic_string()) > 0 ||
                        left_out.count(path.parent_path().generic_string()) > 0;
      if ((ending == ".cpp" || ending == ".h") && !home)
        file(path.generic_string());
    }
  }
  int lines() const {
    return lines_;
  }
  // Nothing is excused that is gone.
  void check_excuses() const {
    CHECK(used_ == excused_);
  }

 private:
  void file(const std::string& name) {
    std::ifstream in(root / name);
    int number = 0;
    for (std::string line; std::getline(in, line); ++lines_) {
      ++number;
      if (!std::regex_search(line, pattern_) || is_excused(line))
        continue;
      INFO(name << ":" << number << ": " << line);
      CHECK(false);
    }
  }
  bool is_excused(const std::string& line) {
    bool found = false;
    for (const std::string& text : excused_) {
      if (line.find(text) == line.npos)
        continue;
      used_.insert(text);
      found = true;
    }
    return found;
  }

  std::regex pattern_;
  std::set<std::string> excused_, used_;
  int lines_ = 0;
};

}  // namespace

TEST_CASE("routers and balancers are asked for facts, not for their names") {
  Search search(comparison(), others);
  for (const std::string& folder : watched)
    search.folder(folder);
  CHECK(search.lines() > 5000);
  search.check_excuses();
}

TEST_CASE("no mixer is named outside its folder and the registry") {
  Search search(quoted_mixer(), other_lists);
  for (const std::string& folder : watched_for_mixers)
    search.folder(folder, homes_of_mixers);
  CHECK(search.lines() > 5000);
  search.check_excuses();
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

TEST_CASE("the name of a mixer in a string is seen") {
  const std::regex quoted = quoted_mixer();
  for (const char* line : {R"(if (group == "attention"))", R"(c.mixer = "short_conv:kernel=4";)",
                           R"("short_conv*2;attention")"}) {
    INFO(line);
    CHECK(std::regex_search(line, quoted));
  }
  for (const char* line : {R"("attention_norm")", R"("latent attention")",
                           R"(attention(m, h, out))", R"(r.flag("attention_bias"))"}) {
    INFO(line);
    CHECK_FALSE(std::regex_search(line, quoted));
  }
}
