// One case: the file's numbers into a mixer, both passes, and all that comes out beside what is
// expected.
#include "lib/golden/golden_mixer.h"

#include <algorithm>

#include "lib/core/batch.h"
#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/golden/golden_attention.h"
#include "lib/golden/golden_case.h"
#include "lib/golden/golden_mixer_case.h"
#include "lib/golden/golden_numbers.h"
#include "lib/layer/parameter.h"
#include "lib/model/config.h"
#include "lib/model/mixer_type.h"
#include "lib/model/mixers/conv_part.h"
#include "lib/model/mixers/first_values.h"
#include "lib/model/mixers/row_math.h"
#include "lib/model/recurrent.h"

namespace moe {
namespace {

using namespace golden;

// A state of the file in our order, or back: heads of (rows, cols) that the file may write
// transposed.
template <class S>
Matrix<S> turned(const StatePart<S>& part, const Matrix<S>& m, bool from_file) {
  if (!part.swapped)
    return m;
  const Index cols = part.numbers.cols();
  const Index rows = part.rows / part.heads;
  Matrix<S> out(m.rows(), m.cols());
  for (Index block = 0; block < m.size() / (rows * cols); ++block) {
    const S* from = m.data() + block * rows * cols;
    S* to = out.data() + block * rows * cols;
    for (Index r = 0; r < rows; ++r) {
      for (Index c = 0; c < cols; ++c)
        (from_file ? to[r * cols + c] : to[c * rows + r]) =
            from_file ? from[c * rows + r] : from[r * cols + c];
    }
  }
  return out;
}
template <class S>
void set_states(const GoldenFile& file, const std::string& prefix, RecurrentState<S>& state,
                bool all) {
  for (StatePart<S>& part : state.part) {
    if (!all && !file.has(prefix + part.name))
      continue;
    const Matrix<S> m =
        numbers<S>(file, prefix + part.name, part.numbers.rows(), part.numbers.cols());
    const Matrix<S> ours = turned(part, m, true);
    part.numbers.set(ours.view());
  }
}

template <class S>
void compare_states(Comparison& out, const std::string& prefix, const RecurrentState<S>& state,
                    double tolerance) {
  for (const StatePart<S>& part : state.part) {
    const Matrix<S> m = turned(part, part.numbers.to_host(), false);
    compare(out, prefix + part.name, m.view(), tolerance);
  }
}
ModelConfig model_of(const GoldenMixerCase& c) {
  ModelConfig m = model_config(concat(
      "custom:vocabulary=8,heads=1,kv_heads=1,head_dim=2,width=2,experts=2,context=16,",
      "hidden=", c.hidden, ",layers=", c.layers, c.spec.empty() ? "" : ",mixer={" + c.spec + "}"));
  m.norm_eps = c.eps;
  return m;
}

// A causal convolution alone, as mixers have it.
template <class S>
class Convolution final : public RecurrentMixer<S> {
 public:
  Convolution(Backend<S>& b, Index channels, Index taps, bool bias, bool silu)
      : side_(b), silu_(silu) {
    w_ = Parameter<S>(b, "weight", {channels, 1, taps});
    if (bias)
      bias_ = Parameter<S>(b, "bias", {channels});
  }
  std::unique_ptr<MixerTape> forward(const Batch& batch, View<const S> x, View<S> y,
                                     MixerPast* past) override {
    auto tape = std::make_unique<Tape>();
    auto& state = static_cast<RecurrentState<S>&>(past->state);
    const HostNumbers<S> rows = side_.read(x);
    tape->pre = side_.array(x.rows, x.cols);
    tape->before = conv().forward(batch, rows.view, tape->pre.view(), &state.part[0]);
    Matrix<S> out = tape->pre.to_host();
    if (silu_)
      row_math::silu(tape->pre.view().data, out.data(), nullptr, out.size());
    side_.backend().to_device(out.data(), y.data, std::size_t(out.size()) * sizeof(S));
    return tape;
  }
  void backward_through(const Batch& batch, const MixerTape& tape, View<const S> x,
                        View<const S> dy, View<S> dx, RecurrentState<S>* gradient) override {
    const Tape& t = static_cast<const Tape&>(tape);
    const HostNumbers<S> rows = side_.read(x);
    Array<S> by = side_.fetched(Array<S>(side_.backend(), dy.rows, dy.cols));
    side_.backend().to_host(dy.data, by.view().data, by.bytes());
    Array<S> slope = side_.array(dy.rows, dy.cols);
    if (silu_) {
      row_math::silu(t.pre.view().data, nullptr, slope.view().data, slope.view().size());
      row_math::product(slope.view().data, by.view().data, by.view().data, by.view().size());
    }
    Array<S> out = side_.array(dx.rows, dx.cols);
    conv().backward(batch, by.view(), rows.view, t.before, out.view(), &gradient->part[0]);
    side_.backend().to_device(out.view().data, dx.data, out.bytes());
  }
  std::unique_ptr<MixerState> new_state(Index sequences) const override {
    auto out = std::make_unique<RecurrentState<S>>();
    const Index kept = w_.dims().back() - 1;
    out->part.push_back({"conv", kept, side_.zeros(sequences * kept, w_.value().rows)});
    return out;
  }
  void collect(std::vector<ModelParameter<S>>& all) override {
    all.push_back({.parameter = &w_, .published = "conv.weight"});
    if (!bias_.empty())
      all.push_back({.parameter = &bias_, .published = "conv.bias"});
  }

