#include "lib/router/capacity.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "lib/core/error.h"
#include "lib/core/rng.h"
#include "lib/core/spec.h"
#include "lib/router/reroutes.h"
#include "lib/router/router.h"

namespace moe {

Index capacity_of(Index valid_tokens, int k, int experts, double factor, Index least) {
  return std::max(least, Index(std::ceil(double(valid_tokens) * k * factor / experts - 1e-9)));
}

namespace {

class Unlimited final : public Capacity {
 public:
  void apply(Routing&, const RouterInput&, const Router&) const override {}
  Matrix<double> backward(const Routing& r, const Matrix<double>& dcombine) const override {
    if (r.kept.empty())
      return dcombine;
    Matrix<double> d = dcombine;  // a router may have removed choices itself
    for (Index i = 0; i < d.size(); ++i) {
      if (r.kept.data()[i] < 0)
        d.data()[i] = 0;
    }
    return d;
  }
};

// A slot's weight with the expert that computes it, before renormalisation.
double raw(const Routing& r, Index t, Index j) {
  return r.moved.empty() ? r.weight(t, j) : r.moved(t, j);
}

struct Sums {  // of one token's weights: chosen (A), kept (B)
  double chosen = 0, kept = 0;
};
Sums sums_of(const Routing& r, Index t) {
  Sums s;
  for (Index j = 0; j < r.choices(); ++j) {
    s.chosen += r.weight(t, j);
    if (r.kept(t, j) >= 0)
      s.kept += raw(r, t, j);
  }
  return s;
}

// Room of every expert, and which of several rooms a token asks for: one for each sequence, or one
// for all.
struct Rooms {
  std::vector<std::vector<Index>> left;  // (groups)(E)
  std::vector<std::uint32_t> of;         // (T) group; empty = all are of the first
};

// Drops what does not fit; the order in which slots ask for room is the rule.
class Dropping : public Capacity {
 public:
  explicit Dropping(Spec& spec)
      : renormalize_(spec.choice("weights", {"keep", "renormalize"}) == "renormalize"),
        identity_(spec.choice("output", {"zero", "identity"}) == "identity") {}
  bool limits() const override {
    return true;
  }
  bool identity_output() const override {
    return identity_;
  }

  void apply(Routing& r, const RouterInput& in, const Router& router) const override {
    if (r.kept.empty())
      r.kept = r.expert;
    Rooms rooms = rooms_for(r, in, router.experts());
    std::vector<Index> full;  // slots that found no room, in the order in which they asked
    for (const Index i : order(r, in)) {
      int& e = r.kept.data()[i];
      if (e < 0)
        continue;
      const std::size_t group =
          rooms.of.empty() ? 0 : rooms.of[std::size_t(i / std::max<Index>(1, r.choices()))];
      Index& left = rooms.left[group][e];
      if (left > 0) {
        --left;
      } else {
        e = -1;
        full.push_back(i);
      }
    }
    overflow(r, router, full, rooms.left[0]);
    weigh(r);
  }
  Matrix<double> backward(const Routing& r, const Matrix<double>& dcombine) const override {
    const Index k = r.choices();
    Matrix<double> d(r.tokens(), r.moved.empty() ? k : 2 * k);
    for (Index t = 0; t < r.tokens(); ++t) {
      const Sums s = sums_of(r, t);
      double q = 0;  // sum over kept slots of g w
      for (Index j = 0; j < k; ++j) {
        if (r.kept(t, j) >= 0)
          q += dcombine(t, j) * raw(r, t, j);
      }
      for (Index j = 0; j < k; ++j) {
        if (r.expert(t, j) < 0)
          continue;
        double g = r.kept(t, j) >= 0 ? dcombine(t, j) : 0;
        if (renormalize_) {
          g = s.kept > 0 && r.kept(t, j) >= 0
                  ? g * s.chosen / s.kept - q * s.chosen / (s.kept * s.kept)
                  : 0;
        }
        d(t, r.kept(t, j) >= 0 && r.kept(t, j) != r.expert(t, j) ? k + j : j) = g;
        // the sum of the original choices counts every one of them
        if (renormalize_ && s.kept > 0)
          d(t, j) += q / s.kept;
      }
    }
    return d;
  }

 protected:
  virtual Rooms rooms_for(const Routing&, const RouterInput&, int experts) const = 0;
  // slots t*K + j in the order in which they ask for room
  virtual std::vector<Index> order(const Routing&, const RouterInput&) const = 0;
  virtual void overflow(Routing&, const Router&, const std::vector<Index>& /*slots*/,
                        std::vector<Index>& /*room*/) const {}

