// The outcome of a study in long form: CSV, HDF5, JSON.
#include <cmath>
#include <nlohmann/json.hpp>

#include "lib/core/text.h"
#include "lib/files/json.h"
#include "lib/study/study_report.h"
#include "lib/trace/arrays.h"

namespace moe {
namespace {

struct LongRow {
  std::string arm, measure, unit;
  std::int64_t repetition;
  double value;
};

std::vector<LongRow> long_rows(const Study& s, const Outcome& o) {
  std::vector<LongRow> out;
  for (const Measured& m : o.measures) {
    for (std::size_t a = 0; a < s.arms.size(); ++a) {
      for (std::size_t r = 0; r < m.repetitions.size(); ++r) {
        if (!std::isnan(m.values[a][r]))
          out.push_back(
              {s.arms[a].name, m.name, m.unit, std::int64_t(m.repetitions[r]), m.values[a][r]});
      }
    }
  }
  return out;
}

std::string quoted(const std::string& text) {
  if (text.find_first_of(",\"\n") == text.npos)
    return text;
  std::string out = "\"";
  for (const char c : text)
    out += c == '"' ? std::string("\"\"") : std::string(1, c);
  return out + "\"";
}

Json number(double v) {
  if (std::isnan(v))
    return nullptr;
  if (std::isinf(v))
    return v > 0 ? "inf" : "-inf";
  return v;
}

Json estimate_json(const statistics::Estimate& e) {
  return {{"value", number(e.value)},
          {"low", number(e.low)},
          {"high", number(e.high)},
          {"deviation", number(e.deviation)},
          {"n", e.n},
          {"p", number(e.p)}};
}

Json verdict_json(const ClaimVerdict& v) {
  return {{"says", v.claim.says},
          {"holds_if", v.claim.holds},
          {"matters", v.claim.matters},
          {"verdict", word_of(v.answer)},
          {"estimate", estimate_json(v.estimate)},
          {"bound", number(v.bound)},
          {"level", number(v.level)},
          {"needed", v.needed},
          {"sentence", v.sentence}};
}

Json measure_json(const Study& s, const Measured& m, const std::vector<ArmComparison>& all) {
  Json arms = Json::array();
  for (std::size_t a = 0; a < all.size(); ++a) {
    Json values = Json::array();
    for (const double v : m.values[a])
      values.push_back(number(v));
    Json arm = {{"name", all[a].arm}, {"values", values}, {"mean", estimate_json(all[a].value)}};
    if (all[a].arm != s.baseline)
      arm[m.is_time ? "ratio" : "difference"] = estimate_json(all[a].difference);
    arms.push_back(std::move(arm));
  }
  return {{"name", m.name},    {"title", m.title}, {"unit", m.unit},
          {"time", m.is_time}, {"arms", arms},     {"repetitions", m.repetitions}};
}

}  // namespace

std::string study_csv(const Study& s, const Outcome& o) {
  std::string out = "study,arm,measure,unit,repetition,value\n";
  for (const LongRow& r : long_rows(s, o)) {
    out += concat(quoted(s.name), ",", quoted(r.arm), ",", r.measure, ",", r.unit, ",",
                  r.repetition, ",", r.value, "\n");
  }
  return out;
}

void write_study_h5(const std::filesystem::path& path, const Study& s, const Outcome& o) {
  NamedTexts arm{"arm", {}}, measure{"measure", {}}, unit{"unit", {}};
  NamedArray repetition{.name = "repetition"};
  NamedArray value{.name = "value"};
  for (const LongRow& r : long_rows(s, o)) {
    arm.values.push_back(r.arm);
    measure.values.push_back(r.measure);
    unit.values.push_back(r.unit);
    repetition.values.push_back(double(r.repetition));
    value.values.push_back(r.value);
  }
  repetition.dims = {repetition.values.size()};
  value.dims = {value.values.size()};
  write_arrays(path, {repetition, value}, {{"study", s.name}, {"question", s.question}},
               {arm, measure, unit});
}

std::string study_json(const Study& s, const Outcome& o) {
  Json out = {{"schema", "moe-study/1"}, {"study", s.name},       {"question", s.question},
              {"baseline", s.baseline},  {"seeds", s.seeds},      {"units", o.units},
              {"done", o.done},          {"warnings", o.warnings}};
  for (const auto& [name, value] : s.set.all())
    out["set"][name] = value;
  out["claims"] = Json::array();
  for (const ClaimVerdict& v : o.verdicts)
    out["claims"].push_back(verdict_json(v));
  out["failed"] = Json::array();
  for (const FailedUnit& f : o.failed)
    out["failed"].push_back({{"name", f.name}, {"why", f.why}});
  out["measures"] = Json::array();
  for (std::size_t m = 0; m < o.measures.size(); ++m)
    out["measures"].push_back(measure_json(s, o.measures[m], o.comparisons[m]));
  return json_text(out);
}

}  // namespace moe
