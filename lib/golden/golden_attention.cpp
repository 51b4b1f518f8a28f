#include "lib/golden/golden_attention.h"

#include "lib/core/batch.h"
#include "lib/golden/golden_numbers.h"
#include "lib/model/config.h"
#include "lib/model/mixer_type.h"
#include "lib/model/mixers/plain_attention.h"

namespace moe {
namespace {

using namespace golden;

// "self_attn.q_proj.weight" -> "q.weight", "encoder.relative_attention_bias.weight" ->
// "relative_attention_bias"
std::string file_name(const std::string& published) {
  std::string name = own_name(published);
  if (name.starts_with("relative_attention_bias"))
    return "relative_attention_bias";
  if (const auto at = name.find("_proj"); at != name.npos)
    name.erase(at, 5);
  return name;
}

// In a model of one layer, or the encoder of one of two.
ModelConfig model_of(const GoldenMixerCase& c) {
  const AttentionOptions& a = *c.attention;
  ModelConfig m = model_config(concat(
      "custom:vocabulary=8,width=2,experts=2,context=16,layers=", a.causal ? 1 : 2,
      ",hidden=", c.hidden, ",heads=", a.heads, ",kv_heads=", a.heads, ",head_dim=", a.head_dim,
      ",qkv_bias=", int(a.bias), ",o_bias=", int(a.bias), ",attention_scale=", a.scale, ",mixer={",
      c.spec.empty() ? "plain_attention" : c.spec, "}"));
  m.encoder_layers = a.causal ? 0 : 1;
  return m;
}

Batch sequences(Index count, Index length) {
  Batch b;
  b.token.assign(std::size_t(count * length), 0);
  for (Index q = 0; q < count; ++q)
    b.start.push_back((q + 1) * length);
  return b;
}

template <class S>
struct AttentionTrial {
  AttentionTrial(const GoldenFile& f, const GoldenMixerCase& from, Backend<S>& b)
      : file(f), c(from), backend(b), config(model_of(c)) {
    batch = sequences(c.batch, c.length);
    std::vector<std::uint8_t> valid;
    if (c.attention->key_mask) {
      for (const auto v : file.integers("input/key_mask").values)
        valid.push_back(std::uint8_t(v));
    }
    if (const Index keys = c.attention->cross; keys > 0) {
      source = sequences(c.batch, keys);
      source.valid = valid;
    } else {
      batch.valid = valid;
    }
  }
  Array<S> array(const char* name, Index length) const {
    const Matrix<S> m = numbers<S>(file, name, c.batch * length, c.hidden);
    return Array<S>(backend, m.view());
  }

  void run(Comparison& out, const Tolerances& within) {
    const Array<S> x = array("input/x", c.length);
    const Array<S> dy = array("input/grad_y", c.length);
    Array<S> y(backend, x.rows(), c.hidden), dx(backend, x.rows(), c.hidden);
    if (c.attention->cross > 0)
      cross(x, dy, y, dx, out, within);
    else
      self(x, dy, y, dx);
    const Matrix<S> host_y = y.to_host();
    compare(out, "y", host_y.view(), within.value);
    const double loss = weighed(host_y, dy.to_host());
    out.reals("total_loss", {&loss, 1}, within.value);
    const Matrix<S> host_dx = dx.to_host();
    compare(out, "grad/x", host_dx.view(), within.gradient);
    for (const ModelParameter<S>& p : parameters) {
      Matrix<S> grad(p.parameter->value().rows, p.parameter->value().cols);
      backend.to_host(p.parameter->grad().data, grad.data(), std::size_t(grad.size()) * sizeof(S));
      compare(out, "grad/" + file_name(p.published), std::as_const(grad).view(), within.gradient);
    }
  }

 private:
  void self(const Array<S>& x, const Array<S>& dy, Array<S>& y, Array<S>& dx) {
    mixer = make_mixer<S>(c.spec, {config, 0, backend, shared}).mixer;
    mixer->collect(parameters);
    for (auto& [name, entry] : shared.entry)
      entry.part->collect(parameters);
    load<S>(file, parameters, backend, file_name);
    const auto tape = mixer->forward(batch, x.view(), y.view(), nullptr);
    mixer->backward(batch, *tape, x.view(), dy.view(), dx.view());
  }
  void cross(const Array<S>& x, const Array<S>& dy, Array<S>& y, Array<S>& dx, Comparison& out,
             const Tolerances& within) {
    other = std::make_unique<CrossAttention<S>>(config, backend);
    other->collect(parameters);
    load<S>(file, parameters, backend, file_name);
    const Array<S> memory = array("input/kv", c.attention->cross);
    auto dmemory = Array<S>::zeros(backend, memory.rows(), memory.cols());
    const auto tape = other->forward(batch, x.view(), memory.view(), source, y.view(), nullptr);
    other->backward(batch, *tape, x.view(), memory.view(), source, dy.view(), dx.view(),
                    dmemory.view());
    const Matrix<S> host = dmemory.to_host();
    compare(out, "grad/kv", host.view(), within.gradient);
  }

  const GoldenFile& file;
  const GoldenMixerCase& c;
  Backend<S>& backend;
  ModelConfig config;
  SharedParts<S> shared;
  std::unique_ptr<Mixer<S>> mixer;
  std::unique_ptr<CrossAttention<S>> other;
  std::vector<ModelParameter<S>> parameters;
  Batch batch, source;
};

}  // namespace

template <class S>
void run_golden_attention(const GoldenFile& file, const GoldenMixerCase& c, Backend<S>& backend,
                          Comparison& out, double value, double gradient) {
  AttentionTrial<S>(file, c, backend).run(out, {value, gradient});
}

template void run_golden_attention(const GoldenFile&, const GoldenMixerCase&, Backend<float>&,
                                   Comparison&, double, double);
template void run_golden_attention(const GoldenFile&, const GoldenMixerCase&, Backend<double>&,
                                   Comparison&, double, double);

}  // namespace moe
