// Fitting factors that cannot be better than a data sheet.
#include "lib/plan/fit.h"

#include <algorithm>
#include <cmath>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/plan/published.h"

namespace moe::plan {
namespace {

constexpr int rounds = 30;         // of weights
constexpr int sweeps = 400;        // of coordinates
constexpr double floor_of = 0.05;  // errors below count as that when they are weighed

// What a factor is at least: no product and no memory is faster than its data sheet. The factors of
// exchanges are those of published exchanges, gradients and optimiser take what they must.
struct Bound {
  bool fitted;
  double least;
};
Bound bound_of(Term t) {
  const bool rate = t == Term::narrow || t == Term::wide || t == Term::rows;
  return {rate || t == Term::launch || t == Term::graphs, rate ? 1.0 : 0.0};
}

Terms fixed_factors() {
  const ExchangeFactors e = exchange_factors();
  Terms f;
  f.fill(1);
  f[std::size_t(Term::link)] = e.link;
  f[std::size_t(Term::net)] = e.net;
  f[std::size_t(Term::launch)] = 0;
  f[std::size_t(Term::graphs)] = 0;
  return f;
}

// Weighted least squares of A f = 1, coordinate by coordinate, each as large as its bound.
Terms solved(const std::vector<Terms>& a, const std::vector<double>& weight, Terms f) {
  std::array<Terms, term_count> product{};
  Terms right{};
  for (std::size_t r = 0; r < a.size(); ++r) {
    for (std::size_t i = 0; i < term_count; ++i) {
      right[i] += weight[r] * a[r][i];
      for (std::size_t j = 0; j < term_count; ++j)
        product[i][j] += weight[r] * a[r][i] * a[r][j];
    }
  }
  for (int s = 0; s < sweeps; ++s) {
    for (std::size_t i = 0; i < term_count; ++i) {
      const Bound bound = bound_of(Term(i));
      const double self = product[i][i];
      if (!bound.fitted || self <= 0)
        continue;
      double rest = right[i] + self * f[i];
      for (std::size_t j = 0; j < term_count; ++j)
        rest -= product[i][j] * f[j];
      f[i] = std::max(bound.least, rest / self);
    }
  }
  return f;
}

double predicted_share(const Terms& a, const Terms& f) {
  double sum = 0;
  for (std::size_t i = 0; i < term_count; ++i)
    sum += a[i] * f[i];
  return sum;
}

bool is_same_kind(const FitRow& a, const FitRow& b) {
  return a.run->model == b.run->model && a.device == b.device;
}

}  // namespace

const std::vector<PublishedRun>& published_runs() {
  static const std::vector<PublishedRun> all{
#define RUN(model, cluster, layout, tokens, source, refused) \
  {model, cluster, layout, tokens, source, refused},
#include "lib/plan/published_runs.def"
#undef RUN
  };
  return all;
}

std::vector<FitRow> fit_rows() {
  std::vector<FitRow> out;
  for (const PublishedRun& run : published_runs()) {
    if (!run.refused.empty())
      continue;
    const PublishedModel* model = find_published(std::string(run.model));
    if (!model)
      throw Error(Exit::bug, concat("published_runs.def names no model '", run.model, "'"));
    const Architecture a = describe(*model);
    const Cluster c = cluster_of(run.cluster);
    FitRow row{.run = &run, .device = c.device.name};
    row.layout = resolved(layout_of(run.layout), c, a);
    row.parts = step_parts(a, c, row.layout);
    out.push_back(std::move(row));
  }
  return out;
}

Terms fitted(const std::vector<const FitRow*>& rows) {
  std::vector<Terms> a;
  for (const FitRow* r : rows) {
    Terms shares = r->parts.seconds;
    for (double& s : shares)
      s *= r->run->tokens / r->parts.tokens;  // of the published time of the step
    a.push_back(shares);
  }
  std::vector<double> weight(a.size(), 1.0);
  Terms f = fixed_factors();
  for (int i = 0; i < rounds; ++i) {
    f = solved(a, weight, f);
    for (std::size_t r = 0; r < a.size(); ++r)
      weight[r] = 1 / std::max(floor_of, std::abs(predicted_share(a[r], f) - 1));
  }
  return f;
}

std::vector<Judged> leave_one_out(const std::vector<FitRow>& rows) {
  std::vector<Judged> out;
  for (const FitRow& judged : rows) {
    std::vector<const FitRow*> alone, strange;
    for (const FitRow& r : rows) {
      if (&r != &judged)
        alone.push_back(&r);
      if (!is_same_kind(r, judged))
        strange.push_back(&r);
    }
    out.push_back({tokens_per_s(judged.parts, fitted(alone)) / judged.run->tokens,
                   tokens_per_s(judged.parts, fitted(strange)) / judged.run->tokens});
  }
  return out;
}

Band band_of(std::vector<double> ratios) {
  for (double& r : ratios)
    r = std::abs(r - 1);
  std::ranges::sort(ratios);
  const auto at = [&](double q) {
    return ratios[std::min(ratios.size() - 1, std::size_t(q * double(ratios.size())))];
  };
  return ratios.empty() ? Band{} : Band{at(0.5), at(0.8), ratios.back()};
}

const Calibration& calibration() {
  static const Calibration made = [] {
    const std::vector<FitRow> rows = fit_rows();
    std::vector<const FitRow*> all;
    for (const FitRow& r : rows)
      all.push_back(&r);
    Calibration c{.factors = fitted(all), .rows = rows.size()};
    std::vector<double> alone, strange;
    for (const Judged& j : leave_one_out(rows)) {
      alone.push_back(j.alone);
      strange.push_back(j.strange);
    }
    c.alone = band_of(alone);
    c.strange = band_of(strange);
    return c;
  }();
  return made;
}

}  // namespace moe::plan
