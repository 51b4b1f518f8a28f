// `clusters`: planted labels. The vocabulary is dealt out to clusters; a Markov chain stays in a
// cluster with probability `stay` and otherwise moves to another one. Inside a cluster every token
// has a few favourite successors, which a model can learn, and the cluster of each token is known,
// so that specialization can be scored against it.
#include <array>
#include <map>

#include "datasets/generated.h"
#include "lib/core/error.h"
#include "lib/core/shuffle.h"

namespace moe {
namespace {

constexpr int kFavourites = 3;
// of the steps inside a cluster go to a favourite, the rest anywhere in the cluster
constexpr double kFavoured = 0.8;

class Clusters final : public Generated {
 public:
  explicit Clusters(Spec& spec) {
    clusters_ = spec.get("clusters", 8, 1);
    const int vocabulary = spec.get("vocabulary", 256, 1);
    stay_ = spec.get("stay", 0.95, 0.0);
    const int seed = spec.get("seed", 0);
    if (clusters_ > vocabulary) {
      throw Error(Exit::usage,
                  concat("clusters: clusters=", clusters_, " is more than vocabulary=", vocabulary))
          .hint("a cluster needs a token");
    }
    if (!(stay_ <= 1)) {
      throw Error(Exit::usage, concat("clusters: stay=", stay_, " is a probability, at most 1"))
          .hint("stay=1 keeps a sequence in one cluster");
    }
    open(spec, vocabulary);
    plant(vocabulary, Rng(std::uint64_t(seed)).stream(0x706c616e74));
    info_.notes.push_back(concat("clusters: entropy ", number_text(float(entropy())),
                                 " nats a token, the loss of a perfect model"));
    fill(std::uint64_t(seed));
  }

  std::vector<int> planted_labels(const TokenIds& token) const override {
    std::vector<int> out(token.size(), -1);  // -1: no token of ours
    for (std::size_t i = 0; i < token.size(); ++i) {
      if (token[i] >= 0 && token[i] < int(cluster_.size()))
        out[i] = cluster_[token[i]];
    }
    return out;
  }

 private:
  void plant(int vocabulary, Rng rng) {
    std::vector<int> deck(std::size_t(vocabulary), 0);
    std::iota(deck.begin(), deck.end(), 0);
    shuffle(deck, rng);
    cluster_.resize(deck.size());
    members_.resize(std::size_t(clusters_));
    for (std::size_t i = 0; i < deck.size(); ++i) {
      cluster_[deck[i]] = int(i % std::size_t(clusters_));
      members_[i % std::size_t(clusters_)].push_back(deck[i]);
    }
    for (const int c : cluster_) {
      std::array<int, kFavourites> chosen{};
      for (int& f : chosen)
        f = any_of(c, rng);
      favourite_.push_back(chosen);
    }
  }

  // Probability of a step from token i to any one token of its cluster that is no favourite.
  double plain(std::size_t i) const {
    const double inside = stay_ * (1 - kFavoured) + (clusters_ == 1 ? 1 - stay_ : 0);
    return inside / double(members_[cluster_[i]].size());
  }

  // How often each token comes: power iteration, which converges as (stay * kFavoured)^n.
  std::vector<double> frequencies() const {
    std::vector<double> now(cluster_.size(), 1 / double(cluster_.size()));
    for (int n = 0; n < 200; ++n) {
      std::vector<double> next(now.size());
      for (std::size_t i = 0; i < now.size(); ++i) {
        next[i] += (1 - stay_ * kFavoured) / (clusters_ * double(members_[cluster_[i]].size()));
        for (const int f : favourite_[i])
          next[f] += now[i] * stay_ * kFavoured / kFavourites;
      }
      now = std::move(next);
    }
    return now;
  }

  // Of the chain, in nats a token: what cannot be foreseen of the next token, given this one.
  double entropy() const {
    const auto term = [](double p) {
      return p > 0 ? -p * std::log(p) : 0.0;
    };
    const auto often = frequencies();
    double sum = 0;
    for (std::size_t i = 0; i < often.size(); ++i) {
      std::map<int, double> favoured;
      for (const int f : favourite_[i])
        favoured[f] += stay_ * kFavoured / kFavourites;
      const auto& own = members_[cluster_[i]];
      double row = double(own.size() - favoured.size()) * term(plain(i));
      for (const auto& [id, p] : favoured)
        row += term(p + plain(i));
      for (int c = 0; c < clusters_; ++c) {
        const double size = double(members_[c].size());
        if (c != cluster_[i])
          row += size * term((1 - stay_) / (clusters_ - 1) / size);
      }
      sum += often[i] * row;
    }
    return sum;
  }

  int any_of(int cluster, Rng& rng) const {
    const auto& members = members_[cluster];
    return members[rng.below(Index(members.size()))];
  }
  int other_than(int cluster, Rng& rng) const {
    return clusters_ == 1 ? cluster : int((cluster + 1 + rng.below(clusters_ - 1)) % clusters_);
  }

  std::vector<int> generate(Split, Index count, Rng& rng) const override {
    std::vector<int> ids;
    for (int id = any_of(int(rng.below(clusters_)), rng); Index(ids.size()) < count;) {
      ids.push_back(id);
      const int cluster = cluster_[id];
      if (rng.uniform() >= stay_)
        id = any_of(other_than(cluster, rng), rng);
      else if (rng.uniform() < kFavoured)
        id = favourite_[id][rng.below(kFavourites)];
      else
        id = any_of(cluster, rng);
    }
    return ids;
  }

  int clusters_ = 8;
  double stay_ = 0.95;
  std::vector<int> cluster_;                             // (V)
  std::vector<std::vector<int>> members_;                // (clusters) their tokens
  std::vector<std::array<int, kFavourites>> favourite_;  // (V)
};

}  // namespace

std::unique_ptr<Dataset> make_clusters_dataset(Spec& spec, const Tokenizer&) {
  return std::make_unique<Clusters>(spec);
}

}  // namespace moe