 private:
  struct Tape final : MixerTape {
    Array<S> pre, before;
  };
  ConvPart<S> conv() {
    return {side_, {&w_}, &bias_};
  }
  HostSide<S> side_;
  bool silu_;
  Parameter<S> w_, bias_;
};

// A mixer in its place, the case's sequences and states.
template <class S>
struct Trial {
  Trial(const GoldenFile& f, const GoldenMixerCase& from, Backend<S>& b)
      : file(f), c(from), backend(b), config(model_of(c)) {
    if (c.spec.empty()) {
      const bool bias = file.integer("bias") == 1;
      all.push_back({"conv", std::make_unique<Convolution<S>>(b, c.hidden, file.integer("kernel"),
                                                              bias, c.silu)});
    } else {
      all = make_mixers(config, backend, shared);
    }
    mixer = dynamic_cast<RecurrentMixer<S>*>(all.at(std::size_t(c.layer)).mixer.get());
    if (!mixer)
      throw Unsupported{concat("no states can be given to ", c.spec)};
    mixer->collect(parameters);
    load(file, parameters, backend);
    const Index rows = c.batch * c.length;
    batch.token.assign(std::size_t(rows), 0);
    for (Index q = 0; q < c.batch; ++q)
      batch.start.push_back((q + 1) * c.length);
    x = array("input/x");
    dy = array("input/grad_y");
    lend_values();
    state = fresh();
    gradient = fresh();
    for (StatePart<S>& part : gradient->part)
      part.numbers.clear();
    if (c.carried) {
      set_states(file, "input/state/", *state, true);
      set_states(file, "input/grad_state/", *gradient, false);  // no weight: 0
    }
  }
  Array<S> array(const char* name) const {
    const Matrix<S> m = numbers<S>(file, name, c.batch * c.length, c.hidden);
    return Array<S>(backend, m.view());
  }
  // Values of another layer, where the case brings some.
  void lend_values() {
    const auto entry = shared.entry.find(first_values_name);
    if (entry == shared.entry.end() || !file.has("input/v_first"))
      return;
    lent = std::make_shared<LayerValues<S>>();
    const Matrix<S> m = numbers<S>(file, "input/v_first", c.batch * c.length, c.hidden);
    lent->values = Array<S>(host, m.view());
    static_cast<FirstValues<S>&>(*entry->second.part).last = lent;
  }
  std::unique_ptr<RecurrentState<S>> fresh() const {
    auto made = mixer->new_state(c.batch);
    return std::unique_ptr<RecurrentState<S>>(static_cast<RecurrentState<S>*>(made.release()));
  }
  void run(Comparison& out, const Tolerances& within) {
    const Index rows = x.rows();
    Array<S> y(backend, rows, c.hidden), dx(backend, rows, c.hidden);
    std::vector<Index> start(std::size_t(c.batch) + 1, 0);
    MixerPast past{*state, start};
    const auto tape = mixer->forward(batch, x.view(), y.view(), &past);
    const Matrix<S> host_y = y.to_host();
    compare(out, "y", host_y.view(), within.value);
    compare_states(out, "state/", *state, within.value);
    double loss = weighed(host_y, numbers<S>(file, "input/grad_y", rows, c.hidden));
    for (std::size_t i = 0; i < state->part.size(); ++i) {
      loss += weighed(state->part[i].numbers.to_host(), gradient->part[i].numbers.to_host());
    }
    out.reals("total_loss", {&loss, 1}, within.value);
    mixer->backward_through(batch, *tape, x.view(), dy.view(), dx.view(), gradient.get());
    compare_gradients(dx.to_host(), out, within);
  }
  void compare_gradients(const Matrix<S>& host_dx, Comparison& out, const Tolerances& within) {
    compare(out, "grad/x", host_dx.view(), within.gradient);
    compare_states(out, "grad/state/", *gradient, within.gradient);
    if (lent) {
      const Matrix<S> by_values = lent->gradient.to_host();
      compare(out, "grad/v_first", by_values.view(), within.gradient);
    }
    for (const ModelParameter<S>& p : parameters) {
      Matrix<S> grad(p.parameter->value().rows, p.parameter->value().cols);
      backend.to_host(p.parameter->grad().data, grad.data(), std::size_t(grad.size()) * sizeof(S));
      compare(out, "grad/" + own_name(p.published), std::as_const(grad).view(), within.gradient);
    }
  }

  const GoldenFile& file;
  const GoldenMixerCase& c;
  Backend<S>& backend;
  HostSide<S> side{backend};
  Backend<S>& host = side.host();
  ModelConfig config;
  SharedParts<S> shared;
  std::shared_ptr<LayerValues<S>> lent;
  std::vector<LayerMixer<S>> all;
  RecurrentMixer<S>* mixer = nullptr;
  std::vector<ModelParameter<S>> parameters;
  Batch batch;
  Array<S> x, dy;
  std::unique_ptr<RecurrentState<S>> state, gradient;
};

}  // namespace

template <class S>
void run_golden_mixer(const GoldenFile& file, Backend<S>& backend, Comparison& out, double value,
                      double gradient) {
  const GoldenMixerCase c = read_golden_mixer(file);
  if (c.attention)
    return run_golden_attention(file, c, backend, out, value, gradient);
  Trial<S>(file, c, backend).run(out, {value, gradient});
}

template void run_golden_mixer(const GoldenFile&, Backend<float>&, Comparison&, double, double);
template void run_golden_mixer(const GoldenFile&, Backend<double>&, Comparison&, double, double);

}  // namespace moe
