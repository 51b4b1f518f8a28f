// The encoder of sounds of Qwen3-Omni: log-mel frames in pieces of 2 n_window, three convolutions
// of steps of two with GELU behind each, a product, waves by place in the piece, encoder layers in
// windows, a norm and two products. Every piece is padded to the longest of all sounds, and what
// the convolutions put out where it is padded reaches into its last rows: so does the class.
#pragma once
#include "lib/tower/encoder.h"
#include "lib/tower/tower.h"

namespace moe {

// Rows of a piece of so many frames behind three convolutions.
int rows_of_frames(int frames);

template <class S>
class SoundEncoder final : public SoundTower<S> {
 public:
  // at: "audio_tower."; features have `width` numbers
  SoundEncoder(const ConfigReader& audio, TowerTensors<S>&, const std::string& at, Index width);
  int bands() const override {
    return bands_;
  }
  Index rows_of(Index frames) const override {
    return frames / piece_frames_ * rows_of_frames(piece_frames_) +
           rows_of_frames(int(frames % piece_frames_));
  }
  TowerOutput<S> encode(std::span<const Matrix<S>> sounds) const override;

 private:
  // 3x3 over (band, time), steps of two, a border of zeros
  struct Convolution {
    Array<S> weight;  // (O, 9*C): the nine places one after the other, the channels of each
    Array<S> bias;
  };
  // A piece as rows of channels, time by time, band by band.
  struct Plane {
    Array<S> rows;  // (times*bands, C)
    int times = 0, bands = 0;
  };
  void read_convolutions(TowerTensors<S>&, const std::string& at, Index channels, Index hidden);
  Index longest_piece(std::span<const Matrix<S>> sounds) const;
  Convolution read_convolution(TowerTensors<S>&, const std::string& name, Index out,
                               Index in) const;
  Plane convolved(const Convolution&, const Plane&) const;
  Array<S> piece(const Matrix<S>& sound, Index first, Index frames, Index padded) const;

  Backend<S>* backend_;
  int bands_ = 0, piece_frames_ = 0, windows_ = 1, most_places_ = 0;
  std::string file_;
  Convolution convolution_[3];
  Affine<S> out_;  // its columns in the order of Plane
  Encoder<S> encoder_;
  RowNorm<S> norm_;
  TwoLayers<S> projector_;
};

extern template class SoundEncoder<float>;
extern template class SoundEncoder<double>;

}  // namespace moe
