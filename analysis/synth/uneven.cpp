// Patterns with favourites: zipf, a hot set that stands or rotates, bursts, and domains with
// experts of their own.
#include <cmath>

#include "analysis/synth/draw.h"
#include "lib/core/error.h"

namespace moe {
namespace {

void check_share(double share, int count, const SynthShape& s) {
  if (count < 1 || count > s.experts || share > 1 || share > double(count) / s.k + 1e-12 ||
      (count == s.experts && share < 1)) {
    throw Error(Exit::usage, concat(count, " of ", s.experts, " experts cannot take ", share,
                                    " of the assignments of ", s.k, " different experts a token"))
        .hint(concat("an expert takes at most 1/K of them: share <= ",
                     std::min(1.0, double(count) / s.k)));
  }
  if ((1 - share) * s.k > s.experts - count + 1e-9) {
    throw Error(Exit::usage,
                concat("the ", s.experts - count, " other experts cannot take the remaining ",
                       1 - share, " of the assignments"))
        .hint("a larger share, or fewer experts");
  }
}

class Fixed final : public Pattern {  // the same shares everywhere
 public:
  Fixed(const SynthShape& s, std::vector<double> share) : shape_(s), draw_(std::move(share), s.k) {}
  void draw(const SynthRun& run, Rng& rng, Matrix<int>& out) const override {
    for (Index t = 0; t < run.rows; ++t)
      draw_.deal(rng, out.row(t));
  }
  std::vector<Known> known() const override {
    std::vector<Known> out = known_load(draw_.share(), shape_);
    double same = 0;
    double overlap = 0;
    for (const double q : draw_.share()) {
      same += q * q;
      overlap += q * q * shape_.k;
    }
    out.push_back(known_rate("repeat_first", {}, same, double(shape_.tokens)));
    out.push_back(known_rate("lag_overlap", {0}, overlap, double(shape_.tokens)));
    return out;
  }

 private:
  SynthShape shape_;
  Weighted draw_;
};

class Rotate final : public Pattern {
 public:
  Rotate(const SynthShape& s, int experts, double share, int period)
      : shape_(s), count_(experts), period_(period) {
    check_share(share, experts, s);
    for (int first = 0; first < s.experts; first += experts)
      turn_.emplace_back(hot_shares(s.experts, first, experts, share), s.k);
  }
  void draw(const SynthRun& run, Rng& rng, Matrix<int>& out) const override {
    for (Index t = 0; t < run.rows; ++t)
      turn_of(run.first + std::uint64_t(t)).deal(rng, out.row(t));
  }
  std::vector<Known> known() const override {
    SynthShape one = shape_;  // a step
    one.tokens = std::min<std::uint64_t>(shape_.tokens, std::uint64_t(shape_.step));
    std::vector<Known> out;
    for (Known k : known_load(turn_[0].share(), one)) {
      if (k.id == "load_cv") {
        k.id = "load_cv_batch";
        out.push_back(k);
      }
    }
    std::vector<double> mean(std::size_t(shape_.experts), 0);
    for (std::uint64_t t = 0; t < shape_.tokens; t += std::uint64_t(shape_.step)) {
      const double part =
          double(std::min<std::uint64_t>(std::uint64_t(shape_.step), shape_.tokens - t)) /
          double(shape_.tokens);
      for (std::size_t e = 0; e < mean.size(); ++e)
        mean[e] += part * turn_of(t).share()[e];
    }
    for (const std::size_t e : {std::size_t{0}, std::size_t(count_) % mean.size()}) {
      out.push_back({"load_fraction",
                     {Index(e)},
                     mean[e],
                     std::sqrt(mean[e] / (double(shape_.tokens) * shape_.k))});
    }
    return out;
  }

 private:
  const Weighted& turn_of(std::uint64_t row) const {
    return turn_[row / std::uint64_t(shape_.step) / std::uint64_t(period_) % turn_.size()];
  }
  SynthShape shape_;
  int count_, period_;
  std::vector<Weighted> turn_;
};

class Burst final : public Pattern {
 public:
  Burst(const SynthShape& s, int expert, double share, int every)
      : shape_(s), expert_(expert), every_(every), draw_(shares(s, expert, share), s.k) {}
  void draw(const SynthRun& run, Rng& rng, Matrix<int>& out) const override {
    Deck deck(0, shape_.experts);
    for (Index t = 0; t < run.rows; ++t) {
      bursts(run.first + std::uint64_t(t)) ? draw_.deal(rng, out.row(t))
                                           : deck.deal(rng, out.row(t));
    }
  }
  std::vector<Known> known() const override {
    double hot = 0;
    for (std::uint64_t t = 0; t < shape_.tokens; t += std::uint64_t(shape_.step)) {
      if (bursts(t)) {
        hot += double(std::min<std::uint64_t>(std::uint64_t(shape_.step), shape_.tokens - t)) /
               double(shape_.tokens);
      }
    }
    const double mean = hot * draw_.share()[expert_] + (1 - hot) / shape_.experts;
    return {{"load_fraction",
             {Index(expert_)},
             mean,
             std::sqrt(mean / (double(shape_.tokens) * shape_.k))}};
  }

