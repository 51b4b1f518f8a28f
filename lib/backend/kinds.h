// The activations of expert bodies and their derivatives (equations.md section 4), one definition
// for every host and device loop.
#pragma once
#include <cmath>
#include <string>
#include <string_view>
#include <vector>

#include "lib/core/view.h"

namespace moe {

// A kind, and where it is swiglu a limit: gates are cut above it, ups on both sides (DeepSeek-V4);
// 0 = none.
struct Activation {
  enum Kind {
    swiglu,
    geglu,
    geglu_tanh,
    reglu,
    swiglu_clamped,
    silu,
    relu,
    relu2,
    gelu,
    gelu_tanh
  };
  Kind kind = swiglu;
  float limit = 0;

  MOE_HD constexpr Activation() {}
  MOE_HD constexpr Activation(Kind k, float cut = 0) : kind(k), limit(cut) {}
  MOE_HD constexpr operator Kind() const {
    return kind;
  }
  MOE_HD constexpr bool limited() const {
    return kind == swiglu && limit > 0;
  }
  friend constexpr bool operator==(const Activation&, const Activation&) = default;
  friend constexpr bool operator==(const Activation& a, Kind k) {
    return a == Activation(k);
  }
};

MOE_HD constexpr bool is_gated(Activation::Kind a) {
  return a <= Activation::swiglu_clamped;
}
std::string_view name_of(Activation);
Activation activation_of(std::string_view name);  // throws Error(usage) with the list
std::vector<std::string> activation_names();

template <class S>
struct Slope {
  S value, slope;
};  // phi(v) and phi'(v)

template <class S>
MOE_HD inline Slope<S> silu(S v) {
  const S s = S(1) / (S(1) + std::exp(-v));
  return {v * s, s + v * s * (S(1) - s)};
}
template <class S>
MOE_HD inline Slope<S> gelu(S v) {
  const S cdf = S(0.5) * (S(1) + std::erf(v * S(0.70710678118654752440)));
  return {v * cdf, cdf + v * std::exp(-v * v / S(2)) * S(0.39894228040143267794)};
}
template <class S>
MOE_HD inline Slope<S> gelu_tanh(S v) {
  const S c = S(0.79788456080286535588);
  const S t = std::tanh(c * (v + S(0.044715) * v * v * v));
  return {S(0.5) * v * (S(1) + t),
          S(0.5) * (S(1) + t) + S(0.5) * v * (S(1) - t * t) * c * (S(1) + S(0.134145) * v * v)};
}
template <class S>
MOE_HD inline Slope<S> relu(S v) {
  return v > S(0) ? Slope<S>{v, S(1)} : Slope<S>{S(0), S(0)};
}

template <class S>
struct Body {
  S h, dgate, dup;
};  // h(g,u), dh/dg, dh/du

// h = phi(g) u
template <class S>
MOE_HD inline Body<S> gated_by(Slope<S> phi, S u) {
  return {phi.value * u, phi.slope * u, phi.value};
}
template <class S>
MOE_HD inline Body<S> swiglu_clamped(S g, S u) {  // gpt-oss
  const S gc = g < S(7) ? g : S(7);
  const S uc = u < S(-7) ? S(-7) : u > S(7) ? S(7) : u;
  const S q = S(1) / (S(1) + std::exp(S(-1.702) * gc));
  return {(uc + S(1)) * gc * q,
          g <= S(7) ? (uc + S(1)) * (q + S(1.702) * gc * q * (S(1) - q)) : S(0),
          u >= S(-7) && u <= S(7) ? gc * q : S(0)};
}
template <class S>
MOE_HD inline Body<S> swiglu_limited(S g, S u, S limit) {
  const S uc = u < -limit ? -limit : u > limit ? limit : u;
  const Slope<S> phi = silu(g > limit ? limit : g);
  return {phi.value * uc, g <= limit ? phi.slope * uc : S(0), uc == u ? phi.value : S(0)};
}
template <class S>
MOE_HD inline Body<S> ungated(Slope<S> phi) {
  return {phi.value, S(0), phi.slope};
}

// g is ignored (and dgate 0) where the activation is ungated.
template <class S>
MOE_HD inline Body<S> body(Activation a, S g, S u) {
  switch (a.kind) {
    case Activation::swiglu:
      return a.limited() ? swiglu_limited(g, u, S(a.limit)) : gated_by(silu(g), u);
    case Activation::geglu:
      return gated_by(gelu(g), u);
    case Activation::geglu_tanh:
      return gated_by(gelu_tanh(g), u);
    case Activation::reglu:
      return gated_by(relu(g), u);
    case Activation::swiglu_clamped:
      return swiglu_clamped(g, u);
    case Activation::silu:
      return ungated(silu(u));
    case Activation::relu:
      return ungated(relu(u));
    case Activation::relu2: {
      const Slope<S> p = relu(u);
      return {p.value * p.value, S(0), S(2) * p.value};
    }
    case Activation::gelu:
      return ungated(gelu(u));
    case Activation::gelu_tanh:
      return ungated(gelu_tanh(u));
  }
  return {};
}

}  // namespace moe
