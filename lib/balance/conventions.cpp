#include "lib/balance/conventions.h"

#include <algorithm>
#include <functional>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/router/scores.h"

namespace moe {
namespace {

using Rows = Matrix<double>;
using Score = std::function<void(std::span<const double> z, std::span<const int> chosen,
                                 std::span<double> p)>;

void plain(std::span<const double> z, std::span<const int>, std::span<double> p) {
  softmax_row(z, p);
}
void twice(std::span<const double> z, std::span<const int>, std::span<double> p) {
  std::vector<double> once(z.size());
  softmax_row(z, once);
  softmax_row(once, p);
}
void among_chosen(std::span<const double> z, std::span<const int> chosen, std::span<double> p) {
  std::vector<double> some;
  std::vector<double> share(chosen.size());
  for (const int e : chosen)
    some.push_back(z[e]);
  softmax_row(some, share);
  std::ranges::fill(p, 0.0);
  for (std::size_t j = 0; j < chosen.size(); ++j)
    p[chosen[j]] = share[j];
}
void sigmoid_share(std::span<const double> z, std::span<const int>, std::span<double> p) {
  sigmoid_row(z, p);
  double sum = norm_eps;
  for (const double v : p)
    sum += v;
  for (double& v : p)
    v /= sum;
}

// Sums over some rows: choices and probabilities of each expert.
struct Sums {
  std::vector<double> n, p;
  double rows = 0, slots = 0;
  double switch_loss() const {  // E sum_e (n_e / sum n) (mean p_e)
    double sum = 0;
    for (std::size_t e = 0; e < n.size(); ++e)
      sum += n[e] * p[e];
    return rows > 0 ? double(n.size()) * sum / (slots * rows) : 0;
  }
};

class Measured {
 public:
  explicit Measured(const RoutedBatch& b) : b_(b) {
    for (const Rows& z : b.logits) {
      Matrix<int> ids(z.rows(), b.k);
      for (Index t = 0; t < z.rows(); ++t)
        best_of(z.row(t), ids.row(t));
      chosen_.push_back(std::move(ids));
    }
  }
  std::size_t layers() const {
    return chosen_.size();
  }
  Index tokens() const {
    return chosen_[0].rows();
  }
  void add(Sums& s, std::size_t l, Index first, Index last, Index counted,
           const Score& score) const {
    const std::size_t experts = std::size_t(b_.logits[l].cols());
    s.n.resize(experts, 0.0);
    s.p.resize(experts, 0.0);
    std::vector<double> p(experts);
    for (Index t = first; t < last; ++t) {
      score(b_.logits[l].row(t), chosen_[l].row(t), p);
      for (std::size_t e = 0; e < experts; ++e)
        s.p[e] += p[e];
      for (Index j = 0; j < counted; ++j)
        s.n[chosen_[l](t, j)] += 1;
    }
    s.rows += double(last - first);
    s.slots += double((last - first) * counted);
  }
  // Summed over layers; in each layer over the batch at once.
  double batch(Index counted, const Score& score) const {
    double sum = 0;
    for (std::size_t l = 0; l < layers(); ++l) {
      Sums s;
      add(s, l, 0, tokens(), counted, score);
      sum += s.switch_loss();
    }
    return sum;
  }
  // Summed over layers; in each layer the mean over sequences, equal (or by their tokens).
  double sequences(Index counted, const Score& score, bool by_tokens) const {
    double sum = 0;
    double weights = 0;
    for (std::size_t q = 0; q + 1 < b_.start.size(); ++q)
      weights += b_.start[q + 1] > b_.start[q] ? weight(q, by_tokens) : 0;
    for (std::size_t l = 0; l < layers(); ++l) {
      for (std::size_t q = 0; q + 1 < b_.start.size(); ++q) {
        Sums s;
        add(s, l, b_.start[q], b_.start[q + 1], counted, score);
        sum += s.rows > 0 ? s.switch_loss() * weight(q, by_tokens) / weights : 0;
      }
    }
    return sum;
  }
  double stacked(const Score& score) const {
    Sums s;
    for (std::size_t l = 0; l < layers(); ++l)
      add(s, l, 0, tokens(), b_.k, score);
    return double(b_.k) * s.switch_loss();
  }

