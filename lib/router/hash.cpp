// Hash routing (equations.md 2.8; paper 2106.04426): the token's id decides, by a table that never learns. fn=random draws k
// distinct experts for every id from `seed`; fn=modulo takes (id + j) mod E. The table is a function, so it needs no room.
#include "lib/core/error.h"
#include "lib/router/one_score.h"

namespace moe {
namespace {

class Hash final : public Router {
 public:
  Hash(int experts, int k, bool random, std::uint64_t seed) : Router(experts), k_(k), random_(random), seed_(seed) {}
  int choices() const override { return k_; }
  std::vector<Projection> projections() const override { return {}; }

  Routing route(const RouterInput& in) override {
    const Index tokens = in.tokens();
    Routing r;
    r.expert = Matrix<int>(tokens, k_, -1);
    r.weight = Matrix<double>(tokens, k_);
    for (Index t = 0; t < tokens; ++t) {
      if (!in.batch.is_valid(t)) continue;
      look_up(in, in.batch.token[std::size_t(t)], r.expert.row(t));
      std::ranges::fill(r.weight.row(t), 1.0 / k_);
    }
    return r;
  }
  void backward(const RouterInput&, const Routing&, const Matrix<double>&, const Matrix<double>&, std::vector<Matrix<double>>&) const override {}

 private:
  void look_up(const RouterInput& in, int id, std::span<int> out) const {
    if (in.given && !in.given->table.empty()) {
      const Matrix<int>& table = in.given->table;
      if (id < 0 || id >= table.rows() || table.cols() != k_) throw Error(Exit::input, concat("hash: token ", id, " is not in the given table of ", table.rows(), " ids with ", table.cols(), " choices"));
      std::ranges::copy(table.row(id), out.begin());
      return;
    }
    if (!random_) {
      for (std::size_t j = 0; j < out.size(); ++j) out[j] = int((std::int64_t(id) + std::int64_t(j)) % experts_);
      return;
    }
    Rng rng(seed_, std::uint64_t(id) + 1);
    for (std::size_t j = 0; j < out.size();) {  // draws until k are distinct
      out[j] = int(rng.below(experts_));
      j += std::ranges::find(out.first(j), out[j]) == out.begin() + std::ptrdiff_t(j);
    }
  }
  int k_;
  bool random_;
  std::uint64_t seed_;
};

}  // namespace

std::unique_ptr<Router> make_hash_router(Spec& spec, int experts) {
  const int k = spec.get("k", 1, 1);
  const bool random = spec.choice("fn", {"random", "modulo"}) == "random";
  if (k > experts) throw Error(Exit::usage, concat("hash: k=", k, " is more than the ", experts, " experts"));  // distinct draws must end
  return std::make_unique<Hash>(experts, k, random, random ? std::uint64_t(spec.get("seed", 0, 0)) : 0);
}

}  // namespace moe