 private:
  void weigh(Routing& r) const {
    r.combine = r.weight;
    for (Index t = 0; t < r.tokens(); ++t) {
      const Sums s = sums_of(r, t);
      for (Index j = 0; j < r.choices(); ++j) {
        if (r.kept(t, j) < 0) {
          r.combine(t, j) = 0;
        } else {
          r.combine(t, j) = !renormalize_ ? raw(r, t, j)
                            : s.kept > 0  ? raw(r, t, j) * s.chosen / s.kept
                                          : 0;
        }
      }
    }
  }
  bool renormalize_, identity_;
};

std::vector<Index> by_position(const Routing& r) {
  std::vector<Index> slots;
  slots.reserve(std::size_t(r.expert.size()));
  for (Index j = 0; j < r.choices(); ++j) {
    for (Index t = 0; t < r.tokens(); ++t)
      slots.push_back(t * r.choices() + j);
  }
  return slots;
}

// Room in proportion to the tokens of the batch.
class Limited : public Dropping {
 public:
  explicit Limited(Spec& spec) : Limited(spec, spec.get("factor", 1.25, 0.0)) {}
  double factor() const override {
    return factor_;
  }
  void share_out(std::vector<double> share) override {
    share_ = std::move(share);
  }
  std::vector<Index> room_of(Index valid, int k, int experts) const override {
    if (share_.empty()) {
      return std::vector<Index>(std::size_t(experts),
                                capacity_of(valid, k, experts, factor_, least_));
    }
    const double all = std::accumulate(share_.begin(), share_.end(), 0.0);
    std::vector<Index> room;
    for (const double s : share_) {
      room.push_back(
          std::max<Index>(least_, Index(std::ceil(double(valid) * k * factor_ * s / all - 1e-9))));
    }
    return room;
  }

 protected:
  Rooms rooms_for(const Routing& r, const RouterInput& in, int experts) const override {
    Index valid = 0;
    for (Index t = 0; t < r.tokens(); ++t)
      valid += in.batch.is_valid(t);
    return {{room_of(valid, int(r.choices()), experts)}, {}};
  }

 private:
  // options in the order in which a resolved spec lists them
  Limited(Spec& spec, double factor) : Limited(spec, factor, spec.get("min", 0, 0)) {}
  Limited(Spec& spec, double factor, int least) : Dropping(spec), factor_(factor), least_(least) {
    if (factor_ == 0) {
      throw Error(Exit::usage, concat(spec.name(), ": factor=0 leaves no room"))
          .hint("--capacity none for no limit");
    }
  }
  std::vector<double> share_;  // (E) or empty
  double factor_;
  int least_;
};

class Position : public Limited {
 public:
  using Limited::Limited;

 protected:
  std::vector<Index> order(const Routing& r, const RouterInput&) const override {
    return by_position(r);
  }
};

class Prob final : public Limited {
 public:
  using Limited::Limited;

 protected:
  std::vector<Index> order(const Routing& r, const RouterInput&) const override {
    std::vector<Index> slots(std::size_t(r.expert.size()));
    std::iota(slots.begin(), slots.end(), Index{0});  // equal weights: the lower token first
    std::ranges::stable_sort(
        slots, [&](Index a, Index b) { return r.weight.data()[a] > r.weight.data()[b]; });
    return slots;
  }
};

class Random final : public Limited {
 public:
  using Limited::Limited;

 protected:
  std::vector<Index> order(const Routing& r, const RouterInput& in) const override {
    std::vector<double> drawn(std::size_t(r.expert.size()));
    Rng same(0);  // evaluation may come without a generator: then the same numbers every time
    Rng& rng = in.rng ? *in.rng : same;
    if (in.given && !in.given->drop.empty())
      std::ranges::copy(in.given->drop.flat(), drawn.begin());
    else
      std::ranges::generate(drawn, [&] { return rng.uniform(); });
    std::vector<Index> slots(drawn.size());
    std::iota(slots.begin(), slots.end(), Index{0});
    std::ranges::stable_sort(slots, [&](Index a, Index b) { return drawn[a] > drawn[b]; });
    return slots;
  }
};

// `position`, and then every slot without room goes to the best expert that has some and that its
// token does not hold. The second pass is apart, so that a slot that moved takes no room from one
// that chose.
class Reroute final : public Position {
 public:
  using Position::Position;
  bool reroutes() const override {
    return true;
  }

