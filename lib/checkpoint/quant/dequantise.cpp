// Which function decodes which type, and rows of blocks by it.
#include "lib/checkpoint/quant/dequantise.h"

#include <algorithm>
#include <array>

#include "lib/checkpoint/quant/blocks.h"
#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {
namespace {

struct Decoder {
  std::string_view type;
  void (*block)(const quant::Byte*, float*);
  void (*rows)(const quant::Byte*, float*, Index blocks) = nullptr;  // instead of `block`
};

constexpr std::array decoders{
    Decoder{"F32", nullptr, quant::f32},   Decoder{"F16", quant::f16},
    Decoder{"BF16", nullptr, quant::bf16}, Decoder{"F64", quant::f64},
    Decoder{"Q4_0", nullptr, quant::q4_0}, Decoder{"Q4_1", quant::q4_1},
    Decoder{"Q5_0", quant::q5_0},          Decoder{"Q5_1", quant::q5_1},
    Decoder{"Q8_0", nullptr, quant::q8_0}, Decoder{"IQ4_NL", quant::iq4_nl},
    Decoder{"MXFP4", quant::mxfp4},        Decoder{"NVFP4", quant::nvfp4},
    Decoder{"Q1_0", quant::q1_0},          Decoder{"Q2_0", quant::q2_0},
    Decoder{"Q2_K", quant::q2_k},          Decoder{"Q3_K", quant::q3_k},
    Decoder{"Q4_K", nullptr, quant::q4_k}, Decoder{"Q5_K", quant::q5_k},
    Decoder{"Q6_K", nullptr, quant::q6_k}, Decoder{"IQ4_XS", quant::iq4_xs},
    Decoder{"TQ1_0", quant::tq1_0},        Decoder{"TQ2_0", quant::tq2_0},
    Decoder{"IQ1_S", quant::iq1_s},        Decoder{"IQ1_M", quant::iq1_m},
    Decoder{"IQ2_XXS", quant::iq2_xxs},    Decoder{"IQ2_XS", quant::iq2_xs},
    Decoder{"IQ2_S", quant::iq2_s},        Decoder{"IQ3_XXS", quant::iq3_xxs},
    Decoder{"IQ3_S", quant::iq3_s},
};

const Decoder* decoder_of(const GgmlType& type) {
  const auto found = std::ranges::find(decoders, type.name, &Decoder::type);
  return found == decoders.end() ? nullptr : &*found;
}

}  // namespace

bool can_dequantise(const GgmlType& type) {
  return decoder_of(type) != nullptr;
}

void dequantise(const GgmlType& type, std::span<const std::byte> from, std::span<float> out) {
  const Decoder* decoder = decoder_of(type);
  const Index blocks = Index(out.size()) / type.block;
  if (!decoder || Index(out.size()) % type.block != 0 || Index(from.size()) < blocks * type.bytes) {
    throw Error(Exit::bug, concat(out.size(), " numbers requested from ", from.size(), " bytes of ",
                                  type.name));
  }
  const auto* bytes = reinterpret_cast<const quant::Byte*>(from.data());
  if (decoder->rows)
    return decoder->rows(bytes, out.data(), blocks);
  for (Index b = 0; b < blocks; ++b)
    decoder->block(bytes + b * type.bytes, out.data() + b * type.block);
}

}  // namespace moe
