#include "lib/family/quantised_config.h"

#include <nlohmann/json.hpp>

#include "lib/core/text.h"

namespace moe {
namespace {

Json weights_json(const FewBitsFormat& f) {
  const int bits = f.kind == FewBits::int8 ? 8 : 4;
  const bool group = f.kind == FewBits::mxfp4 || f.block > 0;
  Json out = {{"num_bits", bits},
              {"type", f.kind == FewBits::mxfp4 ? "float" : "int"},
              {"symmetric", true},
              {"strategy", group ? "group" : "channel"},
              {"dynamic", false}};
  if (group)
    out["group_size"] = f.kind == FewBits::mxfp4 ? Index(32) : f.block;
  return out;
}

const char* layout_of(FewBits kind) {
  return kind == FewBits::int8   ? "int-quantized"
         : kind == FewBits::int4 ? "pack-quantized"
                                 : "mxfp4-pack-quantized";
}

std::string module_of(const std::string& tensor) {
  const std::string end = ".weight";
  return tensor.ends_with(end) ? tensor.substr(0, tensor.size() - end.size()) : tensor;
}

Json blocks_of_fp8(const std::vector<std::string>& others) {
  return {{"quant_method", "fp8"},
          {"activation_scheme", "dynamic"},
          {"fmt", "e4m3"},
          {"weight_block_size", {128, 128}},
          {"modules_to_not_convert", others}};
}

}  // namespace

Json quantization_config(const std::map<std::string, FewBitsFormat>& of,
                         const std::vector<std::string>& all) {
  std::vector<std::string> others;
  for (const std::string& name : all) {
    if (!of.contains(name))
      others.push_back(module_of(name));
  }
  std::map<std::string, std::vector<std::string>> by_format;
  std::map<std::string, FewBitsFormat> format;
  for (const auto& [tensor, f] : of) {
    by_format[text_of(f)].push_back(module_of(tensor));
    format[text_of(f)] = f;
  }
  if (by_format.size() == 1 && format.begin()->second.kind == FewBits::fp8)
    return blocks_of_fp8(others);
  Json groups = Json::object();
  for (const auto& [name, modules] : by_format) {
    const FewBitsFormat& f = format.at(name);
    groups[concat("group_", groups.size())] = {
        {"targets", modules}, {"weights", weights_json(f)}, {"format", layout_of(f.kind)}};
  }
  const bool mixed = by_format.size() > 1;
  return {{"quant_method", "compressed-tensors"},
          {"quantization_status", "compressed"},
          {"format", mixed ? "mixed-precision" : layout_of(format.begin()->second.kind)},
          {"config_groups", groups},
          {"ignore", others}};
}

}  // namespace moe
