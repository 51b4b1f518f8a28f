// What a description takes on machines: bytes of weights by format, what decoding keeps, the share
// of one device among many, and what travels between devices. Pure sums over the pieces of an
// architecture. The definitions are written down in docs/plan.md.
#pragma once
#include <functional>

#include "lib/model/sizes.h"

namespace moe::plan {

// Storage formats of weights; quantised ones keep embeddings, head, norms and routers in bf16.
enum class Format { f32, bf16, int8, fp8, mxfp4 };
inline constexpr Format formats[] = {Format::f32, Format::bf16, Format::int8, Format::fp8,
                                     Format::mxfp4};
std::string_view name_of(Format);
std::string_view about(Format);
double weight_bytes(const WeightPiece&, Format);  // of one matrix of it
using PieceBytes = std::function<double(const WeightPiece&)>;
double weight_bytes(const Architecture&, Format);
double active_bytes(const Architecture&, const PieceBytes&);  // read for one token alone

// Keys and values (or the latent vector) that one sequence keeps, in elements; `state` does not
// grow with the context.
struct Cache {
  double per_token = 0;  // while every layer still grows
  double at_context = 0;
  double state = 0;  // of recurrent and convolution layers, in numbers
};
Cache cache(const Architecture&, Count context);

struct Sharding {
  // ranks of expert and tensor parallelism; data-parallel ranks of ZeRO-3
  Count experts = 1, tensor = 1, zero = 1;
  Count devices() const {
    return experts * tensor * zero;
  }
};
// throws Error(usage): more ranks than experts or heads, a remainder
void check(const Sharding&, const Architecture&);
struct Share {  // of the device that holds most
  // bytes; training: bf16 weights and gradients, f32 master copy and both moments
  double weights = 0, gradients = 0, optimizer = 0;
  double serving = 0;  // weights in the bytes that are given, ZeRO aside
  // of one sequence at the context, 2 bytes an element
  double cache = 0;
};
Share share(const Architecture&, const Sharding&, const PieceBytes&, Count context);
Share share(const Architecture&, const Sharding&, Format, Count context);

// Bytes that one token sends in one MoE layer to be computed elsewhere; the same comes back. `each`
// = a copy for every choice, `once` = a copy for every other device (expected where all choices are
// equally likely). 0 without experts.
struct AllToAll {
  double each = 0, once = 0;
};
AllToAll all_to_all(const Architecture&, Count ranks, double bytes_an_element);

}  // namespace moe::plan
