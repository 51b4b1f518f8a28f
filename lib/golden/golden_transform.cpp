// Case files of kind "transform": expert bodies made from a dense one, and what a layer with them
// computes.
#include "lib/core/error.h"
#include "lib/golden/golden_case.h"
#include "lib/golden/golden_rules.h"
#include "lib/layer/router_product.h"
#include "lib/layer/transform.h"

namespace moe {
namespace {

struct Transform {
  LayerConfig config;  // of the layer with the new bodies
  HostExpertParameters<double> dense, made;
  Matrix<double> x, router;  // (T,H), (E,H)
};

HostExpertParameters<double> read_dense(const GoldenFile& file) {
  const auto read = [&](const char* name) {
    const std::string path = concat("input/dense.", name);
    if (!file.has(path))
      return Matrix<double>{};
    Matrix<double> m = golden_matrix(file, path);
    if (!std::string_view(name).ends_with("bias"))
      return m;
    Matrix<double> row(1, m.size());
    std::ranges::copy(m.flat(), row.data());
    return row;
  };
  return {read("gate"),      read("up"),      read("down"),
          read("gate_bias"), read("up_bias"), read("down_bias")};
}

// The dense body is a layer's shared expert, so that it is computed by what computes every body.
Matrix<double> dense_output(const Transform& t, Backend<double>& backend) {
  const Activation a = t.config.activation;
  FeedForward<double> dense(backend, "", a, t.dense.up.rows(), t.x.cols(),
                            !t.dense.up_bias.empty());
  set_expert_parameters(dense.expert_parameters(), t.dense);
  Batch batch;
  batch.token.assign(std::size_t(t.x.rows()), 0);
  batch.start = {0, t.x.rows()};
  Matrix<double> y(t.x.rows(), t.x.cols());
  FeedForward<double>::Tape tape;
  dense.forward(batch, t.x.view(), y.view(), tape);
  return y;
}

MoeLayer<double> layer_of(const Transform& t, const std::string& router, Backend<double>& backend) {
  LayerConfig c = t.config;
  c.router = router;
  MoeLayer<double> layer(c, backend);
  set_expert_parameters(layer.expert_parameters(), t.made);
  if (!t.router.empty())
    layer.products()[0].weight().set(t.router.view());
  return layer;
}

Matrix<double> output(const Transform& t, const std::string& router, Backend<double>& backend,
                      Comparison& out) {
  MoeLayer<double> layer = layer_of(t, router, backend);
  Batch batch;
  batch.token.assign(std::size_t(t.x.rows()), 0);
  batch.start = {0, t.x.rows()};
  MoeTape<double> tape(batch);
  Matrix<double> y(t.x.rows(), t.x.cols());
  layer.forward({.batch = batch}, t.x.view(), y.view(), tape);
  layer.fetch_routing(tape);
  out.ids("topk_ids", tape.routing.expert, tape.routing.choices());
  return y;
}

std::string softmax_router(const GoldenFile& file, bool norm) {
  return concat("softmax:k=", file.integer("top_k"), ",norm=", norm);
}

void granular(const GoldenFile& file, Transform& t, Comparison& out) {
  const Index shards = file.integer("granularity");
  const bool norm = file.integer("norm_topk") == 1;
  t.config.width = t.dense.up.rows() / shards;
  const Index expansion = file.integer("expansion");
  const double scale =
      granular_scale(t.config.activation, shards, expansion, int(file.integer("top_k")), norm);
  t.made = from_units(t.dense, units_of_shards(shards, expansion, t.dense.up.rows()), scale, 1);
  t.router = repeated_rows(golden_matrix(file, "input/router.base"), shards);
  out.real("weight_scale", scale);
  out.reals("param/router.weight", t.router.flat());
  const auto backend = make_reference<double>();
  out.reals("y", output(t, softmax_router(file, norm), *backend, out).flat());
}

void copies(const GoldenFile& file, Transform& t, Comparison& out) {
  const auto backend = make_reference<double>();
  t.made = from_units(t.dense, units_of_copies(t.config.experts, t.dense.up.rows()), 1, 1);
  t.config.width = t.dense.up.rows();
  t.router = golden_matrix(file, "param/router.weight");
  out.reals("y_norm", output(t, softmax_router(file, true), *backend, out).flat());
  out.reals("y_nonorm", output(t, softmax_router(file, false), *backend, out).flat());
}

void parts(const GoldenFile& file, Transform& t, Comparison& out) {
  const auto backend = make_reference<double>();
  const auto order = file.integers("input/unit_order").values;
  t.made = from_units(t.dense, units_of_parts(order, t.config.experts), 1, 1.0 / t.config.experts);
  t.config.width = t.dense.up.rows() / t.config.experts;
  out.reals("expert_y", layer_of(t, "dense", *backend).outputs_of_all(t.x.view()).flat());
}

void compare_bodies(const HostExpertParameters<double>& b, Comparison& out) {
  for (const auto& [name, m] : {std::pair{"gate", &b.gate},
                                {"up", &b.up},
                                {"down", &b.down},
                                {"gate_bias", &b.gate_bias},
                                {"up_bias", &b.up_bias},
                                {"down_bias", &b.down_bias}}) {
    if (!m->empty())
      out.reals(concat("param/experts.", name), m->flat());
  }
}

}  // namespace

void run_golden_transform(const GoldenFile& file, Comparison& out) {
  const std::string kind = file.text("transform");
  Transform t;
  t.dense = read_dense(file);
  t.x = golden_matrix(file, "input/x");
  t.config.hidden = t.x.cols();
  t.config.experts = int(file.integer("num_experts"));
  t.config.activation = activation_of(file.text("activation"));
  t.config.expert_bias = file.integer("expert_bias") == 1;
  if (kind == "upcycle_copy")
    copies(file, t, out);
  else if (kind == "upcycle_granular")
    granular(file, t, out);
  else if (kind == "split_dense")
    parts(file, t, out);
  else
    throw Unsupported{concat("transform '", kind, "' is not there")};
  out.reals("y_dense", dense_output(t, *make_reference<double>()).flat());
  compare_bodies(t.made, out);
}

}  // namespace moe
