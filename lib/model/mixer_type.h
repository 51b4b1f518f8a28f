// Which mixer a layer has. A mixer is one file in lib/model/mixers and one line in mixers.def.
// ModelConfig::mixer is a list of specs over the layers (layer_list.h) in which "none" is a layer
// without one; an empty list is the first of mixers.def.
#pragma once
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lib/core/registry.h"
#include "lib/core/spec.h"
#include "lib/model/mixer.h"
#include "lib/model/mixer_shape.h"

namespace moe {

struct ModelConfig;
template <class S>
class Backend;

// A part that several layers of a model share.
template <class S>
class SharedPart {
 public:
  virtual ~SharedPart() = default;
  virtual void collect(std::vector<ModelParameter<S>>& all) = 0;
};
template <class S>
struct SharedParts {
  struct Entry {
    std::string group;  // the mixer that made it
    std::shared_ptr<SharedPart<S>> part;
  };
  std::map<std::string, Entry> entry;
};

// Where a mixer is built.
template <class S>
struct MixerPlace {
  const ModelConfig& config;  // outlives the mixer
  int layer = 0;
  Backend<S>& backend;
  SharedParts<S>& shared;
  std::string group = {};  // name of the mixer

  // The part named so, made by the first layer that needs it.
  template <class Part, class Make>
  std::shared_ptr<Part> share(const std::string& name, const Make& make) const {
    auto& e = shared.entry[name];
    if (!e.part)
      e = {group, make()};
    return std::static_pointer_cast<Part>(e.part);
  }
};

// A mixer as a spec describes it, without numbers.
class MixerType {
 public:
  virtual ~MixerType() = default;
  virtual std::unique_ptr<Mixer<float>> make(const MixerPlace<float>&) const = 0;
  virtual std::unique_ptr<Mixer<double>> make(const MixerPlace<double>&) const = 0;
  // What its parameters, FLOPs, tape and state come from: a dry run and a plan build nothing.
  virtual MixerShape shape(const ModelConfig&, int layer) const = 0;
  // whether it turns queries and keys by their position
  virtual bool turns() const {
    return false;
  }
  // whether that can be a position on each of three axes (rope_axes.h)
  virtual bool turns_by_axes() const {
    return false;
  }
};

using MakeMixer = std::unique_ptr<MixerType>(Spec&);
const Registry<MakeMixer>& mixers();  // mixers.def; the first is the default
std::unique_ptr<MixerType> make_mixer_type(const std::string& spec);

// The spec of each layer's mixer, or "none". Throws Error(usage) where the list does not parse,
// names no mixer, or is longer than the model.
std::vector<std::string> layer_mixers(const std::string& list, int layers);
// The list with every default of its specs filled in; one entry where all layers are alike, and
// empty where that is the default.
std::string resolved_mixers(const std::string& list, int layers);
// One spec with its defaults filled in.
std::string resolved_mixer(const std::string& spec);

// The model with the fields that attention has in this layer; with the model's own where the layer
// has another mixer.
ModelConfig attention_fields(const ModelConfig&, int layer);
// The spec of attention with the fields of `own` where they are not those of `model`.
std::string attention_spec(const ModelConfig& model, const ModelConfig& own);

template <class S>
struct LayerMixer {
  std::string name;                 // "none" where there is none
  std::unique_ptr<Mixer<S>> mixer;  // null there
};
// The place's group is set.
template <class S>
LayerMixer<S> make_mixer(const std::string& spec, MixerPlace<S>);
// Those of all layers.
template <class S>
std::vector<LayerMixer<S>> make_mixers(const ModelConfig&, Backend<S>&, SharedParts<S>&);
std::vector<std::optional<MixerShape>> mixer_shapes(const ModelConfig&);

}  // namespace moe
