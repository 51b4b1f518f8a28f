#include "lib/golden/golden_layer.h"

#include <algorithm>

#include "lib/balance/balancer.h"
#include "lib/core/error.h"
#include "lib/golden/comparison.h"
#include "lib/golden/golden_case.h"
#include "lib/golden/golden_mixer.h"
#include "lib/golden/golden_modal.h"
#include "lib/golden/golden_rules.h"
#include "lib/router/capacity.h"
#include "lib/router/router.h"

namespace moe {
namespace {

constexpr double tolerance64 = 1e-10, tolerance32 = 1e-5, modal_tolerance32 = 2e-5;

template <class S>
Matrix<S> narrow(const Matrix<double>& m) {
  Matrix<S> out(m.rows(), m.cols());
  for (Index i = 0; i < m.size(); ++i)
    out.data()[i] = S(m.data()[i]);
  return out;
}

// A correction bias of the file, or of the case, into the router's; it is used then.
void load_bias(const GoldenFile& file, const GoldenCase& c, std::span<double> beta,
               std::vector<std::string>& unused) {
  if (beta.empty())
    return;
  const auto values = c.correction_bias.empty() ? file.reals("param/router.correction_bias").values
                                                : c.correction_bias;
  if (values.size() != beta.size())
    throw Error(Exit::input, "param/router.correction_bias is not one number an expert");
  std::ranges::copy(values, beta.begin());
  std::erase(unused, "param/router.correction_bias");
}

// The file's parameters into the layer's; every one of either side must have its fellow.
template <class S>
void load(const GoldenFile& file, const GoldenCase& c, MoeLayer<S>& layer, Backend<S>& backend,
          std::vector<Parameter<S>*>& parameters) {
  std::vector<std::string> unused;
  for (const std::string& name : file.datasets()) {
    if (name.starts_with("param/"))
      unused.push_back(name);
  }
  layer.collect(parameters);
  for (Parameter<S>* p : parameters) {
    const std::string name = "param/" + p->name();
    const auto values = file.reals(name);
    if (values.size() != p->size()) {
      throw Error(Exit::input,
                  concat(name, " has ", values.size(), " numbers, and the layer's ", p->size()));
    }
    Matrix<double> wide(p->value().rows, p->value().cols);
    std::ranges::copy(values.values, wide.data());
    const Matrix<S> narrowed = narrow<S>(wide);
    p->set(narrowed.view());
    p->want_grad(backend);
    std::erase(unused, name);
  }
  load_bias(file, c, layer.router().correction_bias(), unused);
  if (!unused.empty())
    throw Unsupported{concat(unused[0], " has no place in our layer")};
}

Index valid_rows(const Batch& batch) {
  Index n = 0;
  for (Index t = 0; t < batch.tokens(); ++t)
    n += batch.is_valid(t);
  return n;
}

void compare_routing(const GoldenCase& c, const Routing& r, const Capacity& capacity,
                     Comparison& out) {
  // With integer data the logits are exact in any order of summation, in either precision.
  if (c.exact_ties)
    out.reals("logits", r.logits.flat(), 0);
  else
    out.reals("logits", r.logits.flat());
  if (!r.mix.empty())
    return;  // nobody is chosen
  out.reals("probs", r.score.flat());
  out.reals("scores", r.score.flat());
  out.ids("topk_ids", r.expert, c.ids_width);
  out.weights("topk_weights", r.weight, c.ids_width);
  out.integers("counts", count_experts(r.expert, c.config.experts));
  out.ids("post_capacity/ids", r.computed(), c.ids_width);
  out.weights("post_capacity/weights", r.combined(), c.ids_width);
  out.integers("post_capacity/counts", count_experts(r.computed(), c.config.experts));
  std::vector<std::int64_t> kept(std::size_t(r.tokens() * c.ids_width), 0);
  for (Index t = 0; t < r.tokens(); ++t) {
    for (Index j = 0; j < r.choices(); ++j)
      kept[t * c.ids_width + j] = r.computed()(t, j) >= 0;
  }
  out.integers("post_capacity/kept", kept);
  const Index valid = valid_rows(c.batch);
  const auto room = capacity.room_of(valid, int(r.choices()), c.config.experts);
  if (!room.empty())
    out.integers("post_capacity/capacity", std::vector<std::int64_t>(room.begin(), room.end()));
}

// What follows from the routing alone: summed weights and, where logits are positive or not, the
// share of zeros.
void compare_sums(const GoldenCase& c, const Routing& r, Comparison& out) {
  std::vector<double> importance(std::size_t(c.config.experts), 0.0);
  double chosen = 0;
  double valid = 0;
  for (Index t = 0; t < r.tokens(); ++t) {
    valid += c.batch.is_valid(t);
    for (Index j = 0; j < r.choices(); ++j) {
      if (r.expert(t, j) < 0)
        continue;
      ++chosen;
      importance[r.expert(t, j)] += r.weight(t, j);
    }
  }
  out.reals("importance", importance);
  out.real("relu_sparsity", 1 - chosen / (valid * c.config.experts));
  if (!r.noise.empty())
    out.reals("smooth_load", smooth_load(r, c.batch));
}

template <class S>
double total_loss(const GoldenCase& c, const Matrix<S>& y, const MoeLayer<S>& layer,
                  const MoeTape<S>& tape) {
  double sum = 0;
  for (Index i = 0; i < y.size(); ++i)
    sum += double(y.data()[i]) * c.grad_y.data()[i];
  for (std::size_t b = 0; b < tape.losses.size(); ++b)
    sum += layer.balancers()[b]->coefficient() * tape.losses[b];
  return sum;
}

// What the router thought on the way, and what one optimiser step makes of the state.
template <class S>
void compare_state(const GoldenCase& c, MoeLayer<S>& layer, const MoeTape<S>& tape,
                   Comparison& out) {
  for (const auto& [name, value] : layer.router().details(tape.input, tape.routing))
    out.reals(name, value.flat());
  if (tape.routing.mix.empty())
    compare_sums(c, tape.routing, out);
  layer.stepped(count_experts(tape.routing.expert, c.config.experts), valid_rows(c.batch));
  for (const auto& [name, numbers] : layer.state()) {
    if (name == "router.correction_bias")
      out.reals("updated/router.correction_bias", numbers);
    if (name == "balance.l1.coef")
      out.reals("updated/l1_coef", numbers);
  }
}

// One case in S: the layer with the file's parameters, and its arrays.
template <class S>
struct LayerCase {
  LayerCase(const GoldenFile& file, const GoldenCase& from, Backend<S>& b)
      : c(from),
        backend(b),
        layer(c.config, b),
        x(b, narrow<S>(c.x).view()),
        dy(b, narrow<S>(c.grad_y).view()),
        y(b, c.x.rows(), c.x.cols()),
        dx(b, c.x.rows(), c.x.cols()),
        dprevious(c.previous.rows(), c.previous.cols()),
        tape(c.batch) {
    load(file, c, layer, b, parameters);
  }
  Pass pass() const {
    return {.batch = c.batch,
            .training = c.training,
            .other_counts = c.other_counts,
            .gate = {.given = &c.given, .previous = c.previous.empty() ? nullptr : &c.previous}};
  }
  void forward() {
    layer.forward(pass(), x.view(), y.view(), tape);
    layer.fetch_routing(tape);
  }
  void backward(View<const S> arriving) {
    layer.backward(pass(), tape, x.view(), arriving, dx.view(),
                   {.dprevious = c.previous.empty() ? nullptr : &dprevious, .dscores = &dscores});
  }

