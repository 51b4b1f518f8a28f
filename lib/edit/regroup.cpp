#include "lib/edit/regroup.h"

#include <algorithm>
#include <cmath>

#include "lib/core/error.h"
#include "lib/core/rng.h"
#include "lib/model/config.h"
#include "lib/model/copy_weights.h"
#include "lib/router/router.h"

namespace moe {
namespace {

// Where the hidden units lie in the piece of one expert: rows (or single numbers), columns, or
// none.
enum class Units { none, rows, columns };
Units units_of(const std::string& name) {
  if (name.find(".moe.experts.") == name.npos)
    return Units::none;
  const std::string last = name.substr(name.rfind('.') + 1);
  if (last == "down")
    return Units::columns;
  return last == "down_bias" ? Units::none : Units::rows;
}

// Place `i` of a piece of `size` numbers, where the units stand in another order.
std::size_t place_of(std::size_t i, std::size_t size, Units units, const std::vector<int>& order) {
  if (units == Units::none || order.empty())
    return i;
  const std::size_t width = order.size();
  if (units == Units::columns)
    return i / width * width + std::size_t(order[i % width]);
  const std::size_t row = size / width;
  return std::size_t(order[i / row]) * row + i % row;
}

// Number `i` of the mean of some pieces of `size` numbers.
template <class T>
double mean_of(std::span<const T> old, const NewExpert& s, std::size_t i, std::size_t size,
               Units units) {
  static const std::vector<int> as_they_stand;
  double sum = 0;
  for (std::size_t m = 0; m < s.of.size(); ++m) {
    const std::size_t place = place_of(i, size, units, s.unit.empty() ? as_they_stand : s.unit[m]);
    const double value = double(old[std::size_t(s.of[m]) * size + place]);
    sum += s.share.empty() ? value : s.share[m] * value;
  }
  return s.share.empty() ? sum / double(s.of.size()) : sum;
}

struct Piece {
  int old_experts;
  double noise;
  Units units = Units::none;
};

// New numbers for old ones of equal pieces; the matrices of copies are disturbed.
template <class T>
std::vector<T> regrouped(std::span<const T> old, const std::vector<NewExpert>& sources,
                         const Piece& piece, Rng rng) {
  const std::size_t n = old.size() / std::size_t(piece.old_experts);
  std::vector<T> out;
  out.reserve(n * sources.size());
  for (const NewExpert& s : sources) {
    double squares = 0;
    const std::size_t first = out.size();
    for (std::size_t i = 0; i < n; ++i) {
      out.push_back(s.of.size() == 1 ? old[std::size_t(s.of[0]) * n + i]
                                     : T(mean_of(old, s, i, n, piece.units)));
      squares += double(out.back()) * double(out.back());
    }
    if (!s.noisy || piece.noise == 0)
      continue;
    const double size = piece.noise * std::sqrt(squares / double(std::max<std::size_t>(1, n)));
    for (std::size_t i = first; i < out.size(); ++i)
      out[i] = T(double(out[i]) + size * rng.normal());
  }
  return out;
}

bool by_expert(const std::string& name) {
  return name.find(".moe.experts.") != name.npos ||
         (name.find(".moe.router.") != name.npos && !name.ends_with(".project"));
}

// Routers whose meaning hangs on expert ids cannot have another number of experts.
void refuse_fixed_ids(const LayerConfig& c) {
  const RouterFacts router = router_facts(c.router, c.experts);
  const std::string name = Spec(c.router).name();
  if (router.groups > 1) {
    throw Error(Exit::usage, concat("the groups of ", name,
                                    " are runs of expert ids, and another number of experts would "
                                    "move experts between them"))
        .hint("a model without groups");
  }
  if (router.needs_token_counts) {
    throw Error(
        Exit::usage,
        concat("the table of ", c.router,
               " names experts by their ids, and another number of experts would move them"))
        .hint("a model whose router is not hash:fn=balanced");
  }
  if (router.levels > 0) {
    throw Error(
        Exit::usage,
        concat("the levels of ", name,
               " are runs of expert ids, and another number of experts would not fill them"))
        .hint("a model without levels");
  }
}

struct Regrouping {
  const NewExperts& sources;
  int before, after;  // experts of a layer
  double noise;
  std::uint64_t seed;
};

// ExpertParameters and router rows by their sources; every other parameter as it is.
void regroup_parameters(Decoder<float>& old, Decoder<float>& made, const Regrouping& r) {
  const auto from = old.parameters();
  const auto to = made.parameters();
  for (std::size_t i = 0; i < to.size(); ++i) {
    const Index n = from[i]->size();
    if (!by_expert(to[i]->name()) || n % r.before || n / r.before * r.after != to[i]->size()) {
      copy_parameter(*from[i], *to[i]);
      continue;
    }
    const int layer = std::stoi(to[i]->name().substr(7));
    const auto& sources = r.sources[moe_layer_of(old, {layer, 0})];
    const Matrix<float> host = from[i]->to_host();
    const bool matrix = to[i]->kind() == ParameterKind::matrix;
    const auto numbers =
        regrouped(host.flat(), sources, {r.before, matrix ? r.noise : 0, units_of(to[i]->name())},
                  Rng(r.seed).stream(i));
    to[i]->set(View<const float>{numbers.data(), to[i]->value().rows, to[i]->value().cols});
  }
}

// What routers and balancers hold besides parameters: a number an expert goes with its expert.
void regroup_state(MoeLayer<float>& old, MoeLayer<float>& made,
                   const std::vector<NewExpert>& sources, const Regrouping& r) {
  const auto from = old.state();
  const auto to = made.state();
  for (std::size_t i = 0; i < to.size(); ++i) {
    const std::span<const double> values = from[i].second;
    const bool one_each =
        values.size() == std::size_t(r.before) && to[i].second.size() == std::size_t(r.after);
    const auto numbers = one_each ? regrouped(values, sources, {r.before, 0}, Rng(r.seed))
                                  : std::vector<double>(values.begin(), values.end());
    if (numbers.size() != to[i].second.size()) {
      throw Error(Exit::usage,
                  concat(to[i].first, " has ", values.size(), " numbers for ", r.before,
                         " experts and ", to[i].second.size(), " for ", r.after));
    }
    std::ranges::copy(numbers, to[i].second.begin());
  }
}

}  // namespace

Edited regroup(Decoder<float>& old, const NewExperts& sources, double noise, std::uint64_t seed) {
  ModelConfig c = old.config();
  refuse_fixed_ids(c.moe);
  if (!c.table_layers.empty()) {
    throw Error(Exit::usage,
                "the tables of table_layers name experts by their ids, and another number of "
                "experts would move them")
        .hint("a model without table_layers");
  }
  const Regrouping r{sources, c.moe.experts, int(sources[0].size()), noise, seed};
  c.dense_width = c.dense_baseline_width();
  c.moe.experts = r.after;
  Edited out{std::make_unique<Decoder<float>>(c, old.backend()), {}};
  regroup_parameters(old, *out.model, r);
  for (std::size_t l = 0; l < sources.size(); ++l)
    regroup_state(*old.moe_layers()[l], *out.model->moe_layers()[l], sources[l], r);
  return out;
}

void need_experts(const Decoder<float>& model, const char* what) {
  const LayerConfig& c = model.config().moe;
  if (model.config().moe_layers() == 0) {
    throw Error(Exit::usage, concat("a dense model has no experts to ", what))
        .hint("--upcycle copy:experts=8 makes it sparse");
  }
  if (model.config().has_experts_of_attention()) {
    throw Error(Exit::usage,
                concat("experts to ", what, " must be feed-forwards, and some are of attention"))
        .hint("--without-expert of moe eval and --train work on every model");
  }
  if (!c.types.empty() || !c.widths.empty() || c.gate_residual) {
    throw Error(Exit::usage,
                concat("experts to ", what,
                       " must be alike and routers apart, and this model has expert_types=",
                       list_text(c.types), ", widths=", list_text(c.widths),
                       ", gate_residual=", c.gate_residual))
        .hint(
            "a model of plain experts of one width; --without-expert of moe eval and --train work "
            "on every model");
  }
}

std::string numbers_text(const std::vector<int>& v) {
  std::vector<std::string> words;
  for (const int n : v)
    words.push_back(concat(n));
  return join(words);
}

}  // namespace moe
