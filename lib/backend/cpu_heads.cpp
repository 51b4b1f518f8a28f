// What the cpu backend does to heads on their way to attention and back: turning by tables of
// angles, clamping, joining, centring, sinks.
#include <cmath>
#include <cstring>

#include "lib/backend/cpu.h"
#include "lib/backend/cpu_loops.h"
#include "lib/core/parallel.h"

namespace moe {
namespace {

constexpr Index run_grain = Index(1) << 15;  // numbers a task takes

void for_rows(Index rows, Index cols, const std::function<void(Index)>& each) {
  parallel_for(rows, 1 + run_grain / std::max<Index>(cols, 1), [&](Index first, Index last) {
    for (Index r = first; r < last; ++r)
      each(r);
  });
}

}  // namespace

void Cpu::center(Out x) {
  for_rows(x.rows, x.cols, [&](Index t) { loops::center(x.data + t * x.cols, x.cols); });
}
void Cpu::clamp(Out x, double limit) {
  parallel_for(x.size(), run_grain,
               [&](Index i, Index last) { loops::clamp(x.data + i, float(limit), last - i); });
}
void Cpu::softcap(Out x, double cap) {
  const float c = float(cap);
  parallel_for(x.size(), run_grain, [&](Index i, Index last) {
    for (; i < last; ++i)
      x.data[i] = c * std::tanh(x.data[i] / c);
  });
}
// The slope as a product: 1 - (y/cap)^2 would lose its digits where y comes near cap.
void Cpu::softcap_backward(In y, double cap, Out dy) {
  const float c = float(cap);
  const float by = 1 / (c * c);
  parallel_for(y.size(), run_grain, [&](Index i, Index last) {
    for (; i < last; ++i)
      dy.data[i] *= (c - y.data[i]) * (c + y.data[i]) * by;
  });
}
void Cpu::clamp_backward(In y, double limit, Out dy) {
  parallel_for(y.size(), run_grain, [&](Index i, Index last) {
    loops::clamp_backward(y.data + i, float(limit), dy.data + i, last - i);
  });
}

std::shared_ptr<const Cpu::Angles> Cpu::angles(const Rotation& r, Index positions) {
  const std::lock_guard lock(angles_mutex_);
  auto& kept = angles_[{r.scale, {r.frequency.begin(), r.frequency.end()}}];
  if (kept && kept->cosine.rows() >= positions)
    return kept;
  Index rows = 256;
  while (rows < positions)
    rows *= 2;
  const Index pairs = Index(r.frequency.size());
  auto made =
      std::make_shared<Angles>(Angles{Matrix<float>(rows, pairs), Matrix<float>(rows, pairs)});
  parallel_for(rows, 64, [&](Index first, Index last) {
    for (Index p = first; p < last; ++p) {
      for (Index j = 0; j < pairs; ++j) {
        const double angle = double(p) * r.frequency[j];
        made->cosine(p, j) = float(r.scale * std::cos(angle));
        made->sine(p, j) = float(r.scale * std::sin(angle));
      }
    }
  });
  return kept = made;
}
void Cpu::rope(Out x, const Rotation& r, View<const int> position, bool transposed) {
  int most = 0;
  for (const int p : position.flat())
    most = std::max(most, p);
  const auto table = angles(r, Index(most) + 1);
  for_rows(x.rows, x.cols, [&](Index t) {
    const Index p = position(0, t);
    loops::rope(x.data + t * x.cols + r.first, table->cosine.row(p).data(),
                table->sine.row(p).data(), transposed ? -1.0f : 1.0f, x.cols / r.head_dim,
                r.head_dim, Index(r.frequency.size()), r.interleaved);
  });
}

void Cpu::join_heads(In a, In b, int heads, Out y) {
  const Index m = a.cols / heads;
  const Index n = y.cols / heads - m;
  const Index apart = b.cols == n ? 0 : n;
  for_rows(y.rows, y.cols, [&](Index t) {
    for (Index h = 0; h < heads; ++h) {
      float* to = y.data + t * y.cols + h * (m + n);
      std::memcpy(to, a.data + t * a.cols + h * m, std::size_t(m) * sizeof(float));
      std::memcpy(to + m, b.data + t * b.cols + h * apart, std::size_t(n) * sizeof(float));
    }
  });
}
void Cpu::split_heads(In y, int heads, Out a, Out b) {
  const Index m = a.cols / heads;
  const Index n = y.cols / heads - m;
  const bool shared = b.cols == n;
  for_rows(y.rows, y.cols, [&](Index t) {
    float* one = b.data + t * b.cols;
    if (shared)
      std::fill_n(one, n, 0.0f);
    for (Index h = 0; h < heads; ++h) {
      const float* from = y.data + t * y.cols + h * (m + n);
      std::memcpy(a.data + t * a.cols + h * m, from, std::size_t(m) * sizeof(float));
      if (shared)
        loops::add(from + m, one, 1, n);
      else
        std::memcpy(one + h * n, from + m, std::size_t(n) * sizeof(float));
    }
  });
}

void Cpu::attention_sink(In sink, Out out, Out lse) {
  const Index d = out.cols / lse.cols;
  for_rows(out.rows, out.cols, [&](Index t) {
    for (Index h = 0; h < lse.cols; ++h) {
      float& l = lse(t, h);
      const float s = sink(0, h);
      const float after = std::fmax(l, s) + std::log1p(std::exp(-std::fabs(l - s)));
      loops::scaled(&out(t, h * d), &out(t, h * d), std::exp(l - after), d);
      l = after;
    }
  });
}
void Cpu::attention_sink_backward(In sink, In out, In lse, In dout, Out dsink) {
  const Index d = out.cols / lse.cols;
  parallel_for(lse.cols, 1, [&](Index h, Index last) {
    for (; h < last; ++h) {
      double sum = 0;
      for (Index t = 0; t < out.rows; ++t) {
        sum += double(std::exp(sink(0, h) - lse(t, h))) *
               double(loops::dot(&out(t, h * d), &dout(t, h * d), d));
      }
      dsink(0, h) -= float(sum);
    }
  });
}

}  // namespace moe
