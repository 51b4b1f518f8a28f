// Expert bodies made from a dense one (equations.md section 8): copies (2212.05055), granular
// shards (2410.07524) and parts (MoEfication, 2110.01786). All three are one thing: expert e
// computes some hidden units of the dense body, weights scaled.
#pragma once
#include "lib/core/matrix.h"
#include "lib/layer/feed_forward.h"

namespace moe {

template <class S>
struct HostExpertParameters {  // E bodies of width I in host memory; E = 1: a dense one
  Matrix<S> gate, up, down;    // (E*I,H), (E*I,H), (E*H,I); gate empty where ungated
  Matrix<S> gate_bias, up_bias, down_bias;  // (E,I), (E,I), (E,H); empty = none
};
template <class S>
HostExpertParameters<S> host_expert_parameters(const ExpertParameters<S>&);
template <class S>
void set_expert_parameters(ExpertParameters<S>&, const HostExpertParameters<S>&);

// Expert e has the hidden units unit.row(e) of `dense`. Weights and inner biases are multiplied by
// `scale`, the outer bias by `outer`.
template <class S>
HostExpertParameters<S> from_units(const HostExpertParameters<S>& dense,
                                   const Matrix<Index>& unit /*(E,I')*/, double scale,
                                   double outer);

// all units, for each expert
Matrix<Index> units_of_copies(Index experts, Index width);
// expert i = contiguous shard i mod `shards`
Matrix<Index> units_of_shards(Index shards, Index expansion, Index width);
// a permutation cut into equal parts
Matrix<Index> units_of_parts(std::span<const Index> order, Index experts);

template <class S>
// a, a, b, b, ...: router rows of virtual groups
Matrix<S> repeated_rows(const Matrix<S>& m, Index times);

// What granular upcycling multiplies weights by: s^(1/3) for gated bodies and relu2, s^(1/2)
// otherwise; s = shards where the chosen weights are divided by their sum, else expansion *
// shards^2 / k.
double granular_scale(Activation, Index shards, Index expansion, int k, bool norm);

}  // namespace moe
