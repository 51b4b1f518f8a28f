// Patterns whose experts are all alike, or in blocks that are: uniform, dead, blocks, markov.
#include <cmath>

#include "analysis/synth/draw.h"
#include "lib/core/error.h"

namespace moe {
namespace {

// What holds wherever the tokens are drawn independently of each other and every expert as often.
std::vector<Known> known_even(const SynthShape& s, double keep = 0) {
  const double e = s.experts;
  const double k = s.k;
  const double t = double(s.tokens);
  const double thin = t * (1 - keep) / (1 + keep);
  const double cv = std::sqrt(std::max(0.0, e / k - 1) / thin);
  std::vector<Known> out{{"load_cv", {}, cv, cv / std::sqrt(e)},
                         {"load_fraction", {0}, 1 / e, even_noise(s) * std::sqrt(t / thin)}};
  out.push_back(known_rate("repeat_first", {}, keep + (1 - keep) / e, t));
  for (const Index i : {0, 1, 2, 3}) {  // lags 1, 2, 4, 8
    const double kept = std::pow(keep, double(1 << i));
    out.push_back(known_rate("lag_overlap", {i}, kept + (1 - kept) * k / e, thin));
  }
  return out;
}

// Of what is learned from every second sequence and judged on the others: tokens that are judged.
double judged(const SynthShape& s) {
  return std::min(double(s.tokens) / 2, 65536.0);
}

// Runs of neighbours that hold K of `among` places drawn at random.
Known known_reads(const char* id, double among, const SynthShape& s) {
  const double k = s.k;
  return {id, {}, k * (among - k + 1) / among, std::sqrt(k / judged(s))};
}

class Uniform final : public Pattern {
 public:
  Uniform(const SynthShape& s, int dead) : shape_(s), dead_(dead) {}
  void draw(const SynthRun& run, Rng& rng, Matrix<int>& out) const override {
    Deck deck(0, shape_.experts - dead_);
    for (Index t = 0; t < run.rows; ++t)
      deck.deal(rng, out.row(t));
  }
  std::vector<Known> known() const override {
    const double e = shape_.experts - dead_;
    const double k = shape_.k;
    const double t = double(shape_.tokens);
    std::vector<Known> out;
    if (dead_ == 0) {
      out = known_even(shape_);
      out.push_back(known_reads("disk_reads_in_order", e, shape_));
      out.push_back(known_rate("prefetch_recall_most_used", {0}, k / e, judged(shape_)));
    } else {
      std::vector<double> share(std::size_t(shape_.experts), 0);
      std::fill_n(share.begin(), shape_.experts - dead_, 1 / e);
      out = known_load(share, shape_);
    }
    out.push_back(known_rate("repeat_any", {}, common(e, k), t));
    const double missed = std::pow(1 - k / e, 8);  // in a block of 8 tokens
    out.push_back({"distinct_experts",
                   {0},
                   e * (1 - missed),
                   std::sqrt(e * missed * (1 - missed) / (t / 8))});
    if (e > 1)
      out.push_back(known_rate("coactivation_conditional", {0, 1}, (k - 1) / (e - 1), t * k / e));
    return out;
  }

