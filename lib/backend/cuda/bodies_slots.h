// Bodies of the ways to the experts and back. A token reads the rows of its slots (place), so no
// two rows are ever written by two groups at once: no atomics, and the same bytes every time.
#pragma once
#include "lib/backend/cuda/bodies_rows.h"

namespace moe::gpu {

// s: a position of the sorted choices, whose experts are key[s]; those not computed come last
struct PlaceChoices {
  const int *key, *choice;
  int *place, *token;
  int choices, experts;
  MOE_HD void operator()(Index s) const {
    place[choice[s]] = key[s] < experts ? int(s) : -1;
    token[s] = choice[s] / choices;
  }
};

// The expert of slot s: the last one whose first slot is not after s.
MOE_HD inline Index expert_of(const int* offset, Index experts, Index s) {
  Index low = 0;
  Index high = experts;  // offset[low] <= s < offset[high]
  while (high - low > 1) {
    const Index middle = (low + high) / 2;
    (offset[middle] <= s ? low : high) = middle;
  }
  return low;
}

struct GroupedAddBias {
  const float* b;
  const int* offset;
  float* y;
  Index cols, experts;
  template <class G>
  MOE_HD void operator()(Index s, const G& g) const {
    const float* mine = b + expert_of(offset, experts, s) * cols;
    for (Index c = g.lane(); c < cols; c += G::width)
      y[s * cols + c] += mine[c];
  }
};

struct Dispatch {  // xs[s] = x[token(s)]
  const float* x;
  const int* token;
  float* xs;
  Index cols;
  template <class G>
  MOE_HD void operator()(Index s, const G& g) const {
    const float* from = x + token[s] * cols;
    for (Index c = g.lane(); c < cols; c += G::width)
      xs[s * cols + c] = from[c];
  }
};

struct Combine {  // y_t = beta y_t + sum_k w_tk ys[place(t,k)]
  const float* ys;
  const int* place;
  const float* weight;  // null: 1
  float* y;
  Index cols, choices;
  float beta;
  template <class G>
  MOE_HD void operator()(Index t, const G& g) const {
    for (Index c = g.lane(); c < cols; c += G::width) {
      double sum = beta == 0 ? 0 : double(beta) * double(y[t * cols + c]);
      for (Index k = 0; k < choices; ++k) {
        if (const Index s = place[t * choices + k]; s >= 0)
          sum += (weight ? double(weight[t * choices + k]) : 1.0) * double(ys[s * cols + c]);
      }
      y[t * cols + c] = float(sum);
    }
  }
};

struct CombineBackward {
  const float *dy, *ys;
  const int* place;
  const float* weight;   // null: 1
  float *dys, *dweight;  // dweight null: not wanted
  Index cols, choices;
  template <class G>
  MOE_HD void operator()(Index t, const G& g) const {
    for (Index k = 0; k < choices; ++k) {
      const Index s = place[t * choices + k];
      const double sum = dweight && s >= 0 ? dot(g, dy + t * cols, ys + s * cols, cols) : 0;
      if (dweight && g.lane() == 0)
        dweight[t * choices + k] = float(sum);
      const float w = weight ? weight[t * choices + k] : 1;
      for (Index c = g.lane(); s >= 0 && c < cols; c += G::width)
        dys[s * cols + c] = w * dy[t * cols + c];
    }
  }
};

struct ScaleSlots {  // xs[s] *= w of its choice
  float* xs;
  const int* choice;
  const float* weight;
  Index cols;
  template <class G>
  MOE_HD void operator()(Index s, const G& g) const {
    for (Index c = g.lane(); c < cols; c += G::width)
      xs[s * cols + c] *= weight[choice[s]];
  }
};

struct ActivateBackward {  // dh becomes w h
  Activation a;
  const float *gate, *up;  // gate null where ungated
  const int* choice;
  const float *weight, *share;        // null: 1, 0
  float *dh, *dgate, *dup, *dweight;  // dgate, dweight null: not wanted
  Index cols;
  template <class G>
  MOE_HD void operator()(Index s, const G& g) const {
    const float w = weight ? weight[choice[s]] : 1;
    double sum = 0;
    for (Index i = s * cols + g.lane(); i < (s + 1) * cols; i += G::width) {
      const Body<float> b = body(a, gate ? gate[i] : 0.0f, up[i]);
      const float d = dh[i];
      sum += double(d) * double(b.h);
      dup[i] = w * d * b.dup;
      if (dgate)
        dgate[i] = w * d * b.dgate;
      dh[i] = w * b.h;
    }
    if (!dweight)
      return;
    sum = g.sum(sum);
    if (g.lane() == 0)
      dweight[choice[s]] = float(sum + (share ? double(share[s]) : 0.0));
  }
};

}  // namespace moe::gpu