 protected:
  void overflow(Routing& r, const Router& router, const std::vector<Index>& slots,
                std::vector<Index>& room) const override {
    const Reroutes& ranking = *capability<Reroutes>(router);  // the layer refuses others
    r.moved = r.weight;
    std::vector<double> key(room.size());
    for (const Index i : slots) {
      const Index t = i / r.choices();
      const Index j = i % r.choices();
      ranking.rank(r, t, key);
      int best = -1;
      for (int e = 0; e < router.experts(); ++e) {
        const bool held =
            std::ranges::find(r.kept.row(t), e) != r.kept.row(t).end() || r.expert(t, j) == e;
        if (room[e] <= 0 || held || key[e] == -std::numeric_limits<double>::infinity()) {
          continue;
        }
        if (best < 0 || key[e] > key[best])
          best = e;
      }
      if (best < 0)
        continue;
      r.kept(t, j) = best;
      r.moved(t, j) = ranking.weight_of(r, t, best);
      --room[best];
    }
  }
};

// A stated number of places an expert, in each sequence (Switch in transformers) or in the batch,
// where a share of all its rows may stand in its place outside of training (NLLB-MoE); tokens=0: k
// times an even share of the rows, rounded up (the same, where its class states no number).
class Count final : public Dropping {
 public:
  explicit Count(Spec& spec)
      : Count{spec, spec.get("tokens", 64, 0),
              spec.choice("scope", {"sequence", "batch"}) == "sequence",
              spec.choice("order", {"position", "prob"}) == "prob",
              spec.get("eval_fraction", 0.0, 0.0)} {}
  Index places() const override {
    return tokens_;
  }
  bool by_sequence() const override {
    return by_sequence_;
  }

 protected:
  Rooms rooms_for(const Routing& r, const RouterInput& in, int experts) const override {
    const std::size_t groups =
        by_sequence_ ? std::max<std::size_t>(1, std::size_t(in.batch.sequences())) : 1;
    Rooms out{{groups, std::vector<Index>(std::size_t(experts), room(r, in, experts))}, {}};
    for (std::size_t q = 0; by_sequence_ && q + 1 < in.batch.start.size(); ++q) {
      const Index rows = in.batch.start[q + 1] - in.batch.start[q];
      out.of.insert(out.of.end(), std::size_t(rows), std::uint32_t(q));
    }
    return out;
  }
  // All first choices before all second ones; of either the tokens as they stand, or those first
  // whose router was surest.
  std::vector<Index> order(const Routing& r, const RouterInput&) const override {
    if (!by_prob_)
      return by_position(r);
    std::vector<Index> token(std::size_t(r.tokens()));
    std::iota(token.begin(), token.end(), Index{0});
    std::vector<double> best;
    for (Index t = 0; t < r.tokens(); ++t)
      best.push_back(std::ranges::max(r.score.row(t)));
    std::ranges::stable_sort(
        token, [&](Index a, Index b) { return best[std::size_t(a)] > best[std::size_t(b)]; });
    std::vector<Index> slots;
    for (Index j = 0; j < r.choices(); ++j) {
      for (const Index t : token)
        slots.push_back(t * r.choices() + j);
    }
    return slots;
  }
  bool needs_scores() const override {
    return by_prob_;
  }

 private:
  Index room(const Routing& r, const RouterInput& in, int experts) const {
    if (!in.training && eval_fraction_ > 0)
      return Index(std::ceil(eval_fraction_ * double(r.tokens())));
    return tokens_ > 0 ? Index(tokens_) : r.choices() * ((r.tokens() + experts - 1) / experts);
  }
  Count(Spec& spec, int tokens, bool by_sequence, bool by_prob, double eval_fraction)
      : Dropping(spec),
        tokens_(tokens),
        by_sequence_(by_sequence),
        by_prob_(by_prob),
        eval_fraction_(eval_fraction) {}
  int tokens_;
  bool by_sequence_, by_prob_;
  double eval_fraction_;
};

}  // namespace

std::unique_ptr<Capacity> make_count_capacity(Spec& spec) {
  return std::make_unique<Count>(spec);
}
std::unique_ptr<Capacity> make_random_capacity(Spec& spec) {
  return std::make_unique<Random>(spec);
}
std::unique_ptr<Capacity> make_reroute_capacity(Spec& spec) {
  return std::make_unique<Reroute>(spec);
}
std::unique_ptr<Capacity> make_none_capacity(Spec&) {
  return std::make_unique<Unlimited>();
}
std::unique_ptr<Capacity> make_position_capacity(Spec& spec) {
  return std::make_unique<Position>(spec);
}
std::unique_ptr<Capacity> make_prob_capacity(Spec& spec) {
  return std::make_unique<Prob>(spec);
}

const Registry<MakeCapacity>& capacities() {
  static const Registry<MakeCapacity> all("capacity rule", {
#define CAPACITY(name, about, examples) {#name, about, examples, make_##name##_capacity},
#include "lib/router/capacities.def"
#undef CAPACITY
                                                           });
  return all;
}

std::unique_ptr<Capacity> make_capacity(const std::string& text, std::string& resolved) {
  Spec spec(text);
  auto made = capacities().at(spec.name()).make(spec);
  spec.done();
  resolved = spec.resolved();
  return made;
}
std::unique_ptr<Capacity> make_capacity(const std::string& text) {
  std::string resolved;
  return make_capacity(text, resolved);
}

}  // namespace moe
