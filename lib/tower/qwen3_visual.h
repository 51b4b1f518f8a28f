// The encoder of pictures and videos of Qwen3-VL and Qwen3-Omni: patches of two frames in blocks,
// learned places read between the cells of a square table, rotation by row and column, attention
// inside a frame, a merger of blocks; further mergers of single layers (deepstack).
#pragma once
#include "lib/tower/encoder.h"
#include "lib/tower/tower.h"

namespace moe {

// How the two families spell the tensors of a merger.
struct MergerNames {
  std::string list, norm, first, second;  // list: of deepstack
};

template <class S>
class QwenPictures final : public PictureTower<S> {
 public:
  // at: "model.visual."; features have `width` numbers
  QwenPictures(const ConfigReader& vision, TowerTensors<S>&, const std::string& at,
               const MergerNames&, Index width);
  TowerPatches patches() const override {
    return patches_;
  }
  Index rows_of(const PictureGrid& g) const override {
    return g.patches() / patches_.merge / patches_.merge;
  }
  TowerOutput<S> encode(View<const S> x, std::span<const PictureGrid>) const override;

 private:
  struct Merger {
    bool joined_norm = false;  // the norm is over a block, else over each of its patches
    RowNorm<S> norm;
    TwoLayers<S> layers;
  };
  Merger read_merger(TowerTensors<S>&, const std::string& name, const MergerNames&,
                     bool joined_norm, Index out) const;
  Array<S> merged(const Merger&, View<const S> x) const;

  Backend<S>* backend_;
  TowerPatches patches_;
  int side_ = 0;  // of the table of places
  double theta_ = 0;
  Affine<S> patch_matrix_;
  Matrix<S> places_;
  Encoder<S> encoder_;
  Merger merger_;
  std::vector<int> deep_layers_;  // whose outputs have mergers of their own
  std::vector<Merger> deep_;
};

extern template class QwenPictures<float>;
extern template class QwenPictures<double>;

}  // namespace moe
