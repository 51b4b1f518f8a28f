// Causal convolutions of the cpu backend: a task takes some rows of one sequence, a loop over the
// columns for each tap.
#include <algorithm>

#include "lib/backend/cpu.h"
#include "lib/backend/cpu_loops.h"
#include "lib/core/matrix.h"

namespace moe {
namespace {

using In = View<const float>;
using Out = View<float>;

constexpr Index conv_rows = 64;  // of one task

// (H,K) -> (K,H)
Matrix<float> by_tap(In w) {
  Matrix<float> out(w.cols, w.rows);
  for (Index h = 0; h < w.rows; ++h) {
    for (Index j = 0; j < w.cols; ++j)
      out(j, h) = w(h, j);
  }
  return out;
}

// Rows first..end of a sequence that has origin..last.
struct Piece {
  Index sequence, first, end, origin, last;
};
std::vector<Piece> pieces(std::span<const Index> start) {
  std::vector<Piece> out;
  for (Index q = 0; q + 1 < Index(start.size()); ++q) {
    const Index origin = start[q];
    const Index end = start[std::size_t(q) + 1];
    for (Index t = origin; t < end; t += conv_rows)
      out.push_back({q, t, std::min(end, t + conv_rows), origin, end});
  }
  return out;
}

// dx_t = sum of taps times later rows of dy, up to the sequence's last
void dx_row(In dy, const Matrix<float>& taps, Index t, Index last, float* to) {
  std::fill_n(to, dy.cols, 0.0f);
  for (Index j = 0; j < taps.rows(); ++j) {
    if (const Index row = t + taps.rows() - 1 - j; row < last)
      loops::add_times(taps.row(j).data(), dy.row(row).data(), to, dy.cols);
  }
}
// sum (K+1,H) += the share of row t by each tap, and by the bias
void dw_row(In dy, In x, Index t, Index origin, Index taps, float* sum) {
  for (Index j = 0; j < taps; ++j) {
    if (const Index row = t - taps + 1 + j; row >= origin)
      loops::add_times(dy.row(t).data(), x.row(row).data(), sum + j * x.cols, x.cols);
  }
  loops::add(dy.row(t).data(), sum + taps * x.cols, 1, x.cols);
}

}  // namespace

void Cpu::causal_conv(In x, In w, In bias, std::span<const Index> start, In before, Out y) {
  const Index kept = w.cols - 1;
  const Index n = x.cols;
  const Matrix<float> taps = by_tap(w);
  const std::vector<Piece> all = pieces(start);
  run_tasks(Index(all.size()), double(x.size()) * double(w.cols), [&](Index task) {
    const Piece& p = all[task];
    const Index origin = p.origin;
    for (Index t = p.first; t < p.end; ++t) {
      float* to = y.row(t).data();
      if (bias.empty())
        std::fill_n(to, n, 0.0f);
      else
        std::copy_n(bias.data, n, to);
      for (Index j = 0; j <= kept; ++j) {
        const Index row = t - kept + j;
        if (row >= origin)
          loops::add_times(taps.row(j).data(), x.row(row).data(), to, n);
        else if (!before.empty())
          loops::add_times(taps.row(j).data(),
                           before.row((p.sequence + 1) * kept + row - origin).data(), to, n);
      }
    }
  });
}

void Cpu::causal_conv_backward(In dy, In x, In w, std::span<const Index> start, Out dx, Out dw,
                               Out dbias) {
  const Matrix<float> taps = by_tap(w);
  const std::vector<Piece> all = pieces(start);
  // sums of each piece by tap, and by the bias
  const bool summed = !dw.empty() || !dbias.empty();
  Matrix<float> sums(Index(all.size()) * (w.cols + 1), summed ? x.cols : 0);
  run_tasks(Index(all.size()), 2 * double(x.size()) * double(w.cols), [&](Index task) {
    const Piece& p = all[task];
    for (Index t = p.first; t < p.end; ++t) {
      dx_row(dy, taps, t, p.last, dx.row(t).data());
      if (summed)
        dw_row(dy, x, t, p.origin, w.cols, sums.row(task * (w.cols + 1)).data());
    }
  });
  for (Index j = 0; j <= w.cols && summed; ++j) {
    for (Index h = 0; h < x.cols; ++h) {
      double sum = 0;
      for (Index p = 0; p < Index(all.size()); ++p)
        sum += double(sums(p * (w.cols + 1) + j, h));
      if (j < w.cols && !dw.empty())
        dw(h, j) += float(sum);
      if (j == w.cols && !dbias.empty())
        dbias(0, h) += float(sum);
    }
  }
}

}  // namespace moe