 private:
  static std::vector<double> shares(const SynthShape& s, int expert, double share) {
    if (expert >= s.experts)
      throw Error(Exit::usage, concat("expert ", expert, " of ", s.experts));
    check_share(share / s.k, 1, s);
    return hot_shares(s.experts, expert, 1, share / s.k);
  }
  bool bursts(std::uint64_t row) const {
    return row / std::uint64_t(shape_.step) % std::uint64_t(every_) == 0;
  }
  SynthShape shape_;
  int expert_, every_;
  Weighted draw_;
};

class Domains final : public Pattern {
 public:
  Domains(const SynthShape& s, double leak) : shape_(s), leak_(leak) {
    if (s.domains < 2) {
      throw Error(
          Exit::usage,
          concat("the pattern 'domains' needs at least two domains, and there are ", s.domains))
          .hint("--domains 4");
    }
    if (s.experts % s.domains || s.experts / s.domains < s.k) {
      throw Error(Exit::usage, concat(s.experts, " experts do not divide among ", s.domains,
                                      " domains so that each owns at least ", s.k))
          .hint("E a multiple of the domains, and E/domains >= K");
    }
    if (leak > 1)
      throw Error(Exit::usage, concat("leak=", leak, " is no probability"));
  }
  void draw(const SynthRun& run, Rng& rng, Matrix<int>& out) const override {
    const int own = shape_.experts / shape_.domains;
    Deck all(0, shape_.experts);
    Deck mine(run.domain * own, own);
    for (Index t = 0; t < run.rows; ++t)
      (rng.uniform() < leak_ ? all : mine).deal(rng, out.row(t));
  }
  std::vector<Known> known() const override {
    const double e = shape_.experts;
    const double d = shape_.domains;
    const double k = shape_.k;
    const double t = double(shape_.tokens);
    const double own = (1 - leak_) * d / e + leak_ / e;
    const double other = leak_ / e;  // shares of one expert
    const double mi = e / d * own * std::log2(own * e) +
                      (other > 0 ? (e - e / d) * other * std::log2(other * e) : 0);
    // domains whose sizes differ by a sequence shift the mean a little
    const double noise = 3 / std::sqrt(t) + (d - 1) * (e - k) / (2 * t * k * std::log(2.0)) +
                         2 * d * double(shape_.sequence) / t;
    return {{"domain_expert_mi_bits", {}, mi, noise},
            known_rate("domain_hit_rate", {0, 0}, k * own, t / d),
            known_rate("domain_hit_rate", {0, shape_.experts - 1}, k * other, t / d),
            {"domain_tv", {0, 1}, 1 - leak_, std::sqrt(e * d / (t * k))},
            {"domain_max_lift",
             {},
             d * (1 - leak_) + leak_,
             d * 4 * std::sqrt(e / (t * k)) + 2 * d * d * double(shape_.sequence) / t}};
  }

 private:
  SynthShape shape_;
  double leak_;
};

}  // namespace

std::unique_ptr<Pattern> make_zipf_pattern(Spec& spec, const SynthShape& s) {
  const double power = spec.get("s", 1.0, 0.0);
  std::vector<double> w;
  for (int e = 0; e < s.experts; ++e)
    w.push_back(std::pow(e + 1.0, -power));
  return std::make_unique<Fixed>(s, capped(w, s.k));
}
std::unique_ptr<Pattern> make_hot_pattern(Spec& spec, const SynthShape& s) {
  const int n = spec.get("experts", std::max(1, std::min(s.k, s.experts - s.k)), 1);
  const double share = spec.get("share", std::min(0.5, 0.8 * n / s.k), 0.0);
  check_share(share, n, s);
  return std::make_unique<Fixed>(s, hot_shares(s.experts, 0, n, share));
}
std::unique_ptr<Pattern> make_rotate_pattern(Spec& spec, const SynthShape& s) {
  const int n = spec.get("experts", std::max(1, std::min(s.k, s.experts - s.k)), 1);
  const double share = spec.get("share", std::min(0.5, 0.8 * n / s.k), 0.0);
  return std::make_unique<Rotate>(s, n, share, spec.get("period", 1, 1));
}
std::unique_ptr<Pattern> make_burst_pattern(Spec& spec, const SynthShape& s) {
  const int expert = spec.get("expert", 0, 0);
  const double share = spec.get("share", 0.9, 0.0);
  return std::make_unique<Burst>(s, expert, share, spec.get("every", 8, 1));
}
std::unique_ptr<Pattern> make_domains_pattern(Spec& spec, const SynthShape& s) {
  return std::make_unique<Domains>(s, spec.get("leak", 0.1, 0.0));
}

}  // namespace moe
