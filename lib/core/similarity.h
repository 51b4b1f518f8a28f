// How alike the experts of a layer are, from their weights and from their outputs: the (E,E)
// matrices of docs/metrics.md that need more than a trace. Pure functions on matrices, in double
// whatever the numbers are stored as, so that a checkpoint that is traced and a file of expected
// values go through the same lines.
#pragma once
#include "lib/core/matrix.h"

namespace moe {

template <class T>
// of one layer; neuron n of an expert: row n of gate, row n of up, column n of down
struct ExpertMatrices {
  Index experts = 0;
  View<const T> gate, up;  // (E*I,H); gate may be empty
  View<const T> down;      // (E*H,I)
};

struct WeightCosines {
  Matrix<double> all;  // of all entries, laid end to end
  Matrix<double> up;   // of those of up alone
};
template <class T>
WeightCosines expert_weight_cosines(const ExpertMatrices<T>&);
// of the mean neuron
template <class T>
Matrix<double> expert_neuron_mean_cosine(const ExpertMatrices<T>&);
// With the neurons of the one put in the order that fits those of the other best (largest sum of
// cosines): about E^2/2 (I^3 + 3 I^2 H) steps.
template <class T>
Matrix<double> expert_matched_cosine(const ExpertMatrices<T>&);

// For each hidden unit of expert `a` the unit of expert `b` that fits it, so that the sum of their
// cosines is as large as it can be. A unit with its row of gate and up and its column of down.
template <class T>
std::vector<int> expert_unit_order(const ExpertMatrices<T>&, Index a, Index b);

// Outputs of all experts on the same tokens: row t*E + e of (T*E,H) is expert e's on token t.
// mean over tokens
template <class T>
Matrix<double> expert_output_cosine(View<const T> outputs, Index experts);
// linear, columns centred; E T^2 doubles of memory
template <class T>
Matrix<double> expert_output_cka(View<const T> outputs, Index experts);
// acos(cosine of the means) / pi
template <class T>
Matrix<double> expert_mean_output_angle(View<const T> outputs, Index experts);
template <class T>
Matrix<double> expert_ttm_distance(View<const T> outputs, Index experts,
                                   View<const int> chosen /*(T,K), -1 = none*/);

// row_of[c] for each column of a square matrix so that the sum of value(row_of[c], c) is as large
// as it can be (Hungarian method, n^3 steps). {{1,2},{3,1}}: column 0 takes row 1, column 1 row 0.
// Values must be finite.
std::vector<int> best_matching(View<const double> value);

}  // namespace moe
