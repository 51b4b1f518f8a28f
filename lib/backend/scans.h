// Recurrences along sequences: what state space models, linear attention and delta rules compute
// between their products with weights. A state goes from row to row of a sequence, a head at a
// time. All arguments are host memory. dynamic_cast<Scans<S>*>(&backend) finds the scans that a
// backend has of its own; scans_of() gives those or the definition: plain loops, sums in double.
#pragma once
#include <span>

#include "lib/core/view.h"

namespace moe {

template <class S>
class Backend;

struct ScanShape {
  Index heads = 1, groups = 1;     // head i reads group i / (heads / groups) of q, k and a
  Index key = 1, value = 1;        // rows and columns of a head's state
  bool before = false;             // o_t reads the state as it was before row t
  std::span<const Index> start{};  // (Q+1) first row of each sequence

  Index sequences() const {
    return Index(start.size()) - 1;
  }
};

// S_t = D_t S_(t-1) + b_t (a_t' D_t S_(t-1)) + k_t v_t',  o_t = S_t' q_t,  D_t = diag(exp(decay_t))
// Linear attention has neither a nor b. A delta rule with one vector for both, k_t = b_t, leaves
// out k.
template <class S>
struct ScanInputs {
  View<const S> q;        // (T, groups*key)
  View<const S> k;        // (T, groups*key), or empty: b is used
  View<const S> v;        // (T, heads*value)
  View<const S> decay;    // (T, heads), or (T, heads*key); <= 0
  View<const S> a;        // (T, groups*key) or empty
  View<const S> b;        // (T, heads*key), empty where a is
  View<const S> initial;  // (Q*heads*key, value), or empty: 0
};
// As the inputs; all are set. `initial` may be empty.
template <class S>
struct ScanGradients {
  View<S> q, k, v, decay, a, b, initial;
};

// Mamba's selective scan: a state of n numbers for each channel,
// h_t = exp(dt_t rate) h_(t-1) + dt_t x_t b_t,  y_t = h_t . c_t
template <class S>
struct SelectiveInputs {
  View<const S> x, dt;             // (T, channels)
  View<const S> rate;              // (channels, n), < 0
  View<const S> b, c;              // (T, n)
  std::span<const Index> start{};  // (Q+1)
  View<const S> initial;           // (Q*channels, n) or empty
};
template <class S>
struct SelectiveGradients {
  View<S> x, dt;    // set
  View<S> rate;     // added to
  View<S> b, c;     // set
  View<S> initial;  // set, may be empty
};

// RWKV-4: means of v weighted by e^k, that of earlier rows falling by e^-decay a row and that of
// the row itself times e^first. Kept as (num, den, max) so that no exponent is positive:
// o_t = (num e^max + e^(first+k_t) v_t) / (den e^max + e^(first+k_t))
template <class S>
struct WeightedMeanInputs {
  View<const S> k, v;              // (T, channels)
  View<const S> decay, first;      // (1, channels)
  std::span<const Index> start{};  // (Q+1)
  View<const S> initial;           // (Q*3, channels) num, den, max; empty: 0, 0, -1e38
};
template <class S>
struct WeightedMeanGradients {
  View<S> k, v;          // set
  View<S> decay, first;  // added to
  View<S> initial;       // set, may be empty
};

template <class S>
class Scans {
 public:
  virtual ~Scans() = default;

  // Sets `out` (T, heads*value) and, unless it is empty, the states after the last rows, which may
  // lie where the initial ones do.
  virtual void scan(const ScanInputs<S>&, const ScanShape&, View<S> last, View<S> out);
  // From the gradients by out and, unless it is empty, by the last states.
  virtual void scan_backward(const ScanInputs<S>&, const ScanShape&, View<const S> dout,
                             View<const S> dlast, const ScanGradients<S>&);
  virtual void selective_scan(const SelectiveInputs<S>&, View<S> last, View<S> out);
  virtual void selective_scan_backward(const SelectiveInputs<S>&, View<const S> dout,
                                       View<const S> dlast, const SelectiveGradients<S>&);
  virtual void weighted_mean(const WeightedMeanInputs<S>&, View<S> last, View<S> out);
  virtual void weighted_mean_backward(const WeightedMeanInputs<S>&, View<const S> dout,
                                      View<const S> dlast, const WeightedMeanGradients<S>&);
};

template <class S>
Scans<S>& scans_of(Backend<S>&);

extern template class Scans<float>;
extern template class Scans<double>;

}  // namespace moe
