#include "lib/router/capacity.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "lib/core/error.h"

namespace moe {

Index capacity_of(Index valid_tokens, int k, int experts, double factor, Index least) {
  return std::max(least, Index(std::ceil(double(valid_tokens) * k * factor / experts - 1e-9)));
}

namespace {

class Unlimited final : public Capacity {
 public:
  void apply(Routing&, const RouterInput&, int) const override {}
  Matrix<double> backward(const Routing& r, const Matrix<double>& dcombine) const override {
    if (r.kept.empty()) return dcombine;
    Matrix<double> d = dcombine;  // a router may have removed choices itself
    for (Index i = 0; i < d.size(); ++i)
      if (r.kept.data()[i] < 0) d.data()[i] = 0;
    return d;
  }
};

struct Sums {  // of one token's weights: chosen (A), kept (B)
  double chosen = 0, kept = 0;
};
Sums sums_of(const Routing& r, Index t) {
  Sums s;
  for (Index j = 0; j < r.choices(); ++j) {
    s.chosen += r.weight(t, j);
    if (r.kept(t, j) >= 0) s.kept += r.weight(t, j);
  }
  return s;
}

// Drops what does not fit; the order in which slots ask for room is the rule.
class Limited : public Capacity {
 public:
  explicit Limited(Spec& spec)
      : factor_(spec.get("factor", 1.25, 0.0)), least_(spec.get("min", 0, 0)), renormalize_(spec.choice("weights", {"keep", "renormalize"}) == "renormalize"),
        identity_(spec.choice("output", {"zero", "identity"}) == "identity") {
    if (factor_ == 0) throw Error(Exit::usage, concat(spec.name(), ": factor=0 leaves no room")).hint("--capacity none for no limit");
  }
  double factor() const override { return factor_; }
  bool identity_output() const override { return identity_; }

  void apply(Routing& r, const RouterInput& in, int experts) const override {
    if (r.kept.empty()) r.kept = r.expert;
    Index valid = 0;
    for (Index t = 0; t < r.tokens(); ++t) valid += in.batch.is_valid(t);
    std::vector<Index> room(std::size_t(experts), capacity_of(valid, int(r.choices()), experts, factor_, least_));
    for (const Index i : order(r)) {
      int& e = r.kept.data()[i];
      if (e >= 0 && room[std::size_t(e)]-- <= 0) e = -1;
    }
    weigh(r);
  }
  Matrix<double> backward(const Routing& r, const Matrix<double>& dcombine) const override {
    Matrix<double> d(r.tokens(), r.choices());
    for (Index t = 0; t < r.tokens(); ++t) {
      const Sums s = sums_of(r, t);
      double q = 0;  // sum over kept slots of g w
      for (Index j = 0; j < r.choices(); ++j)
        if (r.kept(t, j) >= 0) q += dcombine(t, j) * r.weight(t, j);
      for (Index j = 0; j < r.choices(); ++j) {
        const double g = r.kept(t, j) >= 0 ? dcombine(t, j) : 0;
        if (!renormalize_) d(t, j) = g;
        else if (s.kept > 0 && r.expert(t, j) >= 0)
          d(t, j) = (r.kept(t, j) >= 0 ? g * s.chosen / s.kept - q * s.chosen / (s.kept * s.kept) : 0) + q / s.kept;
      }
    }
    return d;
  }

 protected:
  virtual std::vector<Index> order(const Routing&) const = 0;  // slots t*K + j in the order in which they ask for room

 private:
  void weigh(Routing& r) const {
    r.combine = r.weight;
    for (Index t = 0; t < r.tokens(); ++t) {
      const Sums s = sums_of(r, t);
      for (Index j = 0; j < r.choices(); ++j) {
        if (r.kept(t, j) < 0) r.combine(t, j) = 0;
        else if (renormalize_) r.combine(t, j) = s.kept > 0 ? r.weight(t, j) * s.chosen / s.kept : 0;
      }
    }
  }
  double factor_;
  int least_;
  bool renormalize_, identity_;
};

class Position final : public Limited {
 public:
  using Limited::Limited;

 protected:
  std::vector<Index> order(const Routing& r) const override {
    std::vector<Index> slots;
    slots.reserve(std::size_t(r.expert.size()));
    for (Index j = 0; j < r.choices(); ++j)
      for (Index t = 0; t < r.tokens(); ++t) slots.push_back(t * r.choices() + j);
    return slots;
  }
};

class Prob final : public Limited {
 public:
  using Limited::Limited;

 protected:
  std::vector<Index> order(const Routing& r) const override {
    std::vector<Index> slots(std::size_t(r.expert.size()));
    std::iota(slots.begin(), slots.end(), Index{0});  // equal weights: the lower token first
    std::ranges::stable_sort(slots, [&](Index a, Index b) { return r.weight.data()[a] > r.weight.data()[b]; });
    return slots;
  }
};

}  // namespace

std::unique_ptr<Capacity> make_none_capacity(Spec&) { return std::make_unique<Unlimited>(); }
std::unique_ptr<Capacity> make_position_capacity(Spec& spec) { return std::make_unique<Position>(spec); }
std::unique_ptr<Capacity> make_prob_capacity(Spec& spec) { return std::make_unique<Prob>(spec); }

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
