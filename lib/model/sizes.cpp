// The matrices and vectors of an architecture, and what is summed from them.
#include "lib/model/sizes.h"

#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {
namespace {

void add_bodies(PieceList& out, ModelPart part, const FeedShape& f, Count hidden, Count width,
                Count count, double active) {
  out.matrix(part, width, hidden, (f.matrices - 1) * count, double(f.matrices - 1) * active);
  out.matrix(part, hidden, width, count, active);
  if (f.bias && width > 0)
    out.vector(part, (f.matrices - 1) * width + hidden, count, active);
}

void add_router(PieceList& out, const FeedShape& f, Count hidden) {
  const std::vector<MatrixShape> usual{{f.experts, hidden}};
  for (const MatrixShape& m : f.router ? *f.router : usual)
    out.matrix(ModelPart::router, m.rows, m.cols);
  out.matrix(ModelPart::router, f.gate_residual, f.gate_residual);
  out.vector(ModelPart::router, f.router_vector);
  if (f.correction_bias)
    out.add({ModelPart::router, 1, f.experts, 1, 1, false, MovedBy::balancer});
  if (f.table > 0)  // of which a token touches its k
    out.add({ModelPart::router, f.table / f.k, f.k, 1, double(f.k) / double(f.table), false,
             MovedBy::fixed});
}

// Of experts that differ a token touches k mean ones.
double mean_share(const FeedShape& f) {
  return double(f.k) / double(f.experts);
}

void add_experts(PieceList& out, const FeedShape& f, Count hidden) {
  if (f.latent > 0) {
    out.matrix(ModelPart::latent, f.latent, hidden);
    out.matrix(ModelPart::latent, hidden, f.latent);
    hidden = f.latent;
  }
  if (f.widths.empty())
    add_bodies(out, ModelPart::experts, f, hidden, f.width, f.experts, double(f.k));
  for (const Count width : f.widths)
    add_bodies(out, ModelPart::experts, f, hidden, width, 1, mean_share(f));
  const double constants = double(f.constants) * mean_share(f);
  out.add({ModelPart::experts, 1, 2 * hidden, f.constants, constants, true});
  out.vector(ModelPart::experts, hidden, f.constants, constants);
}

void add_feed(PieceList& out, const FeedShape& f, Count hidden) {
  if (!f.is_moe())
    return add_bodies(out, ModelPart::dense, f, hidden, f.width, 1, 1);
  add_router(out, f, hidden);
  add_experts(out, f, hidden);
  if (f.output_bias)
    out.vector(ModelPart::latent, hidden);
  add_bodies(out, ModelPart::shared, f, hidden, f.shared_width, f.shared_width > 0, 1);
  if (f.shared_gate)
    out.matrix(ModelPart::shared, 1, hidden);
}

// Products and vectors that say how n streams are read, and how a branch comes back to them.
void add_streams(PieceList& out, Count n, Count hidden, bool reads_only) {
  const Count weights = reads_only ? n : (2 + n) * n;
  out.matrix(ModelPart::rest, weights, n * hidden);
  out.vector(ModelPart::rest, weights + (reads_only ? 1 : 3));
}

void add_layer(PieceList& out, const LayerShape& l, const Architecture& a) {
  for (const MixerShape& m : l.mixers)
    add_pieces(m, a.hidden, out);
  if (l.feed)
    add_feed(out, *l.feed, a.hidden);
  if (l.beside)
    add_feed(out, *l.beside, a.hidden);
  out.add({ModelPart::rest, 1, l.scalars, 1, 1, false, MovedBy::nothing});
  for (int b = 0; b < l.branches() && a.streams > 0; ++b)
    add_streams(out, a.streams, a.hidden, false);
  out.vector(ModelPart::rest, Count(l.norms) * a.hidden * (a.norm_bias ? 2 : 1));
}

void check_sum(const std::vector<WeightPiece>& all, const std::string& name) {
  Count sum = 0;
  for (const WeightPiece& p : all) {
    Count size = 0;
    if (__builtin_mul_overflow(p.rows, p.cols, &size) ||
        __builtin_mul_overflow(size, p.count, &size) || __builtin_add_overflow(sum, size, &sum) ||
        sum > (Count(1) << 62)) {
      throw Error(Exit::input, concat(name, ": the sizes multiply to more than 2^62 parameters"));
    }
  }
}

double product_flops(const std::vector<WeightPiece>& all) {
  double sum = 0;
  for (const WeightPiece& p : all) {
    if (p.multiplied)
      sum += 2 * p.size() * p.active;
  }
  return sum;
}
// a1 x + a2 v of the constant experts among a token's k
double weighing_flops(const FeedShape& f, Count hidden) {
  return f.constants > 0 ? 4.0 * double(hidden * f.constants) * mean_share(f) : 0;
}

}  // namespace

