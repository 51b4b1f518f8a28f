// Hash routing (equations.md 2.8; paper 2106.04426): the token's id decides, by a table that never
// learns. fn=random draws k distinct experts for every id from `seed`; fn=modulo takes (id + j) mod
// E: functions, which need no room. fn=balanced is a table made from how often each id stands in
// the training text: ids by falling count, each to the k experts that are lightest so far.
#include <algorithm>
#include <numeric>
#include <set>

#include "lib/core/error.h"
#include "lib/router/one_score.h"

namespace moe {
namespace {

class Hash final : public Router {
 public:
  enum class Kind { random, modulo, balanced };
  Hash(int experts, int k, Kind kind, std::uint64_t seed)
      : Router(experts), k_(k), kind_(kind), seed_(seed) {}
  int choices() const override {
    return k_;
  }
  std::vector<Projection> projections() const override {
    return {};
  }

  Routing route(const RouterInput& in) override {
    const Index tokens = in.tokens();
    Routing r;
    r.expert = Matrix<int>(tokens, k_, -1);
    r.weight = Matrix<double>(tokens, k_);
    for (Index t = 0; t < tokens; ++t) {
      if (!in.batch.is_valid(t))
        continue;
      look_up(in, in.batch.token[std::size_t(t)], r.expert.row(t));
      std::ranges::fill(r.weight.row(t), 1.0 / k_);
    }
    return r;
  }
  void backward(const RouterInput&, const Routing&, const Matrix<double>&, const Matrix<double>&,
                std::vector<Matrix<double>>&) const override {}

  bool wants_counts() const override {
    return kind_ == Kind::balanced;
  }
  void vocabulary(int words) override {
    if (kind_ == Kind::balanced)
      table_.assign(std::size_t(words) * std::size_t(k_), -1.0);
  }
  std::vector<State> state() override {
    return table_.empty() ? std::vector<State>{} : std::vector<State>{{"table", table_}};
  }
  void learn(std::span<const std::int64_t> counts) override {
    vocabulary(int(counts.size()));
    std::vector<std::size_t> order(counts.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::ranges::stable_sort(order,
                             [&](std::size_t a, std::size_t b) { return counts[a] > counts[b]; });
    std::set<std::pair<std::int64_t, int>> load;
    for (int e = 0; e < experts_; ++e)
      load.emplace(0, e);
    for (const std::size_t id : order) {
      std::vector<std::pair<std::int64_t, int>> lightest;
      for (int j = 0; j < k_; ++j) {
        lightest.push_back(*load.begin());
        load.erase(load.begin());
        table_[id * std::size_t(k_) + std::size_t(j)] = lightest.back().second;
      }
      // ids never seen spread as well
      for (const auto& [n, e] : lightest)
        load.emplace(n + std::max<std::int64_t>(counts[id], 1), e);
    }
  }

 private:
  void look_up_balanced(int id, std::span<int> out) const {
    const std::size_t first = std::size_t(id) * out.size();
    if (first + out.size() > table_.size() || table_[first] < 0) {
      throw Error(Exit::input, concat("hash: fn=balanced has no expert for token ", id,
                                      ": its table is made from the training text and kept in the "
                                      "checkpoint's optimizer.safetensors"))
          .hint("moe train makes it; fn=random or fn=modulo need none");
    }
    for (std::size_t j = 0; j < out.size(); ++j)
      out[j] = int(table_[first + j]);
  }
  void look_up(const RouterInput& in, int id, std::span<int> out) const {
    if (in.given && !in.given->table.empty()) {
      const Matrix<int>& table = in.given->table;
      if (id < 0 || id >= table.rows() || table.cols() != k_) {
        throw Error(Exit::input, concat("hash: token ", id, " is not in the given table of ",
                                        table.rows(), " ids with ", table.cols(), " choices"));
      }
      std::ranges::copy(table.row(id), out.begin());
      return;
    }
    if (kind_ == Kind::balanced)
      return look_up_balanced(id, out);
    if (kind_ == Kind::modulo) {
      for (std::size_t j = 0; j < out.size(); ++j)
        out[j] = int((std::int64_t(id) + std::int64_t(j)) % experts_);
      return;
    }
    Rng rng(seed_, std::uint64_t(id) + 1);
    for (std::size_t j = 0; j < out.size();) {  // draws until k are distinct
      out[j] = int(rng.below(experts_));
      j += std::ranges::find(out.first(j), out[j]) == out.begin() + std::ptrdiff_t(j);
    }
  }
  int k_;
  Kind kind_;
  std::uint64_t seed_;
  std::vector<double> table_;  // (V,k) of fn=balanced; -1 = not learned
};

}  // namespace

std::unique_ptr<Router> make_hash_router(Spec& spec, int experts) {
  const int k = spec.get("k", 1, 1);
  const std::string fn = spec.choice("fn", {"random", "modulo", "balanced"});
  const Hash::Kind kind = fn == "random"   ? Hash::Kind::random
                          : fn == "modulo" ? Hash::Kind::modulo
                                           : Hash::Kind::balanced;
  // distinct draws must end
  if (k > experts)
    throw Error(Exit::usage, concat("hash: k=", k, " is more than the ", experts, " experts"));
  return std::make_unique<Hash>(
      experts, k, kind, kind == Hash::Kind::random ? std::uint64_t(spec.get("seed", 0, 0)) : 0);
}

}  // namespace moe
