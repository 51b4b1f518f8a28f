// The definition of what devices do without the host: plain loops in double, a token at a time.
#include "lib/backend/on_device.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

namespace moe {
namespace {

constexpr double never = -std::numeric_limits<double>::infinity();

std::vector<double> softmax(const std::vector<double>& z) {
  const double top = *std::ranges::max_element(z);
  std::vector<double> p;
  for (const double v : z)
    p.push_back(std::exp(v - top));
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& v : p)
    v /= sum;
  return p;
}
double log_sum_exp(const std::vector<double>& z) {
  const double top = *std::ranges::max_element(z);
  double sum = 0;
  for (const double v : z)
    sum += std::exp(v - top);
  return top + std::log(sum);
}
std::vector<double> scores(const std::vector<double>& z, const TopK& o) {
  if (!o.sigmoid)
    return softmax(z);
  std::vector<double> s;
  for (const double v : z)
    s.push_back(1 / (1 + std::exp(-v)));
  return s;
}
// The n largest above -inf, in falling order, ties to the lower id.
std::vector<int> best(const std::vector<double>& key, std::size_t n) {
  std::vector<int> order;
  for (std::size_t e = 0; e < key.size(); ++e) {
    if (key[e] > never)
      order.push_back(int(e));
  }
  std::ranges::stable_sort(order, [&](int a, int b) { return key[a] > key[b]; });
  if (order.size() > n)
    order.resize(n);
  return order;
}

// `key` in the groups that the token may choose from, -inf elsewhere: in every group the same
// number of best experts, or all experts of the groups that are best by `group_key`.
std::vector<double> in_best_groups(const std::vector<double>& key,
                                   const std::vector<double>& group_key, const TopK& o) {
  const std::size_t experts = key.size();
  const std::size_t size = experts / std::size_t(o.groups);
  std::vector<double> value;
  std::vector<double> out(experts, never);
  const auto group = [&](const std::vector<double>& of, std::size_t g) {
    return std::vector<double>(of.begin() + std::ptrdiff_t(g * size),
                               of.begin() + std::ptrdiff_t((g + 1) * size));
  };
  for (std::size_t g = 0; g < std::size_t(o.groups); ++g) {
    if (o.topk_groups == 0) {
      for (const int i : best(group(key, g), std::size_t(o.k / o.groups)))
        out[g * size + std::size_t(i)] = key[g * size + std::size_t(i)];
    }
    const std::vector<double> mine = group(group_key, g);
    const std::vector<int> top = best(mine, o.top2_sum ? 2 : 1);
    value.push_back(top.empty() ? never : 0);
    for (const int i : top)
      value.back() += mine[i];
  }
  if (o.topk_groups > 0) {
    for (const int g : best(value, std::size_t(o.topk_groups))) {
      std::copy_n(key.begin() + g * std::ptrdiff_t(size), size,
                  out.begin() + g * std::ptrdiff_t(size));
    }
  }
  return out;
}

// What ranks the experts of a token: -inf outside the groups it may choose from.
std::vector<double> keys(const std::vector<double>& z, const std::vector<double>& s, const TopK& o,
                         View<const double> bias) {
  const std::size_t experts = z.size();
  std::vector<double> key(experts);
  std::vector<double> group_key(experts);
  for (std::size_t e = 0; e < experts; ++e) {
    const double b = bias.empty() ? 0 : bias.data[e];
    group_key[e] = (o.bias_on_logit ? z[e] : s[e]) + b;
    // z orders as p does, without ties where p underflows
    key[e] = !o.bias_on_logit && !o.sigmoid && bias.empty() ? z[e] : group_key[e];
  }
  return o.groups == 1 ? key : in_best_groups(key, group_key, o);
}

double divisor(const std::vector<double>& s, std::span<const int> chosen, const TopK& o) {
  double sum = top_k_eps;
  for (const int e : chosen)
    sum += e >= 0 ? s[e] : 0;
  return o.norm ? sum : 1;
}

template <class S>
std::vector<double> logits(View<const S> z, Index t, const TopK& o) {
  std::vector<double> out;
  for (const S v : z.row(t))
    out.push_back(double(v) / o.temperature);
  return out;
}

// Gradient of one token by its scores s, of weights w_j = a s_j / D and probabilities s / sum s.
template <class S>
std::vector<double> by_scores(const std::vector<double>& s, const TopK& o,
                              std::span<const int> expert, std::span<const S> dweight,
                              View<const double> dprobability) {
  std::vector<double> ds(s.size(), 0.0);
  const double d = divisor(s, expert, o);
  const double all = o.sigmoid ? std::accumulate(s.begin(), s.end(), top_k_eps) : 1;
  double by_divisor = 0;
  double by_all = 0;
  for (std::size_t j = 0; j < std::size_t(o.k); ++j) {
    if (const int e = expert[j]; e >= 0 && o.norm)
      by_divisor += double(dweight[j]) * s[e] / d;
  }
  for (std::size_t j = 0; j < std::size_t(o.k); ++j) {
    if (const int e = expert[j]; e >= 0)
      ds[e] += o.scale / d * (double(dweight[j]) - by_divisor);
  }
  if (!dprobability.empty()) {
    for (std::size_t e = 0; e < s.size() && o.sigmoid; ++e)
      by_all += dprobability.data[e] * s[e] / all;
    for (std::size_t e = 0; e < s.size(); ++e)
      ds[e] += (dprobability.data[e] - by_all) / all;
  }
  return ds;
}

template <class S>
class Definition final : public OnDevice<S> {
 public:
  void top_k(View<const S> z, const TopK& o, View<const double> bias, View<const int> valid,
             View<int> expert, View<S> weight, View<S> seen) override {
    for (Index t = 0; t < z.rows; ++t) {
      std::ranges::fill(expert.row(t), -1);
      std::ranges::fill(weight.row(t), S(0));
      std::ranges::fill(seen.row(t), S(0));
      if (!valid.empty() && !valid.data[t])
        continue;
      const std::vector<double> logit = logits(z, t, o);
      const std::vector<double> s = scores(logit, o);
      std::ranges::copy(best(keys(logit, s, o, bias), std::size_t(o.k)), expert.row(t).begin());
      const double d = divisor(s, expert.row(t), o);
      for (Index j = 0; j < o.k; ++j)
        weight(t, j) = expert(t, j) < 0 ? S(0) : S(o.scale * s[expert(t, j)] / d);
      const double all = o.sigmoid ? std::accumulate(s.begin(), s.end(), top_k_eps) : 1;
      const double lse = log_sum_exp(logit);
      double entropy = 0;
      for (Index e = 0; e < z.cols; ++e) {
        const double p = s[e] / all;
        seen(t, e) = S(p);
        entropy -= p > 0 ? p * std::log(p) : 0;
      }
      seen(t, z.cols) = S(lse * lse);
      seen(t, z.cols + 1) = S(entropy);
    }
  }

