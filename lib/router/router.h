// Routers: who computes what. Host code in double, so an idea is one file and runs on every
// backend; a router decides for the whole batch and gives the gradient of its decision. What only
// some routers can do stands in interfaces of its own (mixing.h, reroutes.h, replays_routes.h,
// learns_from_text.h, excludes_experts.h, weighs_chosen.h, device_rule.h), found by capability().
#pragma once
#include <memory>
#include <span>

#include "lib/core/convert.h"
#include "lib/core/registry.h"
#include "lib/core/routing.h"
#include "lib/core/state.h"
#include "lib/router/facts.h"
#include "lib/router/input.h"
#include "lib/router/temperature_schedule.h"

namespace moe {

// something a router computed on the way, by name
using Detail = std::pair<std::string, Matrix<double>>;

class Router {
 public:
  explicit Router(int experts) : experts_(experts) {}
  virtual ~Router() = default;

  int experts() const {
    return experts_;
  }
  // True of this router with its options; see facts.h.
  virtual RouterFacts facts() const = 0;
  int choices() const {  // K: columns of Routing::expert
    return facts().k;
  }
  virtual std::vector<Projection> projections() const = 0;
  // Tokens that are not valid get ids -1, weights 0 and zero rows of logits and scores.
  virtual Routing route(const RouterInput&) = 0;
  // What balance losses use as probabilities, rows summing to 1: softmax p; sigmoid s/sum s; joint
  // probabilities. (T,E)
  virtual Matrix<double> probabilities(const RouterInput&, const Routing& r) const {
    return converted<double>(r.score);
  }
  // Adds to dscores[i] (same shapes as in.scores) the gradient that arrives by the combine weights,
  // dweight (T,K), and by the probabilities, dprob (T,E) (either may be empty).
  virtual void backward(const RouterInput&, const Routing&, const Matrix<double>& dweight,
                        const Matrix<double>& dprob,
                        std::vector<Matrix<double>>& dscores) const = 0;
  // beta of equations.md 2.1-2.3, (E): used in the selection only, moved by balancers; empty = this
  // router has none.
  virtual std::span<double> correction_bias() {
    return {};
  }
  // (E) number of the set that each expert stands in, where rows may not choose among all of them:
  // experts of one set are chosen by the same rows. Empty = all are one set.
  virtual std::vector<int> choice_sets() const {
    return {};
  }
  // What a checkpoint must hold besides parameters.
  virtual std::vector<State> state();
  virtual std::vector<Detail> details(const RouterInput&, const Routing&) const {
    return {};
  }

  double temperature = 1;                    // of tempered projections, now
  TemperatureSchedule temperature_schedule;  // where it comes from
  void set_progress(double done /*share of the training run*/) {
    temperature = temperature_schedule.moves() ? temperature_schedule.at(done) : temperature;
  }
  double jitter = 0;  // their input is multiplied by uniform [1-jitter, 1+jitter] in training

 protected:
  int experts_;
};

// The interface of a router that can do something more; null where it cannot.
template <class Interface>
Interface* capability(Router& r) {
  return dynamic_cast<Interface*>(&r);
}
template <class Interface>
const Interface* capability(const Router& r) {
  return dynamic_cast<const Interface*>(&r);
}

using MakeRouter = std::unique_ptr<Router>(Spec&, int experts);
const Registry<MakeRouter>& routers();
// refuses unknown names and options, k > E
std::unique_ptr<Router> make_router(const std::string& spec, int experts);
// The same, and the spec with every default filled in.
std::unique_ptr<Router> make_router(const std::string& spec, int experts, std::string& resolved);

}  // namespace moe
