// A table of token ids says who computes (DeepSeek-V4's first layers; fixed as in Hash Layers,
// 2106.04426), and the scores of another router weigh them: so the router's product is trained, and
// the choice is not.
#include <algorithm>

#include "lib/core/error.h"
#include "lib/core/rng.h"
#include "lib/core/spec.h"
#include "lib/router/excludes_experts.h"
#include "lib/router/router.h"
#include "lib/router/token_table.h"

namespace moe {
namespace {

class Table final : public Router, public TokenTable, public ExcludesExperts {
 public:
  Table(int experts, std::uint64_t seed, std::unique_ptr<Router> inner)
      : Router(experts), seed_(seed), inner_(std::move(inner)) {
    temperature = inner_->temperature;
    temperature_schedule = inner_->temperature_schedule;
    jitter = inner_->jitter;
  }

  RouterFacts facts() const override {
    const RouterFacts inner = inner_->facts();
    return {.k = inner.k, .normalised = inner.normalised, .scale = inner.scale, .eps = inner.eps};
  }
  std::vector<Projection> projections() const override {
    return inner_->projections();
  }
  void exclude(const std::vector<std::uint8_t>& out) override {
    exclude_experts(*inner_, out);
  }
  void set_vocabulary(int words) override {
    std::vector<int> row(static_cast<std::size_t>(choices()));
    table_.clear();
    for (int id = 0; id < words; ++id) {
      draw_experts(seed_, id, experts_, row);
      table_.insert(table_.end(), row.begin(), row.end());
    }
  }
  std::span<double> table() override {
    return table_;
  }
  std::vector<State> state() override {
    return table_.empty() ? std::vector<State>{} : std::vector<State>{{"table", table_}};
  }

  Routing route(const RouterInput& in) override {
    GivenNoise given = in.given ? *in.given : GivenNoise{};
    given.expert = Matrix<int>(in.tokens(), choices(), -1);
    for (Index t = 0; t < in.tokens(); ++t) {
      if (in.batch.is_valid(t))
        look_up(in.batch.token[std::size_t(t)], given.expert.row(t));
    }
    RouterInput mine = in;
    mine.given = &given;
    return inner_->route(mine);
  }
  Matrix<double> probabilities(const RouterInput& in, const Routing& r) const override {
    return inner_->probabilities(in, r);
  }
  void backward(const RouterInput& in, const Routing& r, const Matrix<double>& dweight,
                const Matrix<double>& dprob, std::vector<Matrix<double>>& dscores) const override {
    inner_->backward(in, r, dweight, dprob, dscores);
  }

 private:
  void look_up(int id, std::span<int> out) const {
    if (table_.empty())
      return draw_experts(seed_, id, experts_, out);
    if (id < 0 || std::size_t(id) >= table_.size() / out.size()) {
      throw Error(Exit::input, concat("token_table: token ", id, " is not among the ",
                                      table_.size() / out.size(), " ids of the table"));
    }
    for (std::size_t j = 0; j < out.size(); ++j)
      out[j] = int(table_[std::size_t(id) * out.size() + j]);
  }

  std::uint64_t seed_;
  std::unique_ptr<Router> inner_;
  std::vector<double> table_;  // (V,k)
};

}  // namespace

void draw_experts(std::uint64_t seed, int id, int experts, std::span<int> out) {
  Rng rng(seed, std::uint64_t(id) + 1);
  for (std::size_t j = 0; j < out.size();) {  // draws until all are distinct
    out[j] = int(rng.below(experts));
    j += std::ranges::find(out.first(j), out[j]) == out.begin() + std::ptrdiff_t(j);
  }
}

std::string table_router(const std::string& router) {
  Spec out("token_table");
  out.set("router", router);
  return out.given_text();
}

std::unique_ptr<Router> make_token_table_router(Spec& spec, int experts) {
  const std::string name = spec.get("router", "softmax:k=2");
  auto inner = make_router(name, experts);
  const RouterFacts facts = inner->facts();
  if (!facts.takes_routes || !facts.k_is_option) {
    throw Error(Exit::usage,
                concat("token_table: router= weighs k given experts by its scores, and ", name,
                       " does not"))
        .hint("router={softmax:k=2}, sigmoid, sqrtsoftplus or cosine");
  }
  return std::make_unique<Table>(experts, std::uint64_t(spec.get("seed", 0, 0)), std::move(inner));
}

}  // namespace moe