  const GoldenCase& c;
  Backend<S>& backend;
  MoeLayer<S> layer;
  std::vector<Parameter<S>*> parameters;
  Array<S> x, dy, y, dx;
  std::vector<Matrix<double>> dscores;
  Matrix<double> dprevious;
  MoeTape<S> tape;
};

template <class S>
void compare_gradients(LayerCase<S>& l, Comparison& out) {
  const Matrix<S> host_dx = l.dx.to_host();
  out.tensor("grad/x", host_dx.view());
  if (!l.dscores.empty())
    out.reals("grad/logits", l.dscores[0].flat());
  if (!l.c.previous.empty())
    out.reals("grad/prev_logits", l.dprevious.flat());
  for (Parameter<S>* p : l.parameters) {
    Matrix<S> grad(p->value().rows, p->value().cols);
    l.backend.to_host(p->grad().data, grad.data(), std::size_t(grad.size()) * sizeof(S));
    out.tensor("grad/" + p->name(), std::as_const(grad).view());
  }
}

// Forward, backward and the update of one case in S; every value goes beside the expected one.
template <class S>
void run_layer(const GoldenFile& file, const GoldenCase& c, Backend<S>& backend, Comparison& out) {
  LayerCase<S> l(file, c, backend);
  l.forward();
  compare_routing(c, l.tape.routing, l.layer.capacity(), out);
  const Matrix<S> host_y = l.y.to_host();
  out.tensor("y", host_y.view());
  for (std::size_t b = 0; b < c.loss_names.size(); ++b) {
    if (!c.loss_names[b].empty())
      out.real(c.loss_names[b], l.tape.losses[b]);
  }
  out.real("total_loss", total_loss(c, host_y, l.layer, l.tape));

  l.backward(l.dy.view());
  compare_gradients(l, out);
  // what remains then comes from the losses alone
  const Array<S> nothing = Array<S>::zeros(backend, l.dy.rows(), l.dy.cols());
  l.backward(nothing.view());
  if (!l.dscores.empty())
    out.reals("aux_grad/logits", l.dscores[0].flat());

  compare_state(c, l.layer, l.tape, out);
}

void judge(GoldenResult& result, const char* precision, const Comparison& compared) {
  using State = GoldenResult::State;
  if (!compared.disagreement().empty() && result.state != State::failed) {
    result.state = State::failed;
    result.reason = concat(precision, ": ", compared.disagreement());
  } else if (const auto left = compared.left(); result.state == State::passed && !left.empty()) {
    result.state = State::unsupported;
    result.reason = concat("the layer computes nothing to compare with ", join(left));
  }
}

void verify_mixer(const GoldenFile& file, Backend<float>& device, GoldenResult& result) {
  Comparison wide(file, mixer_tolerance64), single(file, mixer_tolerance32);
  run_golden_mixer(file, *make_reference<double>(), wide, mixer_tolerance64, mixer_tolerance64);
  result.f64 = wide.worst();
  judge(result, "f64", wide);
  run_golden_mixer(file, device, single, mixer_tolerance32, mixer_gradient_tolerance32);
  result.f32 = single.worst();
  judge(result, "f32", single);
}

// A whole layer in both precisions.
void verify_layer(const GoldenFile& file, const GoldenCase& c, Backend<float>& device,
                  double within, GoldenResult& result) {
  // a refusal of the specs themselves: the case asks for something that a router or rule of ours
  // does not have
  try {
    MoeLayer<double>(c.config, *make_reference<double>());
  } catch (const Error& e) {
    if (e.code() == Exit::usage)
      throw Unsupported{e.what()};
    throw;
  }
  Comparison wide(file, tolerance64), single(file, within);
  run_layer(file, c, *make_reference<double>(), wide);
  result.f64 = wide.worst();
  judge(result, "f64", wide);
  if (c.f64_only)
    return;
  run_layer(file, c, device, single);
  result.f32 = single.worst();
  judge(result, "f32", single);
}

void verify(const GoldenFile& file, Backend<float>& device, GoldenResult& result) {
  const std::string format = file.text("format");
  const bool modal = format == "moe-golden-modal";
  if (format != "moe-golden-layer" && format != "moe-golden-mixer" && !modal)
    throw Unsupported{concat("files of the format '", format, "'")};
  // files of processors have none
  const std::string version =
      modal && !file.has_attribute("format_version") ? "1.0" : file.text("format_version");
  if (!version.starts_with("1."))
    throw Unsupported{concat("format version ", version)};
  if (format == "moe-golden-mixer")
    return verify_mixer(file, device, result);
  const std::string kind = file.text("kind");
  if (modal && is_modal_layer(kind))
    return verify_layer(file, read_modal_layer(file), device, modal_tolerance32, result);
  if (kind == "layer" && !modal)
    return verify_layer(file, read_golden_case(file), device, tolerance32, result);
  Comparison wide(file, tolerance64);
  if (modal)
    run_golden_modal(file, kind, wide);
  else
    run_golden_rules(file, kind, wide);
  result.f64 = wide.worst();
  judge(result, "f64", wide);
}

}  // namespace

std::string_view name_of(GoldenResult::State s) {
  constexpr std::string_view names[] = {"passed", "failed", "unsupported"};
  return names[std::size_t(s)];
}

GoldenResult verify_golden_case(const std::filesystem::path& path, Backend<float>& device) {
  GoldenResult result;
  result.name = path.stem().string();
  try {
    const GoldenFile file(path);
    verify(file, device, result);
  } catch (const Unsupported& u) {
    result.state = GoldenResult::State::unsupported;
    result.reason = u.why;
  } catch (const Error& e) {
    if (e.code() == Exit::memory || e.code() == Exit::environment)
      throw;
    result.state = GoldenResult::State::failed;
    result.reason = e.what();
  }
  return result;
}

std::vector<GoldenResult> verify_golden(const std::filesystem::path& folder,
                                        const std::string& device) {
  const auto backend = make_backend(device);
  if (std::filesystem::is_regular_file(folder))
    return {verify_golden_case(folder, *backend)};
  std::vector<std::filesystem::path> files;
  std::error_code failed;
  for (const auto& entry : std::filesystem::directory_iterator(folder, failed)) {
    if (entry.path().extension() == ".h5")
      files.push_back(entry.path());
  }
  if (failed) {
    throw Error(Exit::input,
                concat("cannot read the folder '", folder.string(), "': ", failed.message()))
        .hint("moe verify --golden DIR");
  }
  if (files.empty()) {
    throw Error(Exit::input, concat("no case files (*.h5) in '", folder.string(), "'"))
        .hint("a folder such as golden/layers");
  }
  std::ranges::sort(files);
  std::vector<GoldenResult> out;
  for (const auto& f : files)
    out.push_back(verify_golden_case(f, *backend));
  return out;
}

}  // namespace moe
