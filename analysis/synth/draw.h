// Drawing K different experts: all subsets alike, or with a given chance for each expert; and what
// the load metrics give for it.
#pragma once
#include "analysis/synth/synth.h"

namespace moe {

class Deck {  // K of the ids first..first+count, every subset and order alike
 public:
  Deck(int first, int count);
  void deal(Rng&, std::span<int> out);

 private:
  std::vector<int> ids_;
};

// Expert e is among the K with probability share[e]*K, exactly, and first with share[e]: systematic
// sampling (Madow 1949) of the experts in an order drawn for each token (Hartley and Rao 1962), so
// that experts come together nearly as often as independent choices of theirs would. (Of one fixed
// order neighbours hardly ever do, and others many times as often.)
class Weighted {
 public:
  Weighted(std::vector<double> share, int k);  // shares of sum 1, none above 1/K
  void deal(Rng&, std::span<int> out) const;
  const std::vector<double>& share() const {
    return share_;
  }

 private:
  std::vector<double> share_;
  std::vector<double> chance_;  // share*K
};

// `count` from `first` on, round the end
std::vector<double> hot_shares(int experts, int first, int count, double share);
// shares in proportion, none above 1/K
std::vector<double> capped(std::vector<double> weights, int k);

// load_fraction, load_cv, load_entropy, load_jain, load_gini, load_max_over_mean,
// load_topn_coverage, load_dead_fraction of uneven shares.
std::vector<Known> known_load(const std::vector<double>& share, const SynthShape&);
double even_noise(const SynthShape&);  // deviation of one expert's share under even routing
// a proportion
Known known_rate(std::string id, std::vector<Index> at, double p, double observations);
double common(double experts, double k);  // two random K-subsets of E have an expert in common

}  // namespace moe
