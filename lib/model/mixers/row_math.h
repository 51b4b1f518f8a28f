// Loops over runs of numbers that recurrent mixers are made of, in f32 vectorised.
#pragma once
#include "lib/core/view.h"

namespace moe::row_math {

// value = x sigmoid(x) and its derivative; either may be null
void silu(const float* x, float* value, float* slope, Index n);
void silu(const double* x, double* value, double* slope, Index n);
void sigmoid(const float* x, float* value, float* slope, Index n);
void sigmoid(const double* x, double* value, double* slope, Index n);

// y = a x, y = y + a x, a run times a run
void scale(const float* x, float a, float* y, Index n);
void scale(const double* x, double a, double* y, Index n);
void add(const float* x, float a, float* y, Index n);
void add(const double* x, double a, double* y, Index n);
void product(const float* x, const float* y, float* z, Index n);  // z = x y
void product(const double* x, const double* y, double* z, Index n);
void add_product(const float* x, const float* y, float* z, Index n);  // z += x y
void add_product(const double* x, const double* y, double* z, Index n);
float dot(const float* x, const float* y, Index n);
double dot(const double* x, const double* y, Index n);

}  // namespace moe::row_math
