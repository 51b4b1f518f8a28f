#include "lib/run/stored_types.h"

#include "lib/checkpoint/safetensors.h"

namespace moe {

DType StoredTypes::type(const std::string& tensor) const {
  const auto found = of.find(tensor);
  if (found != of.end())
    return found->second;
  // their classes keep them in full, whatever the rest is stored in
  const bool corrects = tensor.ends_with("e_score_correction_bias") ||
                        tensor.ends_with(".expert_bias") || tensor.ends_with(".ffn.gate.bias");
  return corrects ? DType::f32 : usual;
}

StoredTypes stored_types(const std::filesystem::path& folder) {
  StoredTypes out;
  if (!std::filesystem::is_directory(folder))
    return out;
  std::map<DType, Index> bytes;
  const Tensors tensors(folder);
  for (const TensorInfo& t : tensors.list()) {
    if (t.dtype != DType::f32 && t.dtype != DType::bf16 && t.dtype != DType::f16)
      continue;
    out.of[t.name] = t.dtype;
    bytes[t.dtype] += t.bytes;
  }
  Index most = 0;
  for (const auto& [type, size] : bytes) {
    if (size > most) {
      most = size;
      out.usual = type;
    }
  }
  return out;
}

}  // namespace moe
