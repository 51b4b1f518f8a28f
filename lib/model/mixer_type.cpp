#include "lib/model/mixer_type.h"

#include "lib/core/error.h"
#include "lib/model/config.h"
#include "lib/model/layer_list.h"

namespace moe {
namespace {

std::string default_mixer() {
  return std::string(mixers().entries().front().name);
}

// An empty list is the first of mixers.def.
std::string or_default(const std::string& list) {
  return list.empty() ? default_mixer() : list;
}

}  // namespace

#define MIXER(name, about, examples) MakeMixer make_##name##_mixer;
#include "lib/model/mixers.def"
#undef MIXER

const Registry<MakeMixer>& mixers() {
  static const Registry<MakeMixer> all("mixer", {
#define MIXER(name, about, examples) {#name, about, examples, make_##name##_mixer},
#include "lib/model/mixers.def"
#undef MIXER
                                                });
  return all;
}

std::unique_ptr<MixerType> make_mixer_type(const std::string& text) {
  Spec spec(text);
  auto made = mixers().at(spec.name()).make(spec);
  spec.done();
  return made;
}

std::vector<std::string> layer_mixers(const std::string& list, int layers) {
  return layer_entries(or_default(list), layers, "mixer");
}

std::string resolved_mixer(const std::string& text) {
  Spec spec(text);
  mixers().at(spec.name()).make(spec);
  spec.done();
  return spec.resolved();
}

std::string resolved_mixers(const std::string& list, int layers) {
  std::vector<std::string> pattern = layer_pattern(or_default(list), layers, "mixer");
  for (std::string& text : pattern) {
    if (text != no_part)
      text = resolved_mixer(text);
  }
  const std::string out = layer_list(std::move(pattern));
  return out == default_mixer() ? "" : out;
}

template <class S>
LayerMixer<S> make_mixer(const std::string& spec, MixerPlace<S> place) {
  place.group = Spec(spec).name();
  return {place.group, make_mixer_type(spec)->make(place)};
}
template LayerMixer<float> make_mixer(const std::string&, MixerPlace<float>);
template LayerMixer<double> make_mixer(const std::string&, MixerPlace<double>);

template <class S>
std::vector<LayerMixer<S>> make_mixers(const ModelConfig& c, Backend<S>& backend,
                                       SharedParts<S>& shared) {
  std::vector<LayerMixer<S>> out;
  for (const std::string& spec : layer_mixers(c.mixer, c.layers)) {
    if (spec == no_part)
      out.push_back({spec, nullptr});
    else
      out.push_back(make_mixer<S>(spec, {c, int(out.size()), backend, shared}));
  }
  return out;
}
template std::vector<LayerMixer<float>> make_mixers(const ModelConfig&, Backend<float>&,
                                                    SharedParts<float>&);
template std::vector<LayerMixer<double>> make_mixers(const ModelConfig&, Backend<double>&,
                                                     SharedParts<double>&);

std::vector<std::optional<MixerShape>> mixer_shapes(const ModelConfig& c) {
  std::vector<std::optional<MixerShape>> out;
  for (const std::string& spec : layer_mixers(c.mixer, c.layers)) {
    const int layer = int(out.size());
    auto& shape = out.emplace_back();
    if (spec != no_part)
      shape = make_mixer_type(spec)->shape(c, layer);
  }
  return out;
}

}  // namespace moe
