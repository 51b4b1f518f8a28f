#include "analysis/metric/thresholds.h"

#include <algorithm>

#include "lib/core/error.h"
#include "lib/core/spec.h"
#include "lib/core/text.h"

namespace moe {

std::vector<Threshold> thresholds(const std::vector<std::string>& settings) {
  std::vector<Threshold> out = {
#define LIGHT(id, name, column, yellow, red, source) {#id, name, column, yellow, red, source},
#include "analysis/metric/lights.def"
#undef LIGHT
  };
  std::vector<std::string> names;
  for (const Threshold& t : out)
    names.push_back(t.id);
  for (const std::string& s : settings) {
    const std::size_t equals = s.find('=');
    const std::vector<std::string> two =
        split(s.substr(equals == s.npos ? s.size() : equals + 1), ',');
    if (two.size() != 2) {
      throw Error(Exit::usage, concat("the threshold '", s, "' is not NAME=YELLOW,RED"))
          .hint("--threshold load_cv=0.5,1.0");
    }
    const auto found = std::find_if(
        out.begin(), out.end(), [&](const Threshold& t) { return t.id == s.substr(0, equals); });
    if (found == out.end()) {
      const std::string near = nearest(s.substr(0, equals), names);
      throw Error(Exit::usage, concat("there is no light for '", s.substr(0, equals), "'",
                                      near.empty() ? "" : concat("; did you mean '", near, "'?")))
          .hint("lights: " + join(names));
    }
    Spec numbers(concat(found->id, ":yellow=", two[0], ",red=", two[1]));
    const bool low_is_bad = found->red < found->yellow;
    const double yellow = numbers.get("yellow", 0.0);
    const double red = numbers.get("red", 0.0);
    if (low_is_bad ? red > yellow : red < yellow) {
      throw Error(Exit::usage,
                  concat("red at ", two[1], " comes before yellow at ", two[0], " in '", s, "'"))
          .hint(low_is_bad ? "low values are the bad ones: yellow is the larger number"
                           : "yellow first, then red");
    }
    found->yellow = yellow;
    found->red = red;
    found->source = "set by --threshold";
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
