// Bodies of routing on the device: a group of lanes a token, scores in double as on the host.
// Scores are made anew from the logits where they are needed, so a token takes no memory besides
// its row.
#pragma once
#include <cmath>
#include <cstdint>
#include <limits>

#include "lib/backend/on_device.h"

namespace moe::gpu {

// The scores of one token: z its logits, top and sum those of its softmax.
struct Scores {
  const float* z;
  TopK o;
  Index experts;
  double top = 0, sum = 0;

  MOE_HD double logit(Index e) const {
    return double(z[e]) / o.temperature;
  }
  MOE_HD double softmax(Index e) const {
    return exp(logit(e) - top) / sum;
  }
  MOE_HD double score(Index e) const {
    return o.sigmoid ? 1 / (1 + exp(-logit(e))) : softmax(e);
  }
  MOE_HD double lse() const {
    return top + log(sum);
  }

  template <class G>
  MOE_HD void prepare(const G& g) {
    top = -std::numeric_limits<double>::infinity();
    // a NaN is met in the sum
    for (Index e = g.lane(); e < experts; e += G::width)
      top = fmax(top, logit(e));
    top = g.max(top);
    for (Index e = g.lane(); e < experts; e += G::width)
      sum += exp(logit(e) - top);
    sum = g.sum(sum);
  }
  template <class G>
  MOE_HD double all_scores(const G& g) const {  // what scores are divided by to be probabilities
    double all = 0;
    for (Index e = g.lane(); e < experts; e += G::width)
      all += score(e);
    return o.sigmoid ? g.sum(all) + top_k_eps : 1;
  }
  MOE_HD double divisor(const int* chosen) const {  // of the weights
    double all = top_k_eps;
    for (int j = 0; j < o.k; ++j)
      all += chosen[j] >= 0 ? score(chosen[j]) : 0;
    return o.norm ? all : 1;
  }
};

// What ranks the experts and groups of one token.
struct Keys {
  Scores s;
  const double* bias;                      // null: none
  std::uint64_t open = ~std::uint64_t(0);  // groups to choose from

  MOE_HD Index group_size() const {
    return s.experts / s.o.groups;
  }
  MOE_HD double group_key(Index e) const {
    return (s.o.bias_on_logit ? s.logit(e) : s.score(e)) + (bias ? bias[e] : 0);
  }
  MOE_HD double operator()(Index e) const {
    return !s.o.bias_on_logit && !s.o.sigmoid && !bias ? s.logit(e) : group_key(e);
  }
  MOE_HD bool allowed(Index e) const {
    if (s.o.groups == 1)
      return true;
    const Index size = group_size();
    const Index first = e / size * size;
    if (s.o.topk_groups > 0)
      return open >> (e / size) & 1;
    const double mine = (*this)(e);
    int before = 0;  // in its group
    for (Index i = first; i < first + size; ++i) {
      const double other = (*this)(i);
      before += other > mine || (other == mine && i < e);
    }
    return before < s.o.k / s.o.groups;
  }
  MOE_HD double value(Index group) const {  // of a group
    const double never = -std::numeric_limits<double>::infinity();
    double first = never;
    double second = never;
    for (Index e = group * group_size(); e < (group + 1) * group_size(); ++e) {
      const double key = group_key(e);
      if (key > first) {
        second = first;
        first = key;
      } else if (key > second) {
        second = key;
      }
    }
    return s.o.top2_sum && second > never ? first + second : first;
  }
};

// The largest key of all lanes and the lowest of its ids; -1 where none is above -inf. A lane
// brings its own best.
struct Best {
  double key = -std::numeric_limits<double>::infinity();
  Index id = -1;
  MOE_HD void take(double k, Index i) {
    if (k > key) {
      key = k;
      id = i;
    }
  }
  template <class G>
  MOE_HD Best of_all(const G& g) const {
    const double never = -std::numeric_limits<double>::infinity();
    Best out;
    out.key = g.max(key);
    const double low = g.max(id >= 0 && key == out.key ? -double(id) : never);
    out.id = low > never ? Index(-low) : -1;
    return out;
  }
};

struct ChooseTopK {
  const float* z;
  TopK o;
  const double* bias;
  const int* valid;  // null: all
  int* expert;
  float *weight, *seen;
  Index experts;

