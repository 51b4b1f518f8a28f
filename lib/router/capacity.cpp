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

// Drops what does not fit; the order in which slots ask for room is the rule.
class Limited : public Capacity {
 public:
  explicit Limited(Spec& spec)
      : factor_(spec.get("factor", 1.25, 0.0)),
        least_(spec.get("min", 0, 0)),
        renormalize_(spec.choice("weights", {"keep", "renormalize"}) == "renormalize"),
        identity_(spec.choice("output", {"zero", "identity"}) == "identity") {
    if (factor_ == 0) {
      throw Error(Exit::usage, concat(spec.name(), ": factor=0 leaves no room"))
          .hint("--capacity none for no limit");
    }
  }
  double factor() const override {
    return factor_;
  }
  bool identity_output() const override {
    return identity_;
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

  void apply(Routing& r, const RouterInput& in, const Router& router) const override {
    const int experts = router.experts();
    if (r.kept.empty())
      r.kept = r.expert;
    Index valid = 0;
    for (Index t = 0; t < r.tokens(); ++t)
      valid += in.batch.is_valid(t);
    std::vector<Index> room = room_of(valid, int(r.choices()), experts);
    std::vector<Index> full;  // slots that found no room, in the order in which they asked
    for (const Index i : order(r, in)) {
      int& e = r.kept.data()[i];
      if (e < 0)
        continue;
      if (room[e] > 0) {
        --room[e];
      } else {
        e = -1;
        full.push_back(i);
      }
    }
    overflow(r, router, full, room);
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
  std::vector<double> share_;  // (E) or empty
  double factor_;
  int least_;
  bool renormalize_, identity_;
};

class Position : public Limited {
 public:
  using Limited::Limited;

 protected:
  std::vector<Index> order(const Routing& r, const RouterInput&) const override {
    std::vector<Index> slots;
    slots.reserve(std::size_t(r.expert.size()));
    for (Index j = 0; j < r.choices(); ++j) {
      for (Index t = 0; t < r.tokens(); ++t)
        slots.push_back(t * r.choices() + j);
    }
    return slots;
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

}  // namespace

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
