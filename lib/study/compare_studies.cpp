#include "lib/study/compare_studies.h"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "analysis/statistics/paired.h"
#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/file.h"
#include "lib/files/json.h"

namespace moe {
namespace {

namespace fs = std::filesystem;
using statistics::Estimate;

constexpr double family_error = 0.05;

Json read_study(const fs::path& folder) {
  const fs::path file = folder / "study.json";
  if (!fs::exists(file)) {
    throw Error(Exit::input, concat(in_quotes(folder), " holds no study.json: it is no study"))
        .hint("the folder that moe study -o was given");
  }
  Json j = read_json(file);
  if (j.value("schema", "") != "moe-study/1")
    throw Error(Exit::input, concat(in_quotes(file), " is not what moe study writes"));
  return j;
}

// Values that are numbers; what is missing or infinite takes no part.
std::vector<double> values_of(const Json& arm) {
  std::vector<double> out;
  for (const Json& v : arm.at("values")) {
    if (v.is_number())
      out.push_back(v.get<double>());
  }
  return out;
}

const Json* named(const Json& list, const std::string& key, const std::string& name) {
  for (const Json& entry : list) {
    if (entry.at(key) == name)
      return &entry;
  }
  return nullptr;
}

struct Rows {
  std::vector<std::string> arm, told;
  std::vector<double> first, second, change, low, high, p;

  void add(const std::string& name, const Json& a, const Json& b) {
    const std::vector<double> x = values_of(a);
    const std::vector<double> y = values_of(b);
    const Estimate e = statistics::unpaired(x, y);
    arm.push_back(name);
    first.push_back(statistics::estimate(x).value);
    second.push_back(statistics::estimate(y).value);
    change.push_back(e.value);
    low.push_back(e.low);
    high.push_back(e.high);
    p.push_back(e.p);
  }
  void correct() {
    const auto corrected = statistics::holm(p, family_error);
    for (std::size_t i = 0; i < p.size(); ++i) {
      told.emplace_back(std::isnan(p[i])                ? "not known"
                        : corrected[i].p < family_error ? "moved"
                                                        : "within the scatter");
      p[i] = corrected[i].p;
    }
  }
};

Table table_of(const Json& a, Rows rows) {
  rows.correct();
  Table t{.id = concat("measure_", a.at("name").get<std::string>()),
          .title = a.at("title").get<std::string>(),
          .reading = a.at("time").get<bool>()
                         ? "Times of two machines or moments: compare the ratios to the baseline."
                         : "Welch's 95 % intervals, not paired; p is Holm's over the arms.",
          .section = "measures"};
  const auto unit = a.at("unit").get<std::string>();
  t.columns = {{.name = "arm", .cells = rows.arm},
               {.name = "first", .unit = unit, .cells = rows.first, .digits = 4},
               {.name = "second", .unit = unit, .cells = rows.second, .digits = 4},
               {.name = "change",
                .unit = unit,
                .cells = rows.change,
                .digits = 4,
                .low = rows.low,
                .high = rows.high},
               {.name = "p", .meaning = "Holm-adjusted", .cells = rows.p},
               {.name = "moved", .cells = rows.told}};
  return t;
}

void add_measure(Report& r, const Json& a, const Json& b) {
  Rows rows;
  for (const Json& arm : a.at("arms")) {
    const auto name = arm.at("name").get<std::string>();
    if (const Json* other = named(b.at("arms"), "name", name))
      rows.add(name, arm, *other);
    else
      r.warnings.push_back(concat("only the first study has the arm '", name, "'"));
  }
  for (const Json& arm : b.at("arms")) {
    const auto name = arm.at("name").get<std::string>();
    if (!named(a.at("arms"), "name", name))
      r.warnings.push_back(concat("only the second study has the arm '", name, "'"));
  }
  r.tables.push_back(table_of(a, std::move(rows)));
}

void add_claims(Report& r, const Json& a, const Json& b) {
  std::vector<std::string> says, first, second, same;
  for (const Json& claim : a.at("claims")) {
    const auto text = claim.at("holds_if").get<std::string>();
    const Json* other = named(b.at("claims"), "holds_if", text);
    if (!other)
      continue;
    says.push_back(claim.at("says").get<std::string>());
    first.push_back(claim.at("verdict").get<std::string>());
    second.push_back(other->at("verdict").get<std::string>());
    same.emplace_back(first.back() == second.back() ? "same" : "differs");
    if (first.back() != second.back()) {
      r.findings.push_back({concat("“", says.back(), "”: ", first.back(), " in the first study, ",
                                   second.back(), " in the second."),
                            {},
                            Priority::told});
    }
  }
  if (says.empty())
    return;
  Table t{.id = "claims", .title = "Verdicts", .section = "claims"};
  t.columns = {{.name = "claim", .cells = says},
               {.name = "first", .cells = first},
               {.name = "second", .cells = second},
               {.name = "verdict", .cells = same}};
  r.tables.push_back(std::move(t));
}

// Variables that were not the same: two studies of other settings answer other questions.
void add_settings(Report& r, const Json& a, const Json& b) {
  const Json none = Json::object();
  const Json& x = a.contains("set") ? a.at("set") : none;
  const Json& y = b.contains("set") ? b.at("set") : none;
  for (const auto& [key, value] : x.items()) {
    if (!y.contains(key) || y.at(key) != value) {
      r.facts.emplace_back(key, concat(value.get<std::string>(), " and ",
                                       y.contains(key) ? y.at(key).get<std::string>() : "nothing"));
    }
  }
  r.facts.emplace_back("seeds", concat(a.at("seeds").size(), " and ", b.at("seeds").size()));
}

}  // namespace

Report compared_studies(const fs::path& first, const fs::path& second) {
  const Json a = read_study(first);
  const Json b = read_study(second);
  Report r{.title = concat(first.string(), " and ", second.string())};
  try {
    r.facts.emplace_back("question", a.at("question").get<std::string>());
    if (a.at("question") != b.at("question"))
      r.warnings.emplace_back("The two studies ask different questions.");
    add_settings(r, a, b);
    add_claims(r, a, b);
    for (const Json& m : a.at("measures")) {
      const Json* other = named(b.at("measures"), "name", m.at("name").get<std::string>());
      if (other)
        add_measure(r, m, *other);
      else
        r.warnings.push_back(
            concat("only the first study measures ", m.at("name").get<std::string>()));
    }
  } catch (const nlohmann::json::exception&) {
    throw Error(Exit::input, concat("a study.json of ", first.string(), " or ", second.string(),
                                    " is not what moe study writes"))
        .hint("moe study NAME -o FOLDER writes it again from what was run");
  }
  return r;
}

}  // namespace moe
