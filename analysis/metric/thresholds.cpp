#include "analysis/metric/thresholds.h"

#include <algorithm>

#include "lib/core/error.h"
#include "lib/core/spec.h"
#include "lib/core/text.h"

namespace moe {
namespace {

std::vector<Threshold> usual_thresholds() {
  return {
#define LIGHT(id, name, column, yellow, red, source) {#id, name, column, yellow, red, source},
#include "analysis/metric/lights.def"
#undef LIGHT
  };
}

Threshold& named(std::vector<Threshold>& all, const std::string& name) {
  const auto found =
      std::find_if(all.begin(), all.end(), [&](const Threshold& t) { return t.id == name; });
  if (found != all.end())
    return *found;
  std::vector<std::string> names;
  for (const Threshold& t : all)
    names.push_back(t.id);
  const std::string near = nearest(name, names);
  throw Error(Exit::usage, concat("there is no light for '", name, "'",
                                  near.empty() ? "" : concat("; did you mean '", near, "'?")))
      .hint("lights: " + join(names));
}

}  // namespace

std::vector<Threshold> thresholds(const std::vector<std::string>& settings) {
  std::vector<Threshold> out = usual_thresholds();
  for (const std::string& s : settings) {
    const std::size_t equals = s.find('=');
    const std::vector<std::string> two =
        split(s.substr(equals == s.npos ? s.size() : equals + 1), ',');
    if (two.size() != 2) {
      throw Error(Exit::usage, concat("the threshold '", s, "' is not NAME=YELLOW,RED"))
          .hint("--threshold load_cv=0.5,1.0");
    }
    Threshold& found = named(out, s.substr(0, equals));
    Spec numbers(concat(found.id, ":yellow=", two[0], ",red=", two[1]));
    const bool low_is_bad = found.red < found.yellow;
    const double yellow = numbers.get("yellow", 0.0);
    const double red = numbers.get("red", 0.0);
    if (low_is_bad ? red > yellow : red < yellow) {
      throw Error(Exit::usage,
                  concat("red at ", two[1], " comes before yellow at ", two[0], " in '", s, "'"))
          .hint(low_is_bad ? "low values are the bad ones: yellow is the larger number"
                           : "yellow first, then red");
    }
    found.yellow = yellow;
    found.red = red;
    found.source = "set by --threshold";
  }
  return out;
}

Threshold threshold_of(std::string_view id, const std::vector<Threshold>& all) {
  const std::vector<Threshold> usual = all.empty() ? thresholds({}) : std::vector<Threshold>{};
  for (const Threshold& t : all.empty() ? usual : all) {
    if (t.id == id)
      return t;
  }
  throw Error(Exit::bug, concat("no threshold is kept for '", id, "'"));
}

}  // namespace moe
