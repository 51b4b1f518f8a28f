#include "lib/golden/golden_modal.h"

#include <algorithm>
#include <cmath>

#include "lib/balance/balancer.h"
#include "lib/core/error.h"
#include "lib/core/modality.h"
#include "lib/core/text.h"
#include "lib/router/router.h"
#include "lib/signal/log_mel.h"
#include "lib/signal/patches.h"

namespace moe {
namespace {

// The processors of transformers compute in float.
constexpr double processor_tolerance = 1e-5;

Batch batch_of(const GoldenFile& file) {
  Batch b;
  for (const auto m : file.integers("input/modality").values)
    b.modality.push_back(std::uint8_t(m));
  b.token.assign(b.modality.size(), 0);
  b.start = {0, Index(b.modality.size())};
  if (!file.has("input/valid"))
    return b;
  for (const auto v : file.integers("input/valid").values)
    b.valid.push_back(std::uint8_t(v));
  return b;
}

// input/allowed (M,E) as the option experts= says it.
std::string experts_text(const GoldenFile& file) {
  const auto allowed = file.integers("input/allowed");
  if (allowed.dims.size() != 2 || allowed.dims[0] > modality_kinds)
    throw Error(Exit::input, "input/allowed is not a row of experts for each of few modalities");
  std::vector<std::string> parts;
  for (Index m = 0; m < allowed.dims[0]; ++m) {
    for (Index e = 0; e < allowed.dims[1]; ++e) {
      if (allowed.values[std::size_t(m * allowed.dims[1] + e)])
        parts.push_back(concat(modality_names()[std::size_t(m)], ":", e));
    }
  }
  return join(parts, "/");
}

std::string masked_router(const GoldenFile& file, GoldenCase& c) {
  const std::string score = file.text("score");
  if (score != "softmax" && score != "sigmoid")
    throw Unsupported{concat("score '", score, "' is not there")};
  c.ids_width = file.integer("top_k");
  c.correction_bias = file.reals("input/correction_bias").values;
  const auto widths = file.integers("input/expert_width").values;
  c.config.widths.assign(widths.begin(), widths.end());
  c.config.shared_width = file.integer("shared_intermediate_size");
  return concat(score, ":k=", c.ids_width, ",norm=", file.integer("norm_topk"),
                ",scale=", file.real("routed_scale"), ",bias=1,experts=", experts_text(file));
}

std::string choosing_router(const GoldenFile& file, GoldenCase& c) {
  c.ids_width = c.config.experts;
  std::vector<std::string> parts;
  const auto owner = file.integers("input/expert_modality").values;
  for (std::size_t e = 0; e < owner.size(); ++e)
    parts.push_back(concat(modality_names().at(std::size_t(owner[e])), ":", e));
  return concat("expert_choice:score=sigmoid,norm=0,factor=", file.real("capacity_factor"),
                ",experts=", join(parts, "/"));
}

struct Losses {
  Matrix<double> dz;  // (T,E)
  double value = 0;
};

// A balancer's loss and its gradient on the logits, on what the router makes of the file's logits.
Losses loss_of(const std::string& balancer, Router& router, const Batch& batch,
               const Matrix<double>& logits) {
  const RouterInput in{.scores = {logits}, .batch = batch};
  const Routing routing = router.route(in);
  const Matrix<double> p = router.probabilities(in, routing);
  Matrix<double> dprob(p.rows(), p.cols());
  Matrix<double> dlogits(p.rows(), p.cols());
  Matrix<double> dnoise;
  Matrix<double> dweight;
  const auto made = make_balancer(balancer);
  Losses out;
  out.value = made->coefficient() * made->loss({in, routing, p, router.experts(), {}}, 1,
                                               {dprob, dlogits, dnoise, dweight});
  std::vector<Matrix<double>> dscores{dlogits};
  router.backward(in, routing, {}, dprob, dscores);
  out.dz = std::move(dscores[0]);
  return out;
}

// "text:1/image:0.3" of values by modality
std::string by_modality(const std::vector<double>& values) {
  std::vector<std::string> parts;
  for (std::size_t m = 0; m < values.size(); ++m)
    parts.push_back(concat(modality_names().at(m), ":", values[m]));
  return join(parts, "/");
}
// all but one of them 0
std::vector<double> alone(std::size_t size, std::size_t m, double value) {
  std::vector<double> out(size, 0.0);
  out[m] = value;
  return out;
}

// The losses of LIMoE on the file's logits, by factors and least numbers of experts.
class EntropyCase {
 public:
  explicit EntropyCase(const GoldenFile& file)
      : batch_(batch_of(file)),
        logits_(golden_matrix(file, "input/logits")),
        router_(make_router("softmax:k=1", int(logits_.cols()))) {}

