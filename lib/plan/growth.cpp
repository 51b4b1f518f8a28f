// Models that differ in the number of their experts alone.
#include "lib/plan/growth.h"

#include <algorithm>
#include <cmath>

#include "lib/core/error.h"

namespace moe::plan {
namespace {

constexpr double batch = 4096;  // tokens
constexpr double experts_a_device = 4;
constexpr double id_bytes = 4, weight_bytes = 4, count_bytes = 4;

GrowthPoint point(const Architecture& a, const Storage& s) {
  const FeedShape& moe = *a.moe();
  GrowthPoint g{.experts = moe.experts};
  double products = 0;
  for (const WeightPiece& p : pieces(a)) {
    g.parameters += p.size() * double(p.count);
    g.bytes += s.bytes(p) * double(p.count);
    const double work = p.multiplied ? 2 * p.size() * p.active : 0;
    products += work;
    if (p.part == ModelPart::router) {
      g.router_flops += work;
      g.router_bytes += s.bytes(p) * double(p.count);
    }
  }
  g.router_share = g.router_flops / products;
  const auto layers = double(a.moe_layers());
  g.table_bytes = layers * double(moe.k) * (id_bytes + weight_bytes);
  g.count_bytes = layers * double(moe.experts) * count_bytes;
  const double devices = std::max(1.0, double(moe.experts) / experts_a_device);
  g.rows = batch * devices * double(moe.k) / double(moe.experts);
  g.touched = choice_law("even", moe.experts, moe.k).distinct(batch) / double(moe.experts);
  return g;
}

}  // namespace

std::vector<GrowthPoint> growth(const Architecture& model, const Storage& s, Count most) {
  const FeedShape* moe = model.moe();
  if (!moe)
    throw Error(Exit::usage, model.name + ": a dense model has no experts to make more of");
  std::vector<GrowthPoint> out;
  for (Count n = moe->experts; n <= most; n *= 2) {
    Architecture a = model;
    for (LayerShape& l : a.layers) {
      if (l.feed && l.feed->is_moe()) {
        l.feed->experts = n;
        l.feed->router.reset();  // one product, (E,H)
        l.feed->widths.clear();
      }
    }
    out.push_back(point(a, s));
  }
  return out;
}

double exponent(const std::vector<double>& x, const std::vector<double>& y) {
  double mx = 0;
  double my = 0;
  const auto n = double(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    mx += std::log(x[i]) / n;
    my += std::log(y[i]) / n;
  }
  double xy = 0;
  double xx = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    xy += (std::log(x[i]) - mx) * (std::log(y[i]) - my);
    xx += (std::log(x[i]) - mx) * (std::log(x[i]) - mx);
  }
  return xx > 0 ? xy / xx : 0;
}

}  // namespace moe::plan