  void top_k_backward(View<const S> z, const TopK& o, View<const int> valid, View<const int> expert,
                      View<const S> dweight, View<const double> dprobability, double dsquare,
                      View<S> dz) override {
    for (Index t = 0; t < z.rows; ++t) {
      std::ranges::fill(dz.row(t), S(0));
      if (!valid.empty() && !valid.data[t])
        continue;
      const std::vector<double> logit = logits(z, t, o);
      const std::vector<double> s = scores(logit, o);
      const std::vector<double> p = softmax(logit);
      const std::vector<double> ds = by_scores(s, o, expert.row(t), dweight.row(t), dprobability);
      double mean = 0;
      for (std::size_t e = 0; e < s.size(); ++e)
        mean += ds[e] * s[e];
      const double lse = log_sum_exp(logit);
      for (std::size_t e = 0; e < s.size(); ++e) {
        dz(t, Index(e)) =
            S((s[e] * (o.sigmoid ? ds[e] * (1 - s[e]) : ds[e] - mean) + 2 * dsquare * lse * p[e]) /
              o.temperature);
      }
    }
  }

  void add_squares(View<const S> x, View<double> sum) override {
    for (const S v : x.flat())
      *sum.data += double(v) * double(v);
  }
};

}  // namespace

template <>
std::unique_ptr<OnDevice<float>> host_definition<float>() {
  return std::make_unique<Definition<float>>();
}
template <>
std::unique_ptr<OnDevice<double>> host_definition<double>() {
  return std::make_unique<Definition<double>>();
}

}  // namespace moe
