#include "lib/model/mixers/fourier.h"

#include <cmath>

#include "lib/core/parallel.h"

namespace moe {
namespace {

// Of the pairs of a head at one position.
struct Turns {
  std::vector<double> cosine, sine;
};

// sum_i w_ji waves_i for every row j of w; 1 for the pairs left over.
template <class S>
std::vector<double> mixed(View<const S> w, const std::vector<double>& waves, Index pairs) {
  std::vector<double> out(std::size_t(pairs), 1.0);
  for (Index j = 0; j < w.rows; ++j) {
    double sum = 0;
    for (Index i = 0; i < w.cols; ++i)
      sum += waves[std::size_t(i)] * double(w(j, i));
    out[std::size_t(j)] = sum;
  }
  return out;
}

template <class S>
Turns turns_of(const std::vector<double>& frequency, int position, View<const S> by_cosine,
               View<const S> by_sine, Index pairs, bool transposed) {
  std::vector<double> cosine;
  std::vector<double> sine;
  for (const double f : frequency) {
    cosine.push_back(std::cos(position * f));
    sine.push_back(std::sin(position * f));
  }
  Turns out{mixed(by_cosine, cosine, pairs), mixed(by_sine, sine, pairs)};
  for (double& s : out.sine)
    s = transposed ? -s : s;
  return out;
}

template <class S>
void turn_head(std::span<S> head, const Turns& by) {
  const std::size_t half = head.size() / 2;
  for (std::size_t j = 0; j < half; ++j) {
    const double a = double(head[j]);
    const double b = double(head[half + j]);
    head[j] = S(a * by.cosine[j] - b * by.sine[j]);
    head[half + j] = S(b * by.cosine[j] + a * by.sine[j]);
  }
}

}  // namespace

template <class S>
Fourier<S>::Fourier(const ModelConfig& c, Backend<S>& b)
    : rotary_(rotary_of(c.rope, c.rotary_dims(), c.rope_theta)), head_dim_(c.head_dim) {
  const Index n = Index(rotary_.frequency.size());
  const std::vector<Index> dims =
      rotary_.mixed_by_head ? std::vector<Index>{c.kv_heads, n, n} : std::vector<Index>{n, n};
  cosine = Parameter<S>(b, "fourier_cosine", dims);
  sine = Parameter<S>(b, "fourier_sine", dims);
  cosine.freeze();
  sine.freeze();
}

template <class S>
void Fourier<S>::turn(Backend<S>& backend, View<S> x, View<const int> position,
                      bool transposed) const {
  const Index kept = Index(rotary_.frequency.size());
  const Index heads = x.cols / head_dim_;
  const Matrix<S> by_cosine = cosine.to_host();
  const Matrix<S> by_sine = sine.to_host();
  const Index groups = by_cosine.rows() / kept;
  Matrix<S> host(x.rows, x.cols);
  backend.to_host(x.data, host.data(), std::size_t(host.size()) * sizeof(S));
  parallel_for(x.rows, 1, [&](Index t, Index) {
    Turns now;
    for (Index h = 0; h < heads; ++h) {
      const Index group = h * groups / heads;
      if (h == 0 || group != (h - 1) * groups / heads) {
        now = turns_of(rotary_.frequency, position(0, t), by_cosine.view().block(group, kept),
                       by_sine.view().block(group, kept), head_dim_ / 2, transposed);
      }
      turn_head(host.row(t).subspan(std::size_t(h * head_dim_), std::size_t(head_dim_)), now);
    }
  });
  backend.to_device(host.data(), x.data, std::size_t(host.size()) * sizeof(S));
}

template <class S>
void Fourier<S>::collect(std::vector<ModelParameter<S>>& all) {
  const double std = 0.5 / std::sqrt(double(rotary_.frequency.size()));
  const auto add = [&](Parameter<S>& p, const char* published) {
    all.push_back({.parameter = &p,
                   .start = {.std = std, .around_unit = true},
                   .published = published,
                   .swapped = true});
  };
  add(cosine, "rotary_emb.cos_coef");
  add(sine, "rotary_emb.sin_coef");
}

template struct Fourier<float>;
template struct Fourier<double>;

}  // namespace moe
