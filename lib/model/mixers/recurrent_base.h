// What the files of recurrent mixers share: their list of parameters, and the MixerType made of
// their options.
#pragma once
#include <memory>
#include <string>

#include "lib/core/batch.h"
#include "lib/core/error.h"
#include "lib/model/config.h"
#include "lib/model/mixer_type.h"
#include "lib/model/mixers/host_side.h"
#include "lib/model/recurrent.h"

namespace moe {

template <class S>
class RecurrentBase : public RecurrentMixer<S> {
 public:
  RecurrentBase(const MixerPlace<S>& at, std::string prefix)
      : config_(at.config), side_(at.backend), prefix_(std::move(prefix)) {}

  void collect(std::vector<ModelParameter<S>>& all) override {
    for (const ModelParameter<S>& p : listed_)
      all.push_back(p);
  }

 protected:
  // Makes a parameter and lists it; `published` stands below the mixer's prefix.
  void make(Parameter<S>& p, const char* name, std::vector<Index> dims, ParameterKind kind,
            Start start, const char* published) {
    p = Parameter<S>(side_.backend(), name, std::move(dims), kind);
    listed_.push_back(
        {.parameter = &p, .start = std::move(start), .published = prefix_ + published});
  }
  void matrix(Parameter<S>& p, const char* name, Index out, Index in, const char* published,
              MatrixRole role = MatrixRole::mixer) {
    make(p, name, {out, in}, ParameterKind::matrix, matrix_start(config_, role, in), published);
  }
  void vector(Parameter<S>& p, const char* name, Index n, Start start, const char* published) {
    make(p, name, {n}, ParameterKind::vector, std::move(start), published);
  }
  // Draws as large as those of a uniform one within 1/sqrt(K): what comes out is of the size that
  // went in.
  void kernel(Parameter<S>& p, const char* name, Index channels, Index taps,
              const char* published) {
    make(p, name, {channels, 1, taps}, ParameterKind::matrix,
         {.std = 1 / std::sqrt(3.0 * double(taps))}, published);
  }

  // An optional bias of the mixer's last product.
  void add_bias(const Parameter<S>& bias, View<S> y) const {
    if (!bias.empty())
      side_.backend().add_bias(bias.value(), y);
  }
  void bias_backward(View<const S> dy, Parameter<S>& bias) const {
    if (!bias.grad().empty())
      side_.backend().bias_grad(dy, bias.grad());
  }

  // The states of a pass that goes on from earlier ones, or null.
  static RecurrentState<S>* states(MixerPast* past) {
    return past ? &static_cast<RecurrentState<S>&>(past->state) : nullptr;
  }
  const ModelConfig& config_;
  HostSide<S> side_;

 private:
  std::string prefix_;
  std::vector<ModelParameter<S>> listed_;
};

// Options has shape(const ModelConfig&, int layer); M is made of a place and the options.
template <class Options, template <class> class M>
class RecurrentType final : public MixerType {
 public:
  explicit RecurrentType(Options o) : options_(std::move(o)) {}

  std::unique_ptr<Mixer<float>> make(const MixerPlace<float>& at) const override {
    return std::make_unique<M<float>>(at, options_);
  }
  std::unique_ptr<Mixer<double>> make(const MixerPlace<double>& at) const override {
    return std::make_unique<M<double>>(at, options_);
  }
  MixerShape shape(const ModelConfig& c, int layer) const override {
    return options_.shape(c, layer);
  }

 private:
  Options options_;
};

// The pieces of a mixer's own list.
struct OwnPieces {
  PieceList list;
  void matrix(Count rows, Count cols, Count count = 1) {
    list.matrix(ModelPart::attention, rows, cols, count);
  }
  void vector(Count size) {
    list.vector(ModelPart::attention, size);
  }
};

}  // namespace moe