 private:
  SynthShape shape_;
  int dead_;
};

class Blocks final : public Pattern {
 public:
  Blocks(const SynthShape& s, int size, bool aligned) : shape_(s), size_(size), aligned_(aligned) {
    if (size < s.k || s.experts % size) {
      throw Error(Exit::usage, concat("blocks of ", size, " do not divide ", s.experts,
                                      " experts into blocks that hold ", s.k, " choices"))
          .hint("blocks:size=S with S >= K and E a multiple of S");
    }
  }
  void draw(const SynthRun& run, Rng& rng, Matrix<int>& out) const override {
    // the same in every layer
    Rng shared = Rng(shape_.seed).stream(~std::uint64_t{0}).stream(run.sequence);
    const int blocks = shape_.experts / size_;
    std::vector<Deck> deck;
    for (int b = 0; b < blocks; ++b)
      deck.emplace_back(b * size_, size_);
    for (Index t = 0; t < run.rows; ++t)
      deck[(aligned_ ? shared : rng).below(blocks)].deal(rng, out.row(t));
  }
  std::vector<Known> known() const override {
    const double e = shape_.experts;
    const double k = shape_.k;
    const double s = size_;
    const double t = double(shape_.tokens);
    const double blocks = e / s;
    std::vector<Known> out{known_rate("repeat_first", {}, 1 / e, t),
                           known_rate("repeat_any", {}, common(s, k) / blocks, t)};
    if (s > 1)
      out.push_back(known_rate("coactivation_conditional", {0, 1}, (k - 1) / (s - 1), t * k / e));
    if (blocks > 1) {
      out.push_back({"coactivation_conditional", {0, Index(size_)}, 0, 0});
      out.push_back({"coactivation_npmi", {0, Index(size_)}, -1, 0});
    }
    // an order that was learned puts the experts of a block side by side
    out.push_back(known_reads("disk_reads", s, shape_));
    const double bias = (e - 1) * (e - 1) / (2 * t * std::log(2.0));
    if (shape_.layers > 1)
      out.push_back({"crosslayer_mi_bits", {}, aligned_ ? std::log2(blocks) : 0, bias});
    if (shape_.layers > 1 && aligned_)
      out.push_back({"crosslayer_predictability", {}, 1 / s, 3 * std::sqrt(e / t)});
    return out;
  }

 private:
  SynthShape shape_;
  int size_;
  bool aligned_;
};

class Markov final : public Pattern {
 public:
  Markov(const SynthShape& s, double stay) : shape_(s), stay_(stay) {
    if (stay >= 1)
      throw Error(Exit::usage, concat("stay=", stay, " is no probability below 1"));
  }
  void draw(const SynthRun& run, Rng& rng, Matrix<int>& out) const override {
    Deck deck(0, shape_.experts);
    for (Index t = 0; t < run.rows; ++t) {
      if (t > 0 && rng.uniform() < stay_)
        std::copy_n(out.row(t - 1).begin(), out.cols(), out.row(t).begin());
      else
        deck.deal(rng, out.row(t));
    }
  }
  std::vector<Known> known() const override {
    std::vector<Known> out = known_even(shape_, stay_);
    out.push_back(known_rate("repeat_any", {},
                             stay_ + (1 - stay_) * common(shape_.experts, shape_.k),
                             double(shape_.tokens)));
    // the first token of a sequence has none before it
    const double kept = stay_ * (1 - 1.0 / shape_.sequence);
    out.push_back(known_rate("prefetch_recall_last_token", {0},
                             kept + (1 - kept) * shape_.k / shape_.experts, judged(shape_)));
    return out;
  }

 private:
  SynthShape shape_;
  double stay_;
};

}  // namespace

std::unique_ptr<Pattern> make_uniform_pattern(Spec&, const SynthShape& s) {
  return std::make_unique<Uniform>(s, 0);
}
std::unique_ptr<Pattern> make_dead_pattern(Spec& spec, const SynthShape& s) {
  const int dead = spec.get("count", std::max(0, std::min(4, s.experts - s.k)), 0);
  if (dead > s.experts - s.k) {
    throw Error(Exit::usage, concat(dead, " dead of ", s.experts, " experts leave fewer than the ",
                                    s.k, " that a token takes"));
  }
  return std::make_unique<Uniform>(s, dead);
}
std::unique_ptr<Pattern> make_blocks_pattern(Spec& spec, const SynthShape& s) {
  const int size = spec.get("size", std::max(s.k, std::min(16, s.experts)), 1);
  return std::make_unique<Blocks>(s, size, spec.get("aligned", false));
}
std::unique_ptr<Pattern> make_markov_pattern(Spec& spec, const SynthShape& s) {
  return std::make_unique<Markov>(s, spec.get("stay", 0.6, 0.0));
}

}  // namespace moe
