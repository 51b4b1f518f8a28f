#include "lib/model/fourier.h"

#include <cmath>

#include "lib/core/parallel.h"

namespace moe {

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
  const Index half = head_dim_ / 2;
  const Index heads = x.cols / head_dim_;
  const Matrix<S> by_cosine = cosine.to_host();
  const Matrix<S> by_sine = sine.to_host();
  const Index groups = by_cosine.rows() / kept;
  Matrix<S> host(x.rows, x.cols);
  backend.to_host(x.data, host.data(), std::size_t(host.size()) * sizeof(S));
  parallel_for(x.rows, 1, [&](Index t, Index) {
    std::vector<double> c(std::size_t(half), 1.0);
    std::vector<double> s(std::size_t(half), transposed ? -1.0 : 1.0);
    std::vector<double> plain_c;
    std::vector<double> plain_s;
    for (const double f : rotary_.frequency) {
      plain_c.push_back(std::cos(position(0, t) * f));
      plain_s.push_back(std::sin(position(0, t) * f));
    }
    for (Index h = 0; h < heads; ++h) {
      const Index group = h * groups / heads;
      for (Index j = 0; j < kept && (h == 0 || group != (h - 1) * groups / heads); ++j) {
        double sum_c = 0;
        double sum_s = 0;
        for (Index i = 0; i < kept; ++i) {
          sum_c += plain_c[std::size_t(i)] * double(by_cosine(group * kept + j, i));
          sum_s += plain_s[std::size_t(i)] * double(by_sine(group * kept + j, i));
        }
        c[std::size_t(j)] = sum_c;
        s[std::size_t(j)] = transposed ? -sum_s : sum_s;
      }
      for (Index j = 0; j < half; ++j) {
        S& a = host(t, h * head_dim_ + j);
        S& b = host(t, h * head_dim_ + half + j);
        const double va = double(a);
        const double vb = double(b);
        a = S(va * c[std::size_t(j)] - vb * s[std::size_t(j)]);
        b = S(vb * c[std::size_t(j)] + va * s[std::size_t(j)]);
      }
    }
  });
  backend.to_device(host.data(), x.data, std::size_t(host.size()) * sizeof(S));
}

template struct Fourier<float>;
template struct Fourier<double>;

}  // namespace moe