 private:
  double weight(std::size_t q, bool by_tokens) const {
    return by_tokens ? double(b_.start[q + 1] - b_.start[q]) : 1;
  }
  const RoutedBatch& b_;
  std::vector<Matrix<int>> chosen_;
};

void check(const RoutedBatch& b) {
  if (b.logits.empty() || b.logits[0].rows() == 0)
    throw Error(Exit::usage, "a balance loss needs at least one layer and one token");
  for (const Rows& z : b.logits) {
    if (z.rows() != b.logits[0].rows() || z.cols() != b.logits[0].cols()) {
      throw Error(Exit::usage,
                  "the layers have different numbers of tokens or experts, and losses over all of "
                  "them are not defined");
    }
  }
  if (b.k < 1 || b.k > b.logits[0].cols()) {
    throw Error(Exit::usage,
                concat("k=", b.k, " is not between 1 and the ", b.logits[0].cols(), " experts"));
  }
  if (b.start.empty() || b.start.front() != 0 || b.start.back() != b.logits[0].rows() ||
      !std::ranges::is_sorted(b.start)) {
    throw Error(Exit::bug, "the sequences of a batch do not cover its tokens");
  }
}

}  // namespace

std::vector<Convention> balance_conventions(const RoutedBatch& b) {
  check(b);
  const Measured m(b);
  const Index all = b.k;
  const double layers = double(m.layers());
  const double k = b.k;
  const double experts = double(b.logits[0].cols());
  const double ours = m.batch(all, plain);
  const double first = m.batch(1, plain);
  return {
      {"switch, layers added", "moe switch; Megatron aux_loss; DeepSpeed top-k; SonicMoE",
       "sum_l E sum_e (n/kT) P", ours, layers},
      {"switch, mean of layers", "moe switch:layers=mean; MegaBlocks; OLMoE; OLMo-core local_batch",
       "mean_l E sum_e (n/kT) P", ours / layers, 1},
      {"first choices",
       "moe switch:counts=top1; Switch; DeepSpeed top-1 and top-2; Tutel gshard_loss; FastMoE on "
       "one worker",
       "sum_l E sum_e (n1/T) P", first, layers},
      {"GShard, the paper's scale", "GShard l_aux", "sum_l (1/E) sum_e (n1/T) P",
       first / (experts * experts), layers / (experts * experts)},
      {"each sequence", "moe switch:scope=sequence; Megatron seq_aux_loss",
       "sum_l mean_q E sum_e (n/kT) P in q", m.sequences(all, plain, false), layers},
      {"each sequence by length", "OLMo-core instance",
       "mean_l sum_q (T_q/T) E sum_e (n/kT_q) P in q", m.sequences(all, plain, true) / layers, 1},
      {"first choices of each sequence", "st-moe-pytorch", "sum_l mean_q E sum_e (n1/T) P in q",
       m.sequences(1, plain, false), layers},
      {"sigmoid, each sequence",
       "DeepSeek-V3: moe sigmoid with switch:scope=sequence,counts=unbiased",
       "the same, P of s/sum s, s = sigmoid(z)", m.sequences(all, sigmoid_share, false), layers},
      {"layers stacked", "moe concat; transformers load_balancing_loss_func",
       "E sum_e (n/LT) P, all layers in one", m.stacked(plain), k},
      {"layers stacked, softmax twice",
       "transformers where the router already returns probabilities",
       "the same, P of softmax(softmax(z))", m.stacked(twice), k},
      {"not divided by k", "dynamic MoE (top-p paper)", "sum_l E sum_e (n/T) P", ours * k,
       layers * k},
      {"softmax over the chosen", "nanoMoE",
       "sum_l E sum_e (n/T) P, P of a softmax over the k only", m.batch(all, among_chosen) * k,
       layers * k},
  };
}

}  // namespace moe
