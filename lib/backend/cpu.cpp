#include "lib/backend/cpu_half.h"

#include <cmath>
#include <cstring>

#include "lib/backend/cpu_tiles.h"
#include "lib/backend/native.h"
#include "lib/core/parallel.h"
#include "lib/core/text.h"

namespace moe {
namespace {

constexpr Index run_grain = Index(1) << 15;  // numbers a task takes
constexpr Index column_grain = 64;           // columns of an embedding gradient a task takes
constexpr Index norm_grain = 256;            // rows whose share of dw is summed before it is added

// Calls each(row) for every row, as many in a task as make it worth a thread's while.
void for_rows(Index rows, Index cols, const std::function<void(Index)>& each) {
  parallel_for(rows, 1 + run_grain / std::max<Index>(cols, 1), [&](Index first, Index last) {
    for (Index r = first; r < last; ++r)
      each(r);
  });
}

}  // namespace

std::unique_ptr<Backend<float>> make_cpu_backend(Spec& spec) {
  // 0 = as many as the process uses
  if (const int n = spec.get("threads", 0, 0); n > 0)
    set_threads(n);
  prove_threads();  // oneDNN starts them without a word to us
  if (spec.choice("dtype", {"f32", "bf16"}) == "f32")
    return std::make_unique<Cpu>();
  if (const std::string none = no_half_products(); !none.empty())
    return std::make_unique<Cpu>(concat("no bf16 products: ", none, ". Computing in f32."));
  return std::make_unique<CpuHalf>();
}
bool Cpu::native(Operation op) const {
  return overrides<Cpu>(op);
}

// ---- who goes where --------------------------------------------------------------------------

Plan Cpu::plan(View<const int> kept, int experts) {
  Plan p;
  p.place = Array<int>(*this, kept.rows, kept.cols);
  p.offset = Array<int>::zeros(*this, 1, experts + 1);
  int* offset = p.offset.view().data;
  int* place = p.place.view().data;
  for (const int e : kept.flat()) {
    if (e >= 0)
      ++offset[e + 1];
  }
  for (int e = 0; e < experts; ++e)
    offset[e + 1] += offset[e];
  p.slots = offset[experts];
  p.token = Array<int>(*this, 1, p.slots);
  p.choice = Array<int>(*this, 1, p.slots);
  int* token = p.token.view().data;
  int* choice = p.choice.view().data;
  std::vector<int> next(offset, offset + experts);
  for (Index t = 0, i = 0; t < kept.rows; ++t) {
    for (Index k = 0; k < kept.cols; ++k, ++i) {
      const int e = kept.data[i];
      const int slot = place[i] = e < 0 ? -1 : next[e]++;
      if (slot >= 0) {
        token[slot] = int(t);
        choice[slot] = int(i);
      }
    }
  }
  return p;
}
void Cpu::dispatch(In x, const Plan& plan, Out xs) {
  const int* token = plan.token.view().data;
  for_rows(plan.slots, xs.cols, [&](Index s) {
    std::memcpy(xs.data + s * xs.cols, x.data + token[s] * x.cols,
                std::size_t(x.cols) * sizeof(float));
  });
}
void Cpu::combine(In ys, const Plan& plan, In weight, Out y, float beta) {
  const View<const int> place = plan.place.view();
  for_rows(y.rows, y.cols, [&](Index t) {
    float* out = y.data + t * y.cols;
    float keep = beta;
    for (Index k = 0; k < place.cols; ++k) {
      if (const int s = place(t, k); s >= 0) {
        loops::axpby(ys.data + s * ys.cols, weight.empty() ? 1 : weight(t, k), out, keep, y.cols);
        keep = 1;
      }
    }
    if (keep == 0)
      std::fill_n(out, y.cols, 0.0f);
    else if (keep != 1)
      loops::scaled(out, out, keep, y.cols);
  });
}
void Cpu::combine_backward(In dy, In ys, const Plan& plan, In weight, Out dys, Out dweight) {
  const View<const int> place = plan.place.view();
  for_rows(dy.rows, dy.cols, [&](Index t) {
    const float* d = dy.data + t * dy.cols;
    for (Index k = 0; k < place.cols; ++k) {
      const int s = place(t, k);
      if (!dweight.empty())
        dweight(t, k) = s < 0 ? 0 : loops::dot(d, ys.data + s * ys.cols, dy.cols);
      if (s >= 0)
        loops::scaled(d, dys.data + s * dys.cols, weight.empty() ? 1 : weight(t, k), dy.cols);
    }
  });
}
void Cpu::scale_slots(Out xs, const Plan& plan, In weight) {
  const int* choice = plan.choice.view().data;
  for_rows(plan.slots, xs.cols, [&](Index s) {
    float* row = xs.data + s * xs.cols;
    loops::scaled(row, row, weight.data[choice[s]], xs.cols);
  });
}

// ---- row by row ------------------------------------------------------------------------------

void Cpu::activate(Activation a, In gate, In up, Out h) {
  parallel_for(up.size(), run_grain, [&](Index i, Index last) {
    loops::activate(a, gate.empty() ? nullptr : gate.data + i, up.data + i, h.data + i, last - i);
  });
}
void Cpu::activate_backward(Activation a, In gate, In up, const Plan& plan, In weight, In share,
                            Out dh, Out dgate, Out dup, Out dweight) {
  std::ranges::fill(dweight.flat(), 0.0f);
  parallel_for(plan.slots, 1 + run_grain / std::max<Index>(up.cols, 1),
               [&](Index first, Index last) {
                 const RowTile t{0, first, last - first};
                 const auto rows = [&](auto m) {
                   return tiles::rows_of(m, t);
                 };
                 tiles::activation_backward(a, rows(gate), rows(up), t, plan, weight, rows(share),
                                            rows(dh), rows(dgate), rows(dup), dweight);
               });
}
void Cpu::norm(In x, In w, double eps, Out y, Out rstd) {
  const Index n = w.cols;
  parallel_for(x.size() / n, norm_grain, [&](Index r, Index last) {
    loops::norm(x.data + r * n, w.data, eps, y.data + r * n, rstd.data + r, last - r, n);
  });
}
void Cpu::norm_backward(In dy, In x, In w, In rstd, Out dx, Out dw, float beta) {
  const Index n = w.cols;
  const Index rows = x.size() / n;
  const Index chunks = (rows + norm_grain - 1) / norm_grain;
  Array<float> parts = Array<float>::zeros(*this, dw.empty() ? 0 : chunks, n);
  const Out part = parts.view();
  parallel_for(rows, norm_grain, [&](Index r, Index last) {
    loops::norm_backward(dy.data + r * n, x.data + r * n, w.data, rstd.data + r, dx.data + r * n,
                         part.empty() ? nullptr : part.data + r / norm_grain * n, beta, last - r,
                         n);
  });
  loops::add_columns(part.data, dw.data, part.rows, n);
}
void Cpu::add(In x, Out y, float scale) {
  parallel_for(y.size(), run_grain,
               [&](Index i, Index last) { loops::add(x.data + i, y.data + i, scale, last - i); });
}
void Cpu::sigmoid_gate(In gate, In x, Out y) {
  for_rows(y.rows, y.cols, [&](Index t) {
    loops::add(x.data + t * x.cols, y.data + t * y.cols, 1 / (1 + std::exp(-gate(t, 0))), y.cols);
  });
}
void Cpu::sigmoid_gate_backward(In dy, In gate, In x, Out dgate, Out dx) {
  for_rows(dy.rows, dy.cols, [&](Index t) {
    const float s = 1 / (1 + std::exp(-gate(t, 0)));
    dgate(t, 0) = loops::dot(dy.data + t * dy.cols, x.data + t * x.cols, dy.cols) * s * (1 - s);
    loops::scaled(dy.data + t * dy.cols, dx.data + t * dx.cols, s, dy.cols);
  });
}

// ---- tokens ----------------------------------------------------------------------------------

void Cpu::embed(const Weight& table, View<const int> id, Out y) {
  if (table.source) {
    return for_rows(y.rows, y.cols,
                    [&](Index t) { table.source->read(table.first + id(0, t), y.slice(t, 1)); });
  }
  const In rows = plain<float>(table);
  for_rows(y.rows, y.cols, [&](Index t) {
    std::memcpy(y.data + t * y.cols, rows.data + id(0, t) * rows.cols,
                std::size_t(y.cols) * sizeof(float));
  });
}
// Every task takes a strip of columns and all tokens in order: no two tasks write one number.
void Cpu::embed_backward(In dy, View<const int> id, Out dtable) {
  parallel_for(dy.cols, column_grain, [&](Index first, Index last) {
    for (Index t = 0; t < dy.rows; ++t) {
      loops::add(dy.data + t * dy.cols + first, dtable.data + id(0, t) * dtable.cols + first, 1,
                 last - first);
    }
  });
}
void Cpu::cross_entropy(Out z, View<const int> target, Out loss, float scale, bool backward) {
  for_rows(z.rows, z.cols, [&](Index t) {
    loss(0, t) = loops::cross_entropy(z.data + t * z.cols, z.cols, target(0, t), scale, backward);
  });
}

// ---- optimiser -------------------------------------------------------------------------------

void Cpu::adamw(Out value, Out grad, Out m, Out v, const AdamW& o) {
  parallel_for(value.size(), run_grain, [&](Index i, Index last) {
    loops::adamw(value.data + i, grad.data + i, m.data + i, v.data + i, o, last - i);
  });
}
double Cpu::sum_squares(In x) {
  std::vector<double> parts(std::size_t((x.size() + run_grain - 1) / run_grain));
  parallel_for(x.size(), run_grain, [&](Index i, Index last) {
    parts[i / run_grain] = loops::sum_squares(x.data + i, last - i);
  });
  double sum = 0;
  for (const double p : parts)
    sum += p;
  return sum;
}

}  // namespace moe
