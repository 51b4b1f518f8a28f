#include "analysis/metric/verdict.h"

#include <cmath>

#include "analysis/metric/layout.h"
#include "lib/core/text.h"

namespace moe {
namespace {

double at(const std::vector<double>& v, std::size_t i) {
  return i < v.size() ? v[i] : no_value;
}

bool low_is_bad(const Threshold& t) {
  return t.red < t.yellow;
}

bool worse(const Threshold& t, double a, double b) {
  return low_is_bad(t) ? a < b : a > b;
}

Light by_thresholds(const Threshold& t, double value) {
  const auto from = [&](double limit) {
    return low_is_bad(t) ? value < limit : value >= limit;
  };
  return from(t.red) ? Light::red : from(t.yellow) ? Light::yellow : Light::green;
}

// Random routing of this size is as bad as the first threshold more often than rarely.
bool within_reach(const Threshold& t, double reach) {
  return !std::isnan(reach) && by_thresholds(t, reach) != Light::green;
}

// What is left of the value without what random routing adds to it.
double beyond(const Threshold& t, double value, double by_chance) {
  return low_is_bad(t) ? 1 - (by_chance - value) : value - by_chance;
}

// The best that other text of the same kind allows is what random routing gives.
bool interval_holds_chance(const Threshold& t, const Column& c, std::size_t row) {
  const double best = at(low_is_bad(t) ? c.high : c.low, row);
  const double by_chance = at(c.chance, row);
  return !std::isnan(best) && !std::isnan(by_chance) && !worse(t, best, by_chance);
}

Light where_random_is_good(const Threshold& t, const Column& c, std::size_t row, double value) {
  const double by_chance = at(c.chance, row);
  const double twice =
      low_is_bad(t) ? 1 - chance_slack * (1 - by_chance) : chance_slack * by_chance;
  if (!worse(t, value, twice) && !std::isnan(by_chance))
    return Light::green;
  const Light light = by_thresholds(t, value);
  return light != Light::green && interval_holds_chance(t, c, row) ? Light::grey : light;
}

// Of a light that is grey because of its interval, which shrinks with the root of the tokens.
double needed_for_interval(const Threshold& t, const Column& c, std::size_t row, double value) {
  const double width = value - at(low_is_bad(t) ? c.high : c.low, row);
  const double far = value - at(c.chance, row);
  return std::ceil(at(c.evidence.tokens, row) * (width / far) * (width / far));
}

double needed_at(const Threshold& t, const Column& c, std::size_t row, double value) {
  const double known = at(c.evidence.needed, row);
  return std::isnan(known) ? needed_for_interval(t, c, row, value) : known;
}

}  // namespace

Light light_of(const Threshold& t, const Column& c, std::size_t row) {
  const double value = std::get<std::vector<double>>(c.cells)[row];
  const double reach = at(c.evidence.reach, row);
  if (!within_reach(t, reach))
    return where_random_is_good(t, c, row, value);
  if (!worse(t, value, reach) || interval_holds_chance(t, c, row))
    return Light::grey;
  const double by_chance = at(c.chance, row);
  const Light light = by_thresholds(t, beyond(t, value, std::isnan(by_chance) ? reach : by_chance));
  return light == Light::green ? Light::grey : light;
}

std::optional<JudgedLight> verdict(const Threshold& t, const Column& c) {
  const auto& cells = std::get<std::vector<double>>(c.cells);
  std::optional<JudgedLight> out;
  for (std::size_t row = 0; row < cells.size(); ++row) {
    if (std::isnan(cells[row]))
      continue;
    const Light light = light_of(t, c, row);
    if (out &&
        (light < out->light || (light == out->light && !worse(t, cells[row], cells[out->row])))) {
      continue;
    }
    out = {light, row, at(c.evidence.tokens, row),
           light == Light::grey ? needed_at(t, c, row, cells[row]) : no_value, c.evidence.unit};
  }
  return out;
}

void Judge::add(const chance::Size& s) {
  const bool same = !rows_.reach.empty() && s.experts == last_.experts && s.k == last_.k &&
                    s.tokens == last_.tokens && s.layers == last_.layers;
  last_ = s;
  rows_.tokens.push_back(s.tokens);
  if (same) {
    rows_.reach.push_back(rows_.reach.back());
    rows_.needed.push_back(rows_.needed.back());
    return;
  }
  rows_.reach.push_back(reach_(s));
  rows_.needed.push_back(
      within_reach(threshold_, rows_.reach.back())
          ? chance::tokens_needed(s, reach_, threshold_.yellow, low_is_bad(threshold_))
          : no_value);
}

void Judge::add_assignments(double experts, double assignments, double layers) {
  add({experts, 1, assignments, layers});
  rows_.unit = "assignments";
}

Standing standing(double value, const chance::Value& by_chance, const Noise& n) {
  const double noise = chance::rare_deviations(n.figures) * by_chance.spread;
  if (value - by_chance.mean > noise)
    return {Shown::more, no_value};
  if (noise <= n.worth)
    return {Shown::no_more, no_value};
  return {Shown::too_few, n.tokens * std::pow(noise / n.worth, 1 / n.falls)};
}

Finding too_few(double tokens, const std::string& what, double needed, const std::string& per,
                const std::string& unit) {
  const std::string many = concat(rounded(tokens), " ", unit, per, " are too few to judge ", what);
  const std::string needs = concat(": needs about ", rounded(needed));
  return {many + (std::isfinite(needed) ? needs : "") + ".", {}, Priority::too_few};
}

}  // namespace moe
