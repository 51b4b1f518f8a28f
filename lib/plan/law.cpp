// Chances of experts and what follows from them.
#include "lib/plan/law.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "lib/core/error.h"
#include "lib/core/spec.h"
#include "lib/core/text.h"

namespace moe::plan {
namespace {

// x with f(x) = wanted, f rising from 0.
double solve(const std::function<double(double)>& f, double wanted) {
  double low = 0;
  double high = 1;
  for (int i = 0; i < 200 && f(high) < wanted; ++i)
    high *= 2;
  for (int i = 0; i < 100; ++i) {
    const double middle = (low + high) / 2;
    (f(middle) < wanted ? low : high) = middle;
  }
  return high;
}

std::vector<double> chances(const std::vector<double>& weight, double k) {
  const auto sum = [&](double c) {
    double out = 0;
    for (const double w : weight)
      out += -std::expm1(-c * w);
    return out;
  };
  const double c = solve(sum, k);
  std::vector<double> out;
  for (const double w : weight)
    out.push_back(-std::expm1(-c * w));
  return out;
}

double mean_over(const std::vector<std::vector<double>>& layers,
                 const std::function<double(const std::vector<double>&)>& of) {
  double sum = 0;
  for (const auto& p : layers)
    sum += of(p);
  return sum / double(layers.size());
}

}  // namespace

double ChoiceLaw::distinct(double tokens) const {
  return mean_over(layer, [&](const std::vector<double>& p) {
    double sum = 0;
    for (const double x : p)
      sum += x >= 1 ? 1 : -std::expm1(tokens * std::log1p(-x));
    return sum;
  });
}

double ChoiceLaw::hits_most_used(Count held) const {
  return mean_over(layer, [&](std::vector<double> p) {
    std::ranges::sort(p, std::greater<>());
    const auto n = std::ptrdiff_t(std::min(held, Count(p.size())));
    return std::accumulate(p.begin(), p.begin() + n, 0.0) / double(k);
  });
}

double ChoiceLaw::hits_lru(Count held) const {
  if (held >= experts)
    return 1;
  if (held <= 0)
    return 0;
  return mean_over(layer, [&](const std::vector<double>& p) {
    const double time = solve(
        [&](double t) {
          double sum = 0;
          for (const double x : p)
            sum += -std::expm1(-x * t);
          return sum;
        },
        double(held));
    double hits = 0;
    for (const double x : p)
      hits += x * -std::expm1(-x * time);
    return hits / double(k);
  });
}

double ChoiceLaw::imbalance(Count ranks, double rows) const {
  if (ranks <= 1)
    return 1;
  const double uneven = mean_over(layer, [&](const std::vector<double>& p) {
    std::vector<double> load(std::size_t(ranks), 0.0);
    for (std::size_t e = 0; e < p.size(); ++e)
      load[e * std::size_t(ranks) / p.size()] += p[e];
    return *std::ranges::max_element(load) * double(ranks) /
           std::accumulate(load.begin(), load.end(), 0.0);
  });
  const double each = rows / double(ranks);
  return std::min(double(ranks), uneven + std::sqrt(2 * std::log(double(ranks)) * uneven / each));
}

ChoiceLaw choice_law(std::string_view text, Count experts, Count k) {
  Spec spec(text);
  ChoiceLaw law{.name = std::string(text), .experts = experts, .k = k};
  std::vector<double> weight(std::size_t(experts), 1.0);
  if (spec.name() == "zipf") {
    const double s = spec.get("s", 1.0, 0.0);
    for (std::size_t e = 0; e < weight.size(); ++e)
      weight[e] = std::pow(double(e + 1), -s);
  } else if (spec.name() != "even") {
    throw Error(Exit::usage, concat("no law of routing is named '", spec.name(), "'"))
        .hint("even, zipf:s=1, or a trace: FILE.moetrace.h5");
  }
  spec.done();
  law.layer = {k >= experts ? std::vector<double>(weight.size(), 1.0) : chances(weight, double(k))};
  return law;
}

}  // namespace moe::plan