  template <class G>
  MOE_HD void operator()(Index t, const G& g) const {
    int* chosen = expert + t * o.k;
    float* statistics = seen + t * (experts + 2);
    if (valid && !valid[t]) {
      for (Index j = g.lane(); j < o.k; j += G::width) {
        chosen[j] = -1;
        weight[t * o.k + j] = 0;
      }
      for (Index e = g.lane(); e < experts + 2; e += G::width)
        statistics[e] = 0;
      return;
    }
    Keys key{{z + t * experts, o, experts}, bias};
    key.s.prepare(g);
    if (o.topk_groups > 0 && o.groups > 1)
      key.open = open_groups(key, g);
    choose(t, key, chosen, g);
    describe(key.s, statistics, g);
  }

 private:
  template <class G>
  MOE_HD std::uint64_t open_groups(const Keys& key, const G& g) const {
    std::uint64_t open = 0;
    for (int round = 0; round < o.topk_groups; ++round) {
      Best mine;
      for (Index i = g.lane(); i < o.groups; i += G::width) {
        if (!(open >> i & 1))
          mine.take(key.value(i), i);
      }
      const Best best = mine.of_all(g);
      if (best.id >= 0)
        open |= std::uint64_t(1) << best.id;
    }
    return open;
  }
  // Round j finds the best of those that come after the one of round j-1.
  template <class G>
  MOE_HD void choose(Index t, const Keys& key, int* chosen, const G& g) const {
    Best last;
    double sum = top_k_eps;
    for (int j = 0; j < o.k; ++j) {
      Best mine;
      for (Index e = g.lane(); e < experts; e += G::width) {
        const double k = key(e);
        if ((j == 0 || k < last.key || (k == last.key && e > last.id)) && key.allowed(e))
          mine.take(k, e);
      }
      last = mine.of_all(g);
      sum += last.id >= 0 ? key.s.score(last.id) : 0;
      if (g.lane() == 0)
        chosen[j] = int(last.id);
    }
    for (int j = 0; j < o.k && g.lane() == 0; ++j) {
      weight[t * o.k + j] =
          chosen[j] < 0 ? 0 : float(o.scale * key.s.score(chosen[j]) / (o.norm ? sum : 1));
    }
  }
  template <class G>
  MOE_HD void describe(const Scores& s, float* statistics, const G& g) const {
    const double all = s.all_scores(g);
    const double lse = s.lse();
    double entropy = 0;
    for (Index e = g.lane(); e < experts; e += G::width) {
      const double p = s.score(e) / all;
      statistics[e] = float(p);
      entropy -= p > 0 ? p * log(p) : 0;
    }
    entropy = g.sum(entropy);
    if (g.lane() == 0) {
      statistics[experts] = float(lse * lse);
      statistics[experts + 1] = float(entropy);
    }
  }
};

struct TopKBackward {
  const float* z;
  TopK o;
  const int *valid, *expert;
  const float* dweight;
  const double* dprobability;  // null: none
  double dsquare;
  float* dz;
  Index experts;

  template <class G>
  MOE_HD void operator()(Index t, const G& g) const {
    float* out = dz + t * experts;
    if (valid && !valid[t]) {
      for (Index e = g.lane(); e < experts; e += G::width)
        out[e] = 0;
      return;
    }
    Scores s{z + t * experts, o, experts};
    s.prepare(g);
    const double all = dprobability ? s.all_scores(g) : 1;
    const double d = s.divisor(expert + t * o.k);
    double by_divisor = 0;
    double by_all = 0;
    double mean = 0;
    for (int j = 0; j < o.k && o.norm; ++j) {
      if (const int e = expert[t * o.k + j]; e >= 0)
        by_divisor += double(dweight[t * o.k + j]) * s.score(e) / d;
    }
    for (Index e = g.lane(); e < experts && dprobability && o.sigmoid; e += G::width)
      by_all += dprobability[e] * s.score(e) / all;
    by_all = g.sum(by_all);
    for (Index e = g.lane(); e < experts; e += G::width)
      mean += arriving(t, e, d, by_divisor, all, by_all) * s.score(e);
    mean = g.sum(mean);
    for (Index e = g.lane(); e < experts; e += G::width) {
      const double ds = arriving(t, e, d, by_divisor, all, by_all);
      const double score = s.score(e);
      out[e] = float((score * (o.sigmoid ? ds * (1 - score) : ds - mean) +
                      2 * dsquare * s.lse() * s.softmax(e)) /
                     o.temperature);
    }
  }

 private:
  // at score e
  MOE_HD double arriving(Index t, Index e, double d, double by_divisor, double all,
                         double by_all) const {
    double ds = dprobability ? (dprobability[e] - by_all) / all : 0;
    for (int j = 0; j < o.k; ++j) {
      if (expert[t * o.k + j] == e)
        ds += o.scale / d * (double(dweight[t * o.k + j]) - by_divisor);
    }
    return ds;
  }
};

}  // namespace moe::gpu
