#include "lib/tower/sound_encoder.h"

#include <algorithm>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/tower/places.h"
#include "lib/tower/settings.h"

namespace moe {
namespace {

constexpr double norm_eps = 1e-5;  // torch's own, which the class takes
constexpr int class_rows = 13;     // what the class takes a whole piece for, whatever its length
const TowerActivation exact_gelu{Activation::gelu};

int halved(int n) {
  return (n + 1) / 2;
}

// The nine neighbours of every second place, as rows of a plane; `border` for those outside.
std::vector<int> neighbours(int times, int bands, int border) {
  std::vector<int> out;
  for (int t = 0; t < halved(times); ++t) {
    for (int f = 0; f < halved(bands); ++f) {
      for (int i = 0; i < 9; ++i) {
        const int band = 2 * f + i / 3 - 1;
        const int time = 2 * t + i % 3 - 1;
        const bool inside = band >= 0 && band < bands && time >= 0 && time < times;
        out.push_back(inside ? time * bands + band : border);
      }
    }
  }
  return out;
}

// Columns (a, b) of every row become (b, a).
template <class S>
Matrix<S> columns_turned(const Matrix<S>& m, Index a, Index b) {
  Matrix<S> out(m.rows(), m.cols());
  for (Index r = 0; r < m.rows(); ++r) {
    for (Index i = 0; i < a; ++i) {
      for (Index j = 0; j < b; ++j)
        out(r, j * a + i) = m(r, i * b + j);
    }
  }
  return out;
}

}  // namespace

int rows_of_frames(int frames) {
  return halved(halved(halved(frames)));
}

template <class S>
SoundEncoder<S>::SoundEncoder(const ConfigReader& c, TowerTensors<S>& t, const std::string& at,
                              Index width)
    : backend_(t.backend()), file_(c.file()) {
  const EncoderShape s{.hidden = size_in(c, "d_model", 1280),
                       .width = size_in(c, "encoder_ffn_dim", 5120),
                       .heads = size_in(c, "encoder_attention_heads", 20),
                       .layers = size_in(c, "encoder_layers", 32),
                       .eps = norm_eps,
                       .activation = read_activation(c, "activation_function", "gelu")};
  bands_ = size_in(c, "num_mel_bins", 128);
  piece_frames_ = 2 * size_in(c, "n_window", 50);
  windows_ = size_in(c, "n_window_infer", 800) / piece_frames_;
  if (windows_ < 1)
    c.refuse("n_window_infer is less than two of n_window: no piece fits into a window");
  most_places_ = size_in(c, "max_source_positions", 1500);
  read_convolutions(t, at, size_in(c, "downsample_hidden_size", 480), s.hidden);
  encoder_ = Encoder<S>(t, at + "layers.",
                        {.first_norm = "self_attn_layer_norm",
                         .query = "self_attn.q_proj",
                         .key = "self_attn.k_proj",
                         .value = "self_attn.v_proj",
                         .out = "self_attn.out_proj",
                         .second_norm = "final_layer_norm",
                         .up = "fc1",
                         .down = "fc2"},
                        s);
  norm_ = read_layer_norm(t, at + "ln_post", s.hidden, norm_eps);
  const Index put_out = size_in(c, "output_dim", 3584);
  if (put_out != width)
    c.refuse(concat("output_dim is ", put_out, " and the language model has vectors of ", width));
  projector_ = {read_affine(t, at + "proj1", s.hidden, s.hidden),
                read_affine(t, at + "proj2", width, s.hidden), s.activation};
}

template <class S>
void SoundEncoder<S>::read_convolutions(TowerTensors<S>& t, const std::string& at, Index channels,
                                        Index hidden) {
  for (int i = 0; i < 3; ++i) {
    convolution_[i] =
        read_convolution(t, concat(at, "conv2d", i + 1), channels, i == 0 ? 1 : channels);
  }
  const int left = rows_of_frames(bands_);
  const Matrix<S> out = t.matrix(at + "conv_out.weight", {hidden, channels * left});
  if (!t.counts_only())
    out_.weight = Array<S>(*backend_, columns_turned(out, channels, left).view());
}

template <class S>
typename SoundEncoder<S>::Convolution SoundEncoder<S>::read_convolution(TowerTensors<S>& t,
                                                                        const std::string& name,
                                                                        Index out, Index in) const {
  Convolution c;
  const Matrix<S> weight = t.matrix(name + ".weight", {out, in, 3, 3});
  if (!t.counts_only())
    c.weight = Array<S>(*backend_, columns_turned(weight, in, 9).view());
  c.bias = t.array(name + ".bias", {out});
  return c;
}

template <class S>
typename SoundEncoder<S>::Plane SoundEncoder<S>::convolved(const Convolution& c,
                                                           const Plane& x) const {
  Backend<S>& b = *backend_;
  const Array<S> zeros = Array<S>::zeros(b, 1, x.rows.cols());
  const Array<S> bordered = one_over_other(b, x.rows.view(), zeros.view());
  const Array<S> around =
      chosen_rows(b, bordered.view(), neighbours(x.times, x.bands, int(x.rows.rows())));
  const View<const S> in = joined(around, 9);
  Array<S> y(b, in.rows, c.weight.rows());
  b.linear(in, Weight(c.weight.view()), y.view(), 0);
  b.add_bias(c.bias.view(), y.view());
  return {activated(b, exact_gelu, y), halved(x.times), halved(x.bands)};
}

// (rows, H) of frames first .. first+frames of a sound, padded with zeros; those that are padding
// are left out.
template <class S>
Array<S> SoundEncoder<S>::piece(const Matrix<S>& sound, Index first, Index frames,
                                Index padded) const {
  Backend<S>& b = *backend_;
  Matrix<S> cells(padded * bands_, 1);
  std::copy_n(sound.data() + first * bands_, frames * bands_, cells.data());
  Plane plane{Array<S>(b, cells.view()), int(padded), bands_};
  for (const Convolution& c : convolution_)
    plane = convolved(c, plane);
  const Array<S> rows = out_(b, joined(plane.rows, plane.bands));
  const Index kept = rows_of_frames(int(frames));
  Array<S> out = copy_of(b, rows.view().slice(0, kept));
  const Matrix<S> waves = vectors_of_sound_places<S>(kept, rows.cols());
  b.add(Array<S>(b, waves.view()).view(), out.view(), 1);
  return out;
}

// Frames of the longest piece of all sounds.
template <class S>
Index SoundEncoder<S>::longest_piece(std::span<const Matrix<S>> sounds) const {
  Index longest = 0;
  for (const Matrix<S>& sound : sounds) {
    if (sound.cols() != bands_ || sound.rows() < 1) {
      throw Error(Exit::input, concat(file_, ": a sound of ", sound.rows(), " frames of ",
                                      sound.cols(), " bands, and num_mel_bins is ", bands_));
    }
    longest = std::max(longest, std::min(sound.rows(), Index(piece_frames_)));
  }
  if (longest == piece_frames_ && rows_of_frames(piece_frames_) != class_rows) {
    throw Error(Exit::input, concat(file_, ": n_window is ", piece_frames_ / 2,
                                    ", and the class counts whole pieces as if it were 50"))
        .hint(concat("sounds of fewer than ", piece_frames_, " frames"));
  }
  if (rows_of_frames(int(longest)) > most_places_) {
    throw Error(Exit::input, concat(file_, ": a piece has ", rows_of_frames(int(longest)),
                                    " rows and max_source_positions is ", most_places_));
  }
  return longest;
}

template <class S>
TowerOutput<S> SoundEncoder<S>::encode(std::span<const Matrix<S>> sounds) const {
  Backend<S>& b = *backend_;
  const Index longest = longest_piece(sounds);
  const Index window = rows_of_frames(int(longest)) * windows_;
  std::vector<Array<S>> pieces;
  std::vector<Index> start{0};
  TowerOutput<S> out;
  for (const Matrix<S>& sound : sounds) {
    Index rows = 0;
    for (Index first = 0; first < sound.rows(); first += piece_frames_) {
      const Index frames = std::min(Index(piece_frames_), sound.rows() - first);
      pieces.push_back(piece(sound, first, frames, longest));
      rows += pieces.back().rows();
    }
    for (Index done = 0; done < rows; done += window)
      start.push_back(start.back() + std::min(window, rows - done));
    out.rows.push_back(rows);
  }
  Array<S> x = Array<S>::zeros(b, start.back(), encoder_.shape().hidden);
  Index row = 0;
  for (const Array<S>& p : pieces) {
    b.add(p.view(), x.view().slice(row, p.rows()), 1);
    row += p.rows();
  }
  encoder_.forward(b, x.view(), start, nullptr);
  out.features = projector_(b, norm_(b, x).view()).to_host();
  out.last_hidden = out.features;
  return out;
}

template class SoundEncoder<float>;
template class SoundEncoder<double>;

}  // namespace moe
