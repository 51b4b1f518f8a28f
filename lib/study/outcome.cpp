#include "lib/study/outcome.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/study/claim.h"
#include "lib/study/json_cells.h"
#include "lib/study/measure.h"
#include "lib/study/runner.h"
#include "lib/study/timing.h"
#include "lib/study/units.h"

namespace moe {
namespace {

namespace fs = std::filesystem;
using statistics::Estimate;

constexpr double none = std::numeric_limits<double>::quiet_NaN();
constexpr double family_error = 0.05;
constexpr int most_seeds_named = 1000;
constexpr int few_repetitions = 3;

const Measured& measured(const std::vector<Measured>& all, const std::string& name) {
  return *std::ranges::find(all, name, &Measured::name);
}

std::size_t index_of(const Study& s, const std::string& arm) {
  return std::size_t(std::ranges::find(s.arms, arm, &Arm::name) - s.arms.begin());
}

// Pairs of an arm and the baseline where both have a value: differences, or logarithms of ratios.
std::vector<double> pairs(const Measured& m, std::size_t arm, std::size_t baseline) {
  std::vector<double> out;
  for (std::size_t r = 0; r < m.repetitions.size(); ++r) {
    const double a = m.values[arm][r];
    const double b = m.values[baseline][r];
    if (std::isnan(a) || std::isnan(b))
      continue;
    out.push_back(m.is_time ? std::log(a / b) : a - b);
  }
  return out;
}

std::vector<double> known(const std::vector<double>& values) {
  std::vector<double> out;
  std::ranges::copy_if(values, std::back_inserter(out), [](double v) { return !std::isnan(v); });
  return out;
}

void from_logarithms(Estimate& e) {
  e.value = std::exp(e.value);
  e.low = std::exp(e.low);
  e.high = std::exp(e.high);
}

std::vector<ArmComparison> compared(const Study& s, const Measured& m) {
  const std::size_t baseline = index_of(s, s.baseline);
  std::vector<ArmComparison> out;
  std::vector<double> p;
  for (std::size_t a = 0; a < s.arms.size(); ++a) {
    ArmComparison c{.arm = s.arms[a].name, .value = statistics::estimate(known(m.values[a]))};
    if (a != baseline)
      c.difference = statistics::estimate(pairs(m, a, baseline));
    p.push_back(a == baseline ? none : c.difference.p);
    out.push_back(c);
  }
  const auto corrected = statistics::holm(p, family_error);
  for (std::size_t a = 0; a < out.size(); ++a) {
    if (a == baseline)
      continue;
    Estimate& d = out[a].difference;
    d.p = corrected[a].p;
    out[a].stands_out = d.p < family_error;
    if (m.is_time)
      from_logarithms(d);
  }
  return out;
}

// What a claim compares, repetition by repetition: left less right, and the left side alone.
struct Evidence {
  std::vector<double> difference, left;
  bool is_time = false;
};

Evidence evidence_of(const Study& s, const std::vector<Measured>& all, const Condition& c) {
  const std::vector<std::string> names = c.measures();
  const Measured& first = measured(all, names[0]);
  Evidence out{.is_time = first.is_time};
  for (const std::string& name : names) {
    if (measured(all, name).is_time != first.is_time) {
      throw Error(Exit::usage, concat("a claim compares ", names[0], " with ", name,
                                      ": one is measured by rounds, the other by seeds"))
          .hint("a claim for each");
    }
  }
  for (std::size_t r = 0; r < first.repetitions.size(); ++r) {
    const Condition::Values values = [&](const std::string& measure, const std::string& arm) {
      return measured(all, measure).values[index_of(s, arm)][r];
    };
    const double left = c.left(values);
    const double difference = left - c.right(values);
    if (std::isnan(difference))
      continue;
    out.left.push_back(c.right_is_constant() ? left : difference);
    out.difference.push_back(difference);
  }
  return out;
}

// `sign`: 1 where the claim is that something is above its bound, -1 for below.
Answer answer_of(const Estimate& e, double bound, double sign, double matters) {
  if (std::isnan(e.low))
    return Answer::open;
  const double low = sign > 0 ? e.low - bound : bound - e.high;
  const double high = sign > 0 ? e.high - bound : bound - e.low;
  if (high < matters || (matters == 0 && high <= 0))
    return Answer::fails;
  return low > 0 ? Answer::holds : Answer::open;
}

Answer answer_within(const Estimate& e, double bound, double width) {
  if (std::isnan(e.low))
    return Answer::open;
  if (e.low > bound - width && e.high < bound + width)
    return Answer::holds;
  return e.high < bound - width || e.low > bound + width ? Answer::fails : Answer::open;
}

// The widest half-interval around the estimate that would decide the claim either way.
double deciding_distance(const Condition& c, const ClaimVerdict& v) {
  const double off = v.estimate.value - v.bound;
  if (c.relation() == Condition::Relation::within)
    return std::abs(c.width() - std::abs(off));
  const double effect = c.relation() == Condition::Relation::above ? off : -off;
  return std::max(effect, v.claim.matters - effect);
}

std::string figure(double v) {
  return std::isinf(v) ? (v > 0 ? "infinite" : "-infinite") : fmt::format("{:.4g}", v);
}

std::string relation_text(const Condition& c, double bound) {
  switch (c.relation()) {
    case Condition::Relation::above:
      return concat("above ", figure(bound));
    case Condition::Relation::below:
      return concat("below ", figure(bound));
    case Condition::Relation::within:
      break;
  }
  return concat("within ", figure(c.width()), " of ", figure(bound));
}

std::string numbers_of(const ClaimVerdict& v) {
  const Estimate& e = v.estimate;
  const std::string repetitions = concat(e.n, v.is_time ? " round" : " seed", e.n == 1 ? "" : "s");
  if (std::isnan(e.low))
    return concat(figure(e.value), ", ", repetitions);
  return fmt::format("{} [{}, {}], {}", figure(e.value), figure(e.low), figure(e.high),
                     repetitions);
}

// What would decide an open claim.
std::string outlook(const ClaimVerdict& v) {
  const char* repetitions = v.is_time ? "rounds" : "seeds";
  if (v.estimate.n < 2)
    return concat("; one repetition shows no scatter: at least ", few_repetitions, " ",
                  repetitions);
  if (std::isnan(v.estimate.low))
    return "; a value that is not finite has no interval";
  if (v.needed == 0)
    return concat("; more than ", most_seeds_named, " ", repetitions, " would be needed");
  return concat("; about ", v.needed, " ", repetitions,
                " would decide it if they scatter as these ", v.estimate.n, " do");
}

// A difference that is there and smaller than what matters, or larger than nothing by little.
std::string remark(const Condition& c, const ClaimVerdict& v) {
  if (c.relation() == Condition::Relation::within || v.claim.matters == 0)
    return "";
  const double sign = c.relation() == Condition::Relation::above ? 1 : -1;
  const double effect = sign * (v.estimate.value - v.bound);
  const double least = sign > 0 ? v.estimate.low - v.bound : v.bound - v.estimate.high;
  if (v.answer == Answer::fails && least > 0)
    return concat("; a difference is there, but smaller than the ", figure(v.claim.matters),
                  " that would matter");
  const double most = sign > 0 ? v.estimate.high - v.bound : v.bound - v.estimate.low;
  if (v.answer == Answer::fails && most > 0)
    return concat("; whether there is a difference is open, one of the ", figure(v.claim.matters),
                  " that would matter is excluded");
  if (v.answer == Answer::holds && effect < v.claim.matters)
    return concat("; but it may be smaller than the ", figure(v.claim.matters), " that matters");
  return "";
}

std::string sentence_of(const Condition& c, const ClaimVerdict& v) {
  std::string out = concat(word_of(v.answer), ": ", numbers_of(v), ", where the claim says ",
                           relation_text(c, v.bound));
  return out + (v.answer == Answer::open ? outlook(v) : remark(c, v));
}

// The bound that the shown estimate is compared with: of a constant right side its value, else 0.
double bound_of(const Condition& c) {
  if (!c.right_is_constant())
    return 0;
  return c.right([](const std::string&, const std::string&) { return 0.0; });
}

// The value that an answer has to exclude: nearest to the mean of those that the claim draws.
double tested(const Condition& c, const Claim& claim, double mean) {
  const double bound = bound_of(c);
  if (c.relation() == Condition::Relation::within)
    return mean > bound ? bound + c.width() : bound - c.width();
  const double sign = c.relation() == Condition::Relation::above ? 1 : -1;
  return sign * (mean - bound) > claim.matters / 2 ? bound : bound + sign * claim.matters;
}

std::vector<ClaimVerdict> verdicts_of(const Study& s, const std::vector<Measured>& all) {
  std::vector<Condition> conditions;
  std::vector<Evidence> evidence;
  std::vector<double> p;
  for (const Claim& claim : s.claims) {
    conditions.emplace_back(claim.holds);
    evidence.push_back(evidence_of(s, all, conditions.back()));
    const std::vector<double>& left = evidence.back().left;
    const double mean = statistics::estimate(left).value;
    p.push_back(statistics::estimate(left, tested(conditions.back(), claim, mean)).p);
  }
  const auto corrected = statistics::holm(p, family_error);
  std::vector<ClaimVerdict> out;
  for (std::size_t i = 0; i < s.claims.size(); ++i) {
    const Condition& c = conditions[i];
    ClaimVerdict v{.claim = s.claims[i], .bound = bound_of(c), .level = corrected[i].level};
    v.is_time = evidence[i].is_time;
    v.estimate = statistics::estimate(evidence[i].left, v.bound, v.level);
    const double sign = c.relation() == Condition::Relation::above ? 1 : -1;
    v.answer = c.relation() == Condition::Relation::within
                   ? answer_within(v.estimate, v.bound, c.width())
                   : answer_of(v.estimate, v.bound, sign, v.claim.matters);
    v.needed = statistics::repetitions_needed(v.estimate.deviation, deciding_distance(c, v),
                                              v.level, most_seeds_named);
    v.sentence = sentence_of(c, v);
    out.push_back(std::move(v));
  }
  return out;
}

// A value that cannot be read is an error of the study's file where the arm is done.
void read_values(const Study& s, const std::vector<Unit>& units, Measured& m,
                 const Measure& measure) {
  for (const Unit& u : units) {
    if (u.arm.empty() || read_state_of(u).status != UnitState::Status::done)
      continue;
    const auto at = std::ranges::find(m.repetitions, u.seed);
    if (at != m.repetitions.end())
      m.values[index_of(s, u.arm)][std::size_t(at - m.repetitions.begin())] =
          measure.value(u.folder);
  }
}

std::vector<Unit> whole_rounds(const Study& s, const fs::path& folder,
                               std::vector<std::uint64_t>& rounds) {
  std::vector<Unit> out;
  for (int r = 1; r <= s.timing.rounds; ++r) {
    if (!fs::exists(folder / "timing" / concat("round-", r) / "whole"))
      continue;
    rounds.push_back(std::uint64_t(r));
    for (Unit& u : timing_units(s, folder, r))
      out.push_back(std::move(u));
  }
  return out;
}

void warn_of_business(const std::vector<Unit>& rounds, std::vector<std::string>& warnings) {
  double most = 0;
  int busy = 0;
  for (const Unit& u : rounds) {
    const double others = number_of(u.folder / timing_file, "others");
    busy += others > busy_share ? 1 : 0;
    most = std::max(most, std::isnan(others) ? 0 : others);
  }
  if (busy > 0) {
    warnings.push_back(fmt::format(
        "The machine was busy: in {} of {} timings other programs took up to {:.0f} % of its "
        "cores. Ratios of neighbours in a round suffer less than the times themselves.",
        busy, rounds.size(), 100 * most));
  }
}

// A measure without any value is a slip in the file, where arms are done.
void warn_of_nothing(const Outcome& out, std::vector<std::string>& warnings) {
  for (const Measured& m : out.measures) {
    const bool any = std::ranges::any_of(
        m.values, [](const std::vector<double>& arm) { return !known(arm).empty(); });
    if (!any && out.done > 0)
      warnings.push_back(
          concat("No arm has a value of ", m.name, m.is_time ? ": its rounds come last." : "."));
  }
}

void warn_of_few(const Study& s, const Outcome& out, std::vector<std::string>& warnings) {
  if (int(s.seeds.size()) < few_repetitions) {
    warnings.push_back(concat("With ", s.seeds.size(), s.seeds.size() == 1 ? " seed" : " seeds",
                              " little can be told from chance: ", few_repetitions,
                              " or more give intervals that are of use."));
  }
  const int missing = out.units - out.done - int(out.failed.size());
  if (missing > 0)
    warnings.push_back(concat(missing, " of ", out.units,
                              " parts have not been run yet: the same command goes on."));
}

}  // namespace

const char* word_of(Answer a) {
  switch (a) {
    case Answer::holds:
      return "holds";
    case Answer::fails:
      return "does not hold";
    case Answer::open:
      break;
  }
  return "not decided at this size";
}

Outcome judged(const Study& s, std::vector<Measured> measures) {
  Outcome out;
  out.measures = std::move(measures);
  for (const Measured& m : out.measures)
    out.comparisons.push_back(compared(s, m));
  out.verdicts = verdicts_of(s, out.measures);
  return out;
}

Outcome outcome_of(const Study& s, const fs::path& folder) {
  const std::vector<Unit> units = units_of(s, folder);
  std::vector<std::uint64_t> rounds;
  const std::vector<Unit> timed = whole_rounds(s, folder, rounds);
  std::vector<Measured> all;
  for (const MeasureSpec& spec : s.measures) {
    const Measure measure(spec.spec);
    Measured m{.name = spec.name,
               .title = spec.title.empty() ? measure.title() : spec.title,
               .unit = measure.unit(),
               .is_time = measure.is_time(),
               .repetitions = measure.is_time() ? rounds : s.seeds};
    m.values.assign(s.arms.size(), std::vector<double>(m.repetitions.size(), none));
    read_values(s, m.is_time ? timed : units, m, measure);
    all.push_back(std::move(m));
  }
  Outcome out = judged(s, std::move(all));
  for (const Unit& u : units) {
    const UnitState state = read_state_of(u);
    ++out.units;
    out.done += state.status == UnitState::Status::done ? 1 : 0;
    if (state.status == UnitState::Status::failed)
      out.failed.push_back({u.name(), state.why});
  }
  warn_of_few(s, out, out.warnings);
  warn_of_nothing(out, out.warnings);
  warn_of_business(timed, out.warnings);
  return out;
}

}  // namespace moe
