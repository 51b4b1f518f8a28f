// The vectorised inner loops of the cpu backend: plain functions over rows of numbers, without
// threads or shapes.
#pragma once
#include "lib/backend/backend.h"

namespace moe::loops {

// ---- a run of n numbers
void add(const float* x, float* y, float scale, Index n);     // y += scale x
void scaled(const float* x, float* y, float scale, Index n);  // y = scale x
void center(float* x, Index n);                               // less its mean
void clamp(float* x, float limit, Index n);
// dy = 0 where |y| is at the limit
void clamp_backward(const float* y, float limit, float* dy, Index n);
// y = a x + b y, y not read where b = 0
void axpby(const float* x, float a, float* y, float b, Index n);
void to_half(const float* x, std::uint16_t* y, Index n);  // bf16, nearest even
float dot(const float* x, const float* y, Index n);
// y_r = w_r . x + beta y_r of up to 4 rows of w; with beta 0 what y held does not matter. In bf16
// each number of w is widened.
void row_dots(const float* w, const float* x, float* y, float beta, Index rows, Index n);
void row_dots(const std::uint16_t* w, const float* x, float* y, float beta, Index rows, Index n);
void round_half(float* x, Index n);                                 // to bf16 and back
void times(const float* x, float* y, Index n);                      // y *= x
void add_times(const float* x, const float* y, float* z, Index n);  // z += x y
// y = e^(from - c), and 0 below e^-60: nobody sees it, and products with denormals are slow
void falling(const float* c, float from, float* y, Index n);
double sum_squares(const float* x, Index n);
void activate(Activation, const float* gate, const float* up, float* h, Index n);
// h = act(gate, up), and the gradients by gate and up of w h
void activate_backward(Activation, const float* gate, const float* up, const float* dh, float w,
                       float* h, float* dgate, float* dup, Index n);
void adamw(float* value, const float* grad, float* m, float* v, const AdamW&, Index n);

// ---- rows of n numbers
void add_row(const float* b, float* y, Index rows, Index n);  // y_r += b
// sum += x_r, in order of r
void add_columns(const float* x, float* sum, Index rows, Index n);
void norm(const float* x, const float* w, double eps, float* y, float* rstd, Index rows, Index n);
// dw += the rows' share, where dw is not null
void norm_backward(const float* dy, const float* x, const float* w, const float* rstd, float* dx,
                   float* dw, float beta, Index rows, Index n);
// One row of `heads` heads of `head_dim` numbers: the first 2*pairs of each turned by the angles
// whose cosines and sines are given
void rope(float* x, const float* cosine, const float* sine, float sign, Index heads, Index head_dim,
          Index pairs, bool interleaved);
// z becomes scale (softmax(z) - onehot(target)) where `backward`; returns the loss
float cross_entropy(float* z, Index n, Index target, float scale, bool backward);

// ---- attention, rows of a block of scores; a row's keys are [first, last) of `keys`
// row = exp(scale row - max) inside, 0 outside; returns 1/sum and sets lse of the scaled scores
float softmax(float* row, Index first, Index last, Index keys, float scale, float* lse);
// scores_j = q . k_j and out = sum of p_j v_j, for rows of keys and values `stride` numbers apart
void key_scores(const float* q, const float* k, Index stride, Index keys, Index n, float* scores);
void weighted_values(const float* p, const float* v, Index stride, Index keys, Index n, float* out);
// p = exp(scale p - lse) inside, 0 outside; ds = p (ds - delta) scale
void softmax_backward(float* p, float* ds, Index first, Index last, Index keys, float scale,
                      float lse, float delta);

}  // namespace moe::loops