std::string_view name_of(ModelPart p) {
  constexpr std::string_view names[part_count] = {
      "input embedding",   "output matrix", "attention",      "dense feed-forward",
      "routers",           "experts",       "shared experts", "products around experts",
      "norms and the rest"};
  return names[std::size_t(p)];
}

std::vector<WeightPiece> pieces(const FeedShape& f, Count hidden) {
  PieceList out;
  add_feed(out, f, hidden);
  return out.all;
}

std::vector<WeightPiece> pieces(const Architecture& a) {
  PieceList out;
  const bool one_matrix = a.tied && a.head;  // looked up and multiplied
  out.all.push_back({ModelPart::embedding, a.vocabulary, a.hidden, 1, 1, one_matrix});
  for (const MatrixShape& m : a.projectors)
    out.matrix(ModelPart::embedding, m.rows, m.cols);
  if (a.projector_biases > 0)
    out.vector(ModelPart::embedding, a.projector_biases);
  if (a.head && !a.tied)
    out.matrix(ModelPart::head, a.vocabulary, a.hidden);
  for (const LayerShape& l : a.layers)
    add_layer(out, l, a);
  out.vector(ModelPart::rest, Count(a.final_norms) * a.hidden * (a.norm_bias ? 2 : 1));
  if (a.streams > 0)
    add_streams(out, a.streams, a.hidden, true);
  for (const Extra& e : a.extra)
    out.add({ModelPart::rest, 1, e.parameters, 1, 1, false, e.moved});
  check_sum(out.all, a.name);
  return out.all;
}

ParameterCount parameters(const Architecture& a) {
  ParameterCount out;
  for (const WeightPiece& p : pieces(a)) {
    const Count n = p.rows * p.cols * p.count;
    out.total += n;
    out.part[std::size_t(p.part)] += n;
    out.active[std::size_t(p.part)] += p.size() * p.active;
  }
  for (const double active : out.active)
    out.a0 += active;
  out.a1 = out.a0 - out.active[std::size_t(ModelPart::embedding)];
  out.a2 = out.a1 - out.active[std::size_t(ModelPart::head)];
  out.in_file = out.total;
  // a block like the last, a matrix that joins two rows, three norms, embedding and head
  if (a.further_layers > 0 && !a.layers.empty()) {
    Architecture one = a;
    one.further_layers = 0;
    one.final_norms = 3;
    one.tied = false;
    one.extra.clear();
    one.layers = {a.layers.back()};
    out.in_file += a.further_layers * (parameters(one).total + 2 * a.hidden * a.hidden);
  }
  return out;
}

Flops flops(const Architecture& a, Count context) {
  Flops out{.products = product_flops(pieces(a))};
  for (const LayerShape& l : a.layers) {
    for (const MixerShape& m : l.mixers)
      out.attention += mixing_flops(m, context);
    if (l.feed)
      out.products += weighing_flops(*l.feed, a.hidden);
  }
  return out;
}

}  // namespace moe
