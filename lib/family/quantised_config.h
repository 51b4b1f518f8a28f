// What config.json says of matrices in few bits: the key quantization_config, in the words of "fp8"
// and of "compressed-tensors".
#pragma once
#include <map>
#include <string>
#include <vector>

#include "lib/checkpoint/quant/few_bits.h"
#include "lib/files/json.h"

namespace moe {

// `of`: formats by tensor; `all` names every matrix of the model. fp8 stands alone.
Json quantization_config(const std::map<std::string, FewBitsFormat>& of,
                         const std::vector<std::string>& all);

}  // namespace moe
