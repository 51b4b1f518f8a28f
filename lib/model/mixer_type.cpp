#include "lib/model/mixer_type.h"

#include <algorithm>
#include <charconv>

#include "lib/core/error.h"
#include "lib/core/spec_lists.h"
#include "lib/model/config.h"

namespace moe {
namespace {

Index times_of(std::string_view word, const std::string& list) {
  Index n = 0;
  const auto [end, failed] = std::from_chars(word.data(), word.data() + word.size(), n);
  if (failed != std::errc() || end != word.data() + word.size() || n < 1) {
    throw Error(Exit::usage,
                concat("'", word, "' in mixer={", list, "} is not a number of layers of 1 or more"))
        .hint(
            "entries are separated by + and repeated by x, behind their options: "
            "short_conv:kernel=3x2+attention");
  }
  return n;
}

std::string default_mixer() {
  return std::string(mixers().entries().front().name);
}

// "a*3;b" -> a, a, a, b
std::vector<std::string> pattern_of(const std::string& list, Index layers) {
  if (list.empty())
    return {default_mixer()};
  std::vector<std::string> out;
  for (const std::string& entry : split_list(list, ";+")) {
    const auto [name, count] = repeated_entry(entry);
    const Index times = times_of(count, list);
    if (times > layers - Index(out.size())) {
      throw Error(Exit::usage,
                  concat("mixer={", list, "} names more layers than the ", layers, " of the model"))
          .hint("a shorter pattern is repeated over the layers");
    }
    out.insert(out.end(), std::size_t(times), name);
  }
  return out;
}

std::string shortened(const std::vector<std::string>& pattern) {
  std::string out;
  for (std::size_t i = 0; i < pattern.size();) {
    std::size_t n = 1;
    while (i + n < pattern.size() && pattern[i + n] == pattern[i])
      ++n;
    out += concat(out.empty() ? "" : ";", pattern[i], n > 1 ? concat("*", n) : "");
    i += n;
  }
  return out;
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
  const std::vector<std::string> pattern = pattern_of(list, layers);
  std::vector<std::string> out;
  for (std::size_t l = 0; l < std::size_t(layers); ++l)
    out.push_back(pattern[l % pattern.size()]);
  return out;
}

std::string resolved_mixers(const std::string& list, int layers) {
  std::vector<std::string> pattern = pattern_of(list, layers);
  for (std::string& text : pattern) {
    Spec spec(text);
    mixers().at(spec.name()).make(spec);
    spec.done();
    text = spec.resolved();
  }
  if (std::ranges::count(pattern, pattern[0]) == std::ptrdiff_t(pattern.size()))
    pattern.resize(1);
  const std::string out = shortened(pattern);
  return out == default_mixer() ? "" : out;
}

template <class S>
std::vector<LayerMixer<S>> make_mixers(const ModelConfig& c, Backend<S>& backend,
                                       SharedParts<S>& shared) {
  std::vector<LayerMixer<S>> out;
  for (const std::string& spec : layer_mixers(c.mixer, c.layers)) {
    const std::string name = Spec(spec).name();
    const MixerPlace<S> place{c, int(out.size()), backend, shared, name};
    out.push_back({name, make_mixer_type(spec)->make(place)});
  }
  return out;
}
template std::vector<LayerMixer<float>> make_mixers(const ModelConfig&, Backend<float>&,
                                                    SharedParts<float>&);
template std::vector<LayerMixer<double>> make_mixers(const ModelConfig&, Backend<double>&,
                                                     SharedParts<double>&);

std::vector<MixerShape> mixer_shapes(const ModelConfig& c) {
  std::vector<MixerShape> out;
  for (const std::string& spec : layer_mixers(c.mixer, c.layers))
    out.push_back(make_mixer_type(spec)->shape(c, int(out.size())));
  return out;
}

}  // namespace moe
