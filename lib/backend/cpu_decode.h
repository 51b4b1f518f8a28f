// Products of few rows, as decoding has them: all the time goes into reading weights once, so rows
// of weights are shared out among the threads, whatever expert they belong to, and each is
// multiplied with every row of activations while it is there. Every number is one sum in a fixed
// order: the same bytes for any number of threads. T is float, or Half for weights in bf16
// (activations are then rounded first, as everywhere in cpu:dtype=bf16).
#pragma once
#include "lib/backend/cpu.h"
#include "lib/backend/gemm_half.h"

namespace moe::decode {

// Rows of activations from which on one matrix is a product of the library.
constexpr Index few = 4;
// Reading a number takes as long as some four multiplications of numbers that are near.
constexpr double reading = 4;

// y = x w' + beta y; x (m,I), w (O,I), y (m,O).
template <class T>
void linear(View<const float> x, View<const T> w, View<float> y, float beta);

void linear(View<const float> x, const Weight& w, View<float> y, float beta);  // with a source

// Of a plan that is decoding: the bodies of all slots, as Backend::experts: gate empty where there
// is none; `gate` and `up` of the tape are set.
// M: views of f32 or bf16, or weights with a source.
template <class M>
struct Bodies {
  const ExpertWeights<float>& weights;  // activation and biases
  M gate, up, down;
};
template <class M>
void experts(Memory&, const Bodies<M>&, View<const float> xs, const Plan&, ExpertTape<float>&,
             View<float> ys);

}  // namespace moe::decode
