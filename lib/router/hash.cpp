// Hash routing (equations.md 2.8; paper 2106.04426): the token's id decides, by a table that never
// learns. fn=random draws k distinct experts for every id from `seed`; fn=modulo takes (id + j) mod
// E: functions, which need no room. fn=balanced is a table made from how often each id stands in
// the training text: ids by falling count, each to the k experts that are lightest so far.
#include <algorithm>
#include <numeric>
#include <set>

#include "lib/core/error.h"
#include "lib/core/spec.h"
#include "lib/router/learns_from_text.h"
#include "lib/router/router.h"
#include "lib/router/token_table.h"

namespace moe {
namespace {

class Hash : public Router {
 public:
  Hash(int experts, int k) : Router(experts), k_(k) {}
  RouterFacts facts() const override {
    return {.k = k_, .k_is_option = true, .normalised = true};
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
      const int id = in.batch.token[t];
      if (in.given && !in.given->table.empty())
        look_up_given(in.given->table, id, r.expert.row(t));
      else
        look_up(id, r.expert.row(t));
      std::ranges::fill(r.weight.row(t), 1.0 / k_);
    }
    return r;
  }
  void backward(const RouterInput&, const Routing&, const Matrix<double>&, const Matrix<double>&,
                std::vector<Matrix<double>>&) const override {}

 protected:
  virtual void look_up(int id, std::span<int> out /*(k)*/) const = 0;
  int k_;

 private:
  void look_up_given(const Matrix<int>& table, int id, std::span<int> out) const {
    if (id < 0 || id >= table.rows() || table.cols() != k_) {
      throw Error(Exit::input, concat("hash: token ", id, " is not in the given table of ",
                                      table.rows(), " ids with ", table.cols(), " choices"));
    }
    std::ranges::copy(table.row(id), out.begin());
  }
};

class RandomHash final : public Hash {
 public:
  RandomHash(int experts, int k, std::uint64_t seed) : Hash(experts, k), seed_(seed) {}

 protected:
  void look_up(int id, std::span<int> out) const override {
    draw_experts(seed_, id, experts_, out);
  }

 private:
  std::uint64_t seed_;
};

class ModuloHash final : public Hash {
 public:
  using Hash::Hash;

 protected:
  void look_up(int id, std::span<int> out) const override {
    for (std::size_t j = 0; j < out.size(); ++j)
      out[j] = int((std::int64_t(id) + std::int64_t(j)) % experts_);
  }
};

class BalancedHash final : public Hash, public LearnsFromText {
 public:
  using Hash::Hash;
  RouterFacts facts() const override {
    RouterFacts f = Hash::facts();
    f.needs_token_counts = true;
    f.k_is_option = false;  // its table holds the k of each token
    return f;
  }
  std::vector<State> state() override {
    return table_.empty() ? std::vector<State>{} : std::vector<State>{{"table", table_}};
  }
  void set_vocabulary(int words) override {
    table_.assign(std::size_t(words) * std::size_t(k_), -1.0);
  }
  void learn(std::span<const std::int64_t> counts) override {
    set_vocabulary(int(counts.size()));
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

 protected:
  void look_up(int id, std::span<int> out) const override {
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

 private:
  std::vector<double> table_;  // (V,k); -1 = not learned
};

}  // namespace

std::unique_ptr<Router> make_hash_router(Spec& spec, int experts) {
  const int k = spec.get("k", 1, 1);
  const std::string fn = spec.choice("fn", {"random", "modulo", "balanced"});
  // distinct draws must end
  if (k > experts)
    throw Error(Exit::usage, concat("hash: k=", k, " is more than the ", experts, " experts"));
  if (fn == "modulo")
    return std::make_unique<ModuloHash>(experts, k);
  if (fn == "balanced")
    return std::make_unique<BalancedHash>(experts, k);
  return std::make_unique<RandomHash>(experts, k, std::uint64_t(spec.get("seed", 0, 0)));
}

}  // namespace moe
