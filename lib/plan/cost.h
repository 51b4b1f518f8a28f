// What a description takes: parameters, products, bytes, and what travels between devices. Pure
// sums over pieces, each a matrix or a vector with how often it is stored and how often a token
// touches it. The definitions are written down in docs/plan.md.
#pragma once
#include <array>

#include "lib/plan/description.h"

namespace moe::plan {

enum class Part { embedding, head, attention, dense, router, experts, shared, rest };
inline constexpr int part_count = 8;
std::string_view name_of(Part);

// `count` matrices of (rows, cols), `active` of them touched by a token; multiplied = in a product
// with activations.
struct Piece {
  Part part;
  Count rows, cols, count = 1;
  double active = 1;
  bool multiplied = true;
};
// throws Error(input) where the sizes together do not fit 62 bits
std::vector<Piece> pieces(const Description&);

struct Parameters {
  // in_file: with what a published file holds on top
  Count total = 0, in_file = 0;
  std::array<Count, part_count> part{};
  std::array<double, part_count> active{};
  // touched by a token; without input embedding; without embedding and head
  double a0 = 0, a1 = 0, a2 = 0;
  double activation_ratio() const {
    return a0 / double(total);
  }
};
Parameters parameters(const Description&);

struct Flops {           // of one token's forward; multiply-add = 2
  double products = 0;   // of weights
  double attention = 0;  // of scores and values (or states) at the given context
};
Flops flops(const Description&, Count context);

// Storage formats of weights; quantised ones keep embeddings, head, norms and routers in bf16.
enum class Format { f32, bf16, int8, fp8, mxfp4 };
inline constexpr Format formats[] = {Format::f32, Format::bf16, Format::int8, Format::fp8,
                                     Format::mxfp4};
std::string_view name_of(Format);
std::string_view about(Format);
double weight_bytes(const Piece&, Format);  // of one matrix of it
double weight_bytes(const Description&, Format);
double active_bytes(const Description&, Format);  // read for one token alone

// Keys and values (or the latent vector) that one sequence keeps, in elements; `state` does not
// grow with the context.
struct Cache {
  double per_token = 0;  // while every layer still grows
  double at_context = 0;
  double state = 0;  // Mamba and lightning layers, in numbers
};
Cache cache(const Description&, Count context);

struct Sharding {
  // ranks of expert and tensor parallelism; data-parallel ranks of ZeRO-3
  Count experts = 1, tensor = 1, zero = 1;
  Count devices() const {
    return experts * tensor * zero;
  }
};
// throws Error(usage): more ranks than experts or heads, a remainder
void check(const Sharding&, const Description&);
struct Share {  // of the device that holds most
  // bytes; training: bf16 weights and gradients, f32 master copy and both moments
  double weights = 0, gradients = 0, optimizer = 0;
  double serving = 0;  // weights in `format`, ZeRO aside
  // of one sequence at the context, 2 bytes an element
  double cache = 0;
};
Share share(const Description&, const Sharding&, Format, Count context);

// Bytes that one token sends in one MoE layer to be computed elsewhere; the same comes back. `each`
// = a copy for every choice, `once` = a copy for every other device (expected where all choices are
// equally likely). 0 without experts.
struct AllToAll {
  double each = 0, once = 0;
};
AllToAll all_to_all(const Description&, Count ranks, double bytes_an_element);

}  // namespace moe::plan