  Losses of(const std::vector<double>& local, const std::vector<double>& global,
            const std::vector<double>& least) const {
    return loss_of(concat("limoe:local=", by_modality(local), ",global=", by_modality(global),
                          ",least=", by_modality(least)),
                   *router_, batch_, logits_);
  }
  bool has(std::size_t modality) const {
    return std::ranges::count(batch_.modality, std::uint8_t(modality)) > 0;
  }
  double experts() const {
    return double(logits_.cols());
  }

 private:
  Batch batch_;
  Matrix<double> logits_;
  std::unique_ptr<Router> router_;
};

void run_entropy(const GoldenFile& file, Comparison& out) {
  const EntropyCase c(file);
  const auto local = file.reals("input/local_coef").values;
  const auto global = file.reals("input/global_coef").values;
  std::vector<double> least;
  for (const double tau : file.reals("input/tau").values)
    least.push_back(std::exp(tau));
  const std::size_t n = local.size();
  const std::vector<double> none(n, 0.0);
  // every modality spreads over fewer than so many, so that the threshold is the loss itself
  const std::vector<double> many(n, c.experts());
  std::vector<double> locals, globals, thresholded;
  for (std::size_t m = 0; m < n; ++m) {
    locals.push_back(c.of(alone(n, m, 1), none, least).value);
    const double lack = c.of(none, alone(n, m, 1), many).value;
    globals.push_back(c.has(m) ? lack - std::log(c.experts()) : 0);
    thresholded.push_back(c.of(none, alone(n, m, 1), least).value);
  }
  out.reals("local", locals);
  out.reals("global", globals);
  out.reals("global_thresholded", thresholded);
  const Losses total = c.of(local, global, least);
  out.real("total", total.value);
  out.reals("grad/logits", total.dz.flat());
}

void run_switch(const GoldenFile& file, Comparison& out) {
  const Batch batch = batch_of(file);
  const Matrix<double> logits = golden_matrix(file, "input/logits");
  const auto router =
      make_router(concat("softmax:k=", file.integer("top_k"), ",experts=", experts_text(file)),
                  int(logits.cols()));
  const auto coef = file.reals("input/coef").values;
  const auto loss = [&](const std::vector<double>& factors) {
    return loss_of("switch:coef=1,by=modality,factors=" + by_modality(factors), *router, batch,
                   logits);
  };
  std::vector<double> each;
  for (std::size_t m = 0; m < coef.size(); ++m)
    each.push_back(loss(alone(coef.size(), m, 1)).value);
  out.reals("loss", each);
  const Losses total = loss(coef);
  out.real("total", total.value);
  out.reals("grad/logits", total.dz.flat());
}

void run_orthogonal(const GoldenFile& file, Comparison& out) {
  const Matrix<double> w = golden_matrix(file, "param/router.weight");
  Matrix<double> dw(w.rows(), w.cols());
  const auto made = make_balancer(concat("orthogonal:coef=1,groups=", file.integer("groups")));
  out.real("loss", made->matrix_loss(w, 1, dw));
  out.reals("grad/router.weight", dw.flat());
}

// Picture n of (N, channels, height, width).
Picture picture_of(const GoldenArray<std::int64_t>& all, Index n) {
  Picture p{.height = int(all.dims[2]), .width = int(all.dims[3]), .channels = int(all.dims[1])};
  const Index area = all.dims[2] * all.dims[3];
  for (Index i = 0; i < area; ++i) {
    for (Index c = 0; c < all.dims[1]; ++c)
      p.pixel.push_back(std::uint8_t(all.values[std::size_t((n * all.dims[1] + c) * area + i)]));
  }
  return p;
}

// y = rows W^T + b, and its gradients.
void run_product(const GoldenFile& file, std::span<const double> rows, Comparison& out) {
  const Matrix<double> w = golden_matrix(file, "param/weight");
  const auto bias = file.reals("param/bias").values;
  const Matrix<double> dy = golden_matrix(file, "input/grad_y");
  Matrix<double> y(dy.rows(), w.rows());
  Matrix<double> dw(w.rows(), w.cols());
  std::vector<double> db(bias.size(), 0.0);
  double total = 0;
  for (Index t = 0; t < y.rows(); ++t) {
    const auto x = rows.subspan(std::size_t(t * w.cols()), std::size_t(w.cols()));
    for (Index o = 0; o < w.rows(); ++o) {
      y(t, o) = bias[std::size_t(o)];
      for (Index i = 0; i < w.cols(); ++i) {
        y(t, o) += x[std::size_t(i)] * w(o, i);
        dw(o, i) += dy(t, o) * x[std::size_t(i)];
      }
      db[std::size_t(o)] += dy(t, o);
      total += y(t, o) * dy(t, o);
    }
  }
  out.reals("y", y.flat());
  out.reals("grad/weight", dw.flat());
  out.reals("grad/bias", db);
  out.real("total_loss", total);
}

void run_patches(const GoldenFile& file, Comparison& out) {
  const auto images = file.integers("input/image");
  if (images.dims.size() != 4)
    throw Error(Exit::input, "input/image is not (pictures, channels, height, width)");
  const PatchRule rule{.patch = int(file.integer("patch")),
                       .merge = file.text("order") == "merge" ? int(file.integer("merge")) : 1,
                       .times = int(file.integer("temporal")),
                       .pixel_first = file.text("layout") == "hwc",
                       .mean = file.reals("input/mean").values,
                       .deviation = file.reals("input/std").values};
  std::vector<double> rows;
  for (Index n = 0; n < images.dims[0]; ++n) {
    const Matrix<double> one = patches_of(picture_of(images, n), rule);
    rows.insert(rows.end(), one.flat().begin(), one.flat().end());
  }
  out.reals("rows", rows);
  run_product(file, rows, out);
}

void run_sound_processor(const GoldenFile& file, Comparison& out) {
  const int bands = int(file.integer("num_mel_bins"));
  const auto wide = file.reals("input/samples").values;
  const std::vector<float> samples(wide.begin(), wide.end());
  const Matrix<double> rows = log_mel(samples, bands);
  std::vector<double> by_band;  // (bands, frames)
  for (int b = 0; b < bands; ++b) {
    for (Index f = 0; f < rows.rows(); ++f)
      by_band.push_back(rows(f, b));
  }
  out.reals("mel_filters", mel_filters(bands).flat());
  out.reals("input_features", by_band, processor_tolerance);
}

void run_picture_processor(const GoldenFile& file, Comparison& out) {
  const PatchRule rule{.patch = int(file.integer("patch")),
                       .merge = int(file.integer("merge")),
                       .times = int(file.integer("temporal")),
                       .mean = file.real_list("mean"),
                       .deviation = file.real_list("std")};
  std::vector<double> rows;
  std::vector<std::int64_t> grids;
  for (int n = 0; file.has(concat("input/image_", n)); ++n) {
    const auto image = file.integers(concat("input/image_", n));
    if (image.dims.size() != 3)
      throw Error(Exit::input, concat("input/image_", n, " is not (height, width, channels)"));
    Picture p{
        .height = int(image.dims[0]), .width = int(image.dims[1]), .channels = int(image.dims[2])};
    p.pixel.assign(image.values.begin(), image.values.end());
    const Matrix<double> one = patches_of(p, rule);
    rows.insert(rows.end(), one.flat().begin(), one.flat().end());
    grids.insert(grids.end(), {1, p.height / rule.patch, p.width / rule.patch});
  }
  out.reals("pixel_values", rows, processor_tolerance);
  out.integers("image_grid_thw", grids);
}

}  // namespace

bool is_modal_layer(const std::string& kind) {
  return kind == "masked_layer" || kind == "modality_expert_choice";
}

GoldenCase read_modal_layer(const GoldenFile& file) {
  GoldenCase c;
  const auto gate = file.reals("param/experts.gate");
  if (gate.dims.size() != 3)
    throw Error(Exit::input, "param/experts.gate is not (experts, width, hidden size)");
  c.config.experts = int(gate.dims[0]);
  c.config.width = gate.dims[1];
  c.config.hidden = gate.dims[2];
  c.config.router =
      file.text("kind") == "masked_layer" ? masked_router(file, c) : choosing_router(file, c);
  c.batch = batch_of(file);
  c.x = golden_matrix(file, "input/x");
  c.grad_y = golden_matrix(file, "input/grad_y");
  if (c.x.rows() != c.batch.tokens() || c.x.cols() != c.config.hidden)
    throw Error(Exit::input, "input/x is not a row of the hidden size for each modality");
  return c;
}

void run_golden_modal(const GoldenFile& file, const std::string& kind, Comparison& out) {
  if (kind == "modality_entropy")
    return run_entropy(file, out);
  if (kind == "modality_switch")
    return run_switch(file, out);
  if (kind == "router_orthogonal")
    return run_orthogonal(file, out);
  if (kind == "mrope")
    return run_golden_row_positions(file, out);
  if (kind == "rope_2d")
    return run_golden_picture_positions(file, out);
  if (kind == "attention_spans")
    return run_golden_spans(file, out);
  if (kind == "patch")
    return run_patches(file, out);
  if (kind == "processor")
    return file.has("input/samples") ? run_sound_processor(file, out)
                                     : run_picture_processor(file, out);
  throw Unsupported{concat("kind '", kind, "' is not there")};
}

}  // namespace moe
