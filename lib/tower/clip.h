// CLIP's encoder of pictures: a class row before the patches, learned places, LayerNorm, encoder.
// Its config.json and tensors are those of a checkpoint of its own.
#pragma once
#include "lib/tower/encoder.h"
#include "lib/tower/tower.h"

namespace moe {

template <class S>
class ClipEncoder {
 public:
  // Parts of whole CLIP checkpoints that read text are left alone.
  ClipEncoder(const ConfigReader& config, TowerTensors<S>&);
  const TowerPatches& patches() const {
    return patches_;
  }
  Index hidden() const {
    return encoder_.shape().hidden;
  }
  int layers() const {
    return encoder_.shape().layers;
  }
  struct States {
    Array<S> patch_embed;  // (patches, H)
    Array<S> hidden;       // (pictures*(1 + patches of one), H), class rows first
  };
  // What comes out behind so many layers; no norm behind the last.
  States states(View<const S> x, std::span<const PictureGrid>, int layers) const;
  Index length() const {  // patches of a picture
    return length_;
  }

 private:
  Backend<S>* backend_;
  TowerPatches patches_;
  Index length_ = 0;
  Affine<S> patch_matrix_;
  Array<S> class_row_, places_;
  RowNorm<S> before_, behind_;
  Encoder<S> encoder_;
};

extern template class ClipEncoder<float>;
extern template class ClipEncoder<double>;

}  // namespace moe
