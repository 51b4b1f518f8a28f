// The activations of expert bodies, vectorised: the formulas of kinds.h with a fast exponential.
// Compiled with optimisation in every build type.
#include "lib/backend/cpu_loops.h"
#include "lib/backend/simd.h"

namespace moe::loops {
namespace {

using Both = Slope<float>;

MOE_INLINE Both fast_silu(float v) {
  const float s = simd::sigmoid(v);
  return {v * s, s + v * s * (1 - s)};
}
MOE_INLINE Both fast_gelu(float v) {
  const float cdf = simd::normal_cdf(v);
  return {v * cdf, cdf + v * simd::exp(-0.5f * v * v) * 0.39894228f};
}
MOE_INLINE Both fast_gelu_tanh(float v) {
  const float t = simd::tanh(0.79788456f * (v + 0.044715f * v * v * v));
  return {0.5f * v * (1 + t),
          0.5f * (1 + t) + 0.5f * v * (1 - t * t) * 0.79788456f * (1 + 0.134145f * v * v)};
}
MOE_INLINE Both fast_relu(float v) {
  return {v > 0 ? v : 0, v > 0 ? 1.0f : 0.0f};
}
MOE_INLINE Both fast_relu2(float v) {
  const float r = v > 0 ? v : 0;
  return {r * r, 2 * r};
}
MOE_INLINE Body<float> fast_clamped(float g, float u) {
  const float gc = g > 7 ? 7 : g;
  const float uc = u < -7 ? -7 : u > 7 ? 7 : u;
  const float q = simd::sigmoid(1.702f * gc);
  const float dg = (uc + 1) * (q + 1.702f * gc * q * (1 - q));
  return {(uc + 1) * gc * q, g > 7 ? 0 : dg, uc == u ? gc * q : 0};
}

MOE_INLINE Body<float> fast_limited(float g, float u, float limit) {
  const float uc = u < -limit ? -limit : u > limit ? limit : u;
  const Both phi = fast_silu(g > limit ? limit : g);
  return {phi.value * uc, g > limit ? 0 : phi.slope * uc, uc == u ? phi.value : 0};
}

// h = phi(gate) up, or phi(up) where there is no gate
template <class Phi>
MOE_INLINE void forward(Phi phi, const float* gate, const float* up, float* h, Index n) {
  if (gate) {
    for (Index i = 0; i < n; ++i)
      h[i] = phi(gate[i]).value * up[i];
  } else {
    for (Index i = 0; i < n; ++i)
      h[i] = phi(up[i]).value;
  }
}
template <class Phi>
MOE_INLINE void backward(Phi phi, const float* gate, const float* up, const float* dh, float w,
                         float* __restrict h, float* __restrict dgate, float* __restrict dup,
                         Index n) {
  if (gate) {
    for (Index i = 0; i < n; ++i) {
      const Both p = phi(gate[i]);
      const float d = w * dh[i];
      h[i] = p.value * up[i];
      dgate[i] = d * p.slope * up[i];
      dup[i] = d * p.value;
    }
  } else {
    for (Index i = 0; i < n; ++i) {
      const Both p = phi(up[i]);
      h[i] = p.value;
      dup[i] = w * dh[i] * p.slope;
    }
  }
}

}  // namespace

#define MOE_PHI(f)                             \
  [](float v) __attribute__((always_inline)) { \
    return f(v);                               \
  }

MOE_SIMD void activate(Activation a, const float* gate, const float* up, float* h, Index n) {
  if (!is_gated(a))
    gate = nullptr;
  if (a.limited()) {
    for (Index i = 0; i < n; ++i)
      h[i] = fast_limited(gate[i], up[i], a.limit).h;
    return;
  }
  switch (a.kind) {
    case Activation::swiglu:
    case Activation::silu:
      return forward(MOE_PHI(fast_silu), gate, up, h, n);
    case Activation::geglu:
    case Activation::gelu:
      return forward(MOE_PHI(fast_gelu), gate, up, h, n);
    case Activation::geglu_tanh:
    case Activation::gelu_tanh:
      return forward(MOE_PHI(fast_gelu_tanh), gate, up, h, n);
    case Activation::reglu:
    case Activation::relu:
      return forward(MOE_PHI(fast_relu), gate, up, h, n);
    case Activation::relu2:
      return forward(MOE_PHI(fast_relu2), gate, up, h, n);
    case Activation::swiglu_clamped:
      for (Index i = 0; i < n; ++i)
        h[i] = fast_clamped(gate[i], up[i]).h;
  }
}

MOE_SIMD void activate_backward(Activation a, const float* gate, const float* up, const float* dh,
                                float w, float* __restrict h, float* __restrict dgate,
                                float* __restrict dup, Index n) {
  if (!is_gated(a))
    gate = nullptr;
  if (a.limited()) {
    for (Index i = 0; i < n; ++i) {
      const Body<float> b = fast_limited(gate[i], up[i], a.limit);
      const float d = w * dh[i];
      h[i] = b.h;
      dgate[i] = d * b.dgate;
      dup[i] = d * b.dup;
    }
    return;
  }
  switch (a.kind) {
    case Activation::swiglu:
    case Activation::silu:
      return backward(MOE_PHI(fast_silu), gate, up, dh, w, h, dgate, dup, n);
    case Activation::geglu:
    case Activation::gelu:
      return backward(MOE_PHI(fast_gelu), gate, up, dh, w, h, dgate, dup, n);
    case Activation::geglu_tanh:
    case Activation::gelu_tanh:
      return backward(MOE_PHI(fast_gelu_tanh), gate, up, dh, w, h, dgate, dup, n);
    case Activation::reglu:
    case Activation::relu:
      return backward(MOE_PHI(fast_relu), gate, up, dh, w, h, dgate, dup, n);
    case Activation::relu2:
      return backward(MOE_PHI(fast_relu2), gate, up, dh, w, h, dgate, dup, n);
    case Activation::swiglu_clamped:
      for (Index i = 0; i < n; ++i) {
        const Body<float> b = fast_clamped(gate[i], up[i]);
        const float d = w * dh[i];
        h[i] = b.h;
        dgate[i] = d * b.dgate;
        dup[i] = d * b.dup;
      }
  }
}

#undef MOE_PHI

}  // namespace moe::loops
