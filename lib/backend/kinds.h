// The small vocabulary of an expert body: its activation, its weights, its gradients (equations.md section 4).
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "lib/core/view.h"

namespace moe {

struct Weight;

enum class Activation { swiglu, geglu, geglu_tanh, reglu, swiglu_clamped, silu, relu, relu2, gelu, gelu_tanh };

constexpr bool is_gated(Activation a) { return a <= Activation::swiglu_clamped; }
std::string_view name_of(Activation);
Activation activation_of(std::string_view name);  // throws Error(usage) with the list
std::vector<std::string> activation_names();

// phi of equations.md section 4 and its derivatives, for the body of any kernel. g is the gate (ignored where ungated), u the up value.
template <class S>
struct ActivationValue { S h, dgate, dup; };
template <class S>
MOE_HD ActivationValue<S> activation_value(Activation, S g, S u);

struct ExpertWeights;
template <class S>
struct ExpertGrads;

}  // namespace moe
