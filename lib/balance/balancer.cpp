#include "lib/balance/balancer.h"

#include "lib/core/spec.h"
#include "lib/router/input.h"

namespace moe {

#define BALANCER(name, about, examples) MakeBalancer make_##name##_balancer;
#include "lib/balance/balancers.def"
#undef BALANCER

const Registry<MakeBalancer>& balancers() {
  static const Registry<MakeBalancer> all("balancer", {
#define BALANCER(name, about, examples) {#name, about, examples, make_##name##_balancer},
#include "lib/balance/balancers.def"
#undef BALANCER
                                                      });
  return all;
}

std::unique_ptr<Balancer> make_balancer(const std::string& text, std::string& resolved) {
  Spec spec(text);
  auto made = balancers().at(spec.name()).make(spec);
  spec.done();
  resolved = spec.resolved();
  return made;
}
std::unique_ptr<Balancer> make_balancer(const std::string& text) {
  std::string resolved;
  return make_balancer(text, resolved);
}

const Batch& BalanceInput::batch() const {
  return router.batch;
}
Index BalanceInput::valid_tokens() const {
  Index n = 0;
  for (Index t = 0; t < tokens(); ++t)
    n += batch().is_valid(t);
  return n;
}

std::vector<std::int64_t> count_experts(const Matrix<int>& ids, int experts) {
  std::vector<std::int64_t> n(std::size_t(experts), 0);
  for (const int e : ids.flat()) {
    if (e >= 0)
      ++n[e];
  }
  return n;
}

namespace {
class None final : public Balancer {
 public:
  None() : Balancer("none") {}
  double loss(const BalanceInput&, double, const BalanceGrad&) const override {
    return 0;
  }
  double coefficient() const override {
    return 0;
  }
  bool needs_scores() const override {
    return false;
  }
  bool by_sums() const override {
    return true;
  }
};
}  // namespace

std::unique_ptr<Balancer> make_none_balancer(Spec&) {
  return std::make_unique<None>();
}

}  // namespace moe
