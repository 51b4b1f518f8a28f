// Formats of weights by name, by configuration, and by counting.
#include "lib/plan/storage.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>

#include "lib/checkpoint/folder.h"
#include "lib/checkpoint/stored.h"
#include "lib/core/error.h"
#include "lib/core/registry.h"
#include "lib/core/text.h"
#include "lib/files/config_reader.h"
#include "lib/files/gguf.h"

namespace moe::plan {
namespace {

std::string lower(std::string_view s) {
  std::string out(s);
  std::ranges::transform(out, out.begin(),
                         [](char c) { return c >= 'A' && c <= 'Z' ? char(c - 'A' + 'a') : c; });
  return out;
}

const GgmlType* ggml_named(std::string_view name) {
  for (const GgmlType& t : ggml_types()) {
    if (t.use == GgmlType::Use::weights && lower(t.name) == name)
      return &t;
  }
  return nullptr;
}

// Rows that no block of 256 divides fall back to a format with blocks of 32, as llama.cpp's
// quantiser decides (tensor_type_fallback of llama-quant.cpp).
const GgmlType& fitting(const GgmlType& wanted, Count columns) {
  if (columns % wanted.block == 0)
    return wanted;
  const std::string_view name = wanted.name;
  const char* const small = name == "Q4_K"                       ? "q5_0"
                            : name == "Q5_K"                     ? "q5_1"
                            : name == "Q6_K"                     ? "q8_0"
                            : name == "TQ1_0" || name == "TQ2_0" ? "f16"
                                                                 : "iq4_nl";
  const GgmlType& found = *ggml_named(small);
  return columns % found.block == 0 ? found : *ggml_named("f16");
}

Storage of_ggml(const GgmlType& type) {
  Storage s;
  s.name = lower(type.name);
  s.about = concat("every matrix in ", std::string(type.name), " (", type.bytes, " bytes for ",
                   type.block,
                   " numbers), rows it does not divide in the next format of blocks "
                   "of 32, routers and vectors in f32");
  s.bytes = [&type](const WeightPiece& p) {
    if (p.rows == 1 || p.part == ModelPart::router)
      return 4 * p.size();
    const GgmlType& t = fitting(type, p.cols);
    return p.size() / double(t.block) * double(t.bytes);
  };
  return s;
}

Storage of_format(Format f) {
  Storage s;
  s.name = name_of(f);
  s.about = about(f);
  s.bits = f == Format::f32 ? 16 : f == Format::mxfp4 ? 4 : f == Format::bf16 ? 16 : 8;
  s.bytes = [f](const WeightPiece& p) {
    return weight_bytes(p, f);
  };
  return s;
}

bool is_layer_matrix(const WeightPiece& p) {
  return p.multiplied && p.rows > 1 && p.part != ModelPart::embedding &&
         p.part != ModelPart::head && p.part != ModelPart::router;
}

// Integers of `bits` with a 16-bit scale and a zero point of as many bits for each `group` of a
// row; 0 = one for the row.
Storage of_groups(std::string name, int bits, Count group) {
  Storage s;
  s.about = concat("matrices of layers ", bits, " bits with a 16-bit scale and a zero point ",
                   group > 0 ? concat("for ", group, " numbers") : "a row", ", the rest bf16");
  s.name = std::move(name);
  s.bits = bits <= 4 ? 16 : bits;  // 4-bit integers are widened before they are multiplied
  s.bytes = [bits, group](const WeightPiece& p) {
    if (!is_layer_matrix(p))
      return 2 * p.size();
    const Count g = group > 0 ? group : p.cols;
    const double groups = double(p.rows) * double((p.cols + g - 1) / g);
    return p.size() * bits / 8 + groups * (2 + bits / 8.0);
  };
  return s;
}

Storage of_quantization(const ConfigReader& q) {
  const std::string method = q.text("quant_method", "");
  if (method == "fp8")
    return of_format(Format::fp8);
  if (method == "mxfp4")
    return of_format(Format::mxfp4);
  if (method == "gptq" || method == "awq")
    return of_groups(method, q.whole("bits", 4), std::max(0, q.whole("group_size", 128)));
  if (method == "bitsandbytes") {
    return q.flag("load_in_8bit", false) ? of_format(Format::int8)
                                         : of_groups("bitsandbytes 4 bits", 4, 64);
  }
  if (method == "compressed-tensors" && q.has("config_groups")) {
    for (const auto& [key, group] : q.at("config_groups").items()) {
      const ConfigReader weights = ConfigReader(group, concat(q.file(), ", ", key)).in("weights");
      return of_groups(method, weights.positive("num_bits"), weights.whole("group_size", 0));
    }
  }
  q.refuse(concat("quantization_config has the method '", method, "', whose bytes are not known"),
           "--weights says the format; moe plan knows fp8, mxfp4, gptq, awq, bitsandbytes and "
           "compressed-tensors");
}

// Which part of a model a tensor of a GGUF file belongs to.
ModelPart part_of(std::string_view tensor) {
  const auto has = [&](std::string_view word) {
    return tensor.find(word) != tensor.npos;
  };
  if (tensor.starts_with("token_embd"))
    return ModelPart::embedding;
  if (tensor.starts_with("output."))
    return ModelPart::head;
  if (has("_exps"))
    return ModelPart::experts;
  if (has("_shexp"))
    return ModelPart::shared;
  if (has("ffn_gate_inp"))
    return ModelPart::router;
  return has("ffn_") ? ModelPart::dense : ModelPart::attention;
}

// Bytes of a number by part, as files have them.
class Counted {
 public:
  // `kind`: the format of the tensor
  void add(ModelPart part, double bytes, double numbers, const std::string& kind) {
    bytes_[std::size_t(part)] += bytes;
    numbers_[std::size_t(part)] += numbers;
    by_kind_[kind] += bytes;
  }
  std::string mostly() const {
    const auto most =
        std::ranges::max_element(by_kind_, {}, [](const auto& k) { return k.second; });
    return concat("the file's formats, mostly ", most->first);
  }
  // Parts that there are no tensors of take the mean.
  Storage storage(std::string name, const std::string& where) const {
    const double all = std::accumulate(numbers_.begin(), numbers_.end(), 0.0);
    const double sum = std::accumulate(bytes_.begin(), bytes_.end(), 0.0);
    std::array<double, part_count> each{};
    for (std::size_t i = 0; i < each.size(); ++i)
      each[i] = numbers_[i] > 0 ? bytes_[i] / numbers_[i] : sum / all;
    if (numbers_[std::size_t(ModelPart::rest)] == 0)
      each[std::size_t(ModelPart::rest)] = each[std::size_t(ModelPart::attention)];
    Storage s;
    s.name = std::move(name);
    s.about = concat("the tensors of ", where, " as they are, ", std::round(sum * 800 / all) / 100,
                     " bits a number");
    s.bytes = [each](const WeightPiece& p) {
      return p.size() * each[std::size_t(p.part)];
    };
    return s;
  }

 private:
  std::array<double, part_count> bytes_{}, numbers_{};
  std::map<std::string, double> by_kind_;
};

Storage of_gguf(const GgufFile& file) {
  Counted counted;
  for (const GgufTensor& t : file.tensors())
    counted.add(part_of(t.name), double(t.bytes), double(t.size()), std::string(t.type->name));
  return counted.storage(counted.mostly(), file.path().string());
}

// Which part of a model a tensor of safetensors files belongs to.
ModelPart part_of_published(std::string_view tensor) {
  const auto has = [&](std::string_view word) {
    return tensor.find(word) != tensor.npos;
  };
  if (has("lm_head"))
    return ModelPart::head;
  if (has("embed") || has(".wte."))
    return ModelPart::embedding;
  if (has("norm"))
    return ModelPart::rest;
  if (has("shared_expert"))
    return ModelPart::shared;
  if (has(".experts."))
    return ModelPart::experts;
  if (has(".gate.") || has("router"))
    return ModelPart::router;
  return has("mlp") || has("feed_forward") || has("ffn") ? ModelPart::dense : ModelPart::attention;
}

bool of_an_encoder(std::string_view tensor) {
  return std::ranges::any_of(std::array{"vision", "visual", "audio"},
                             [&](const char* word) { return tensor.find(word) != tensor.npos; });
}

// Of a folder whose config.json says that weights are in few bits: its tensors tell which. A plan
// needs no weights, so that where they cannot be read what config.json says counts.
Storage of_folder(const std::filesystem::path& folder, const Storage& said) {
  Counted counted;
  try {
    const Tensors tensors(folder);
    if (!tensors.absent().empty())
      return said;
    for (const TensorInfo& t : tensors.list()) {
      if (!of_an_encoder(t.name))
        counted.add(part_of_published(t.name), double(t.bytes), numbers_in_file(t),
                    format_in_file(t));
    }
  } catch (const Error&) {
    return said;
  }
  Storage out = counted.storage(said.name, folder.string());
  out.bits = said.bits;
  return out;
}

}  // namespace

double Storage::all(const Architecture& a) const {
  double sum = 0;
  for (const WeightPiece& p : pieces(a))
    sum += bytes(p) * double(p.count);
  return sum;
}
double Storage::part(const Architecture& a, ModelPart part) const {
  double sum = 0;
  for (const WeightPiece& p : pieces(a)) {
    if (p.part == part)
      sum += bytes(p) * double(p.count);
  }
  return sum;
}
double Storage::expert(const Architecture& a) const {
  const FeedShape* f = a.moe();
  if (!f)
    return 0;
  double sum = 0;
  for (const WeightPiece& p : pieces(*f, a.hidden)) {
    if (p.part == ModelPart::experts)
      sum += bytes(p) * double(p.count);
  }
  return sum / double(f->experts);
}

std::vector<std::string> storage_names() {
  std::vector<std::string> out;
  for (const Format f : formats)
    out.emplace_back(name_of(f));
  for (const GgmlType& t : ggml_types()) {
    const std::string name = lower(t.name);
    if (t.use == GgmlType::Use::weights && std::ranges::find(out, name) == out.end())
      out.push_back(name);
  }
  return out;
}

Storage storage_of(const std::string& name) {
  const std::string wanted = lower(name);
  for (const Format f : formats) {
    if (name_of(f) == wanted)
      return of_format(f);
  }
  if (const GgmlType* t = ggml_named(wanted))
    return of_ggml(*t);
  no_such("format of weights", name, storage_names());
}

Storage own_storage(const Json& config, const std::string& file) {
  const ConfigReader r(config, file, ReadFor::sizes);
  if (r.has("quantization_config"))
    return of_quantization(r.in("quantization_config"));
  for (const char* key : {"text_config", "llm_config"}) {
    if (r.has(key))
      return own_storage(r.at(key), concat(file, ", ", key));
  }
  const std::string dtype = r.text(r.has("dtype") ? "dtype" : "torch_dtype", "bfloat16");
  return of_format(dtype == "float32" ? Format::f32 : Format::bf16);
}

Storage own_storage_of_path(const std::string& path) {
  if (const auto gguf = gguf_file_of(path))
    return of_gguf(GgufFile(*gguf));
  std::filesystem::path file = path;
  if (std::filesystem::is_directory(file)) {
    if (!std::filesystem::exists(file / "config.json"))
      file = find_checkpoint(file).path;
    file /= "config.json";
  }
  const Json config = read_json(file, {.python_words = true});
  const Storage said = own_storage(config, file.string());
  const bool quantised = config.contains("quantization_config");
  return quantised ? of_folder(file.parent_path(), said) : said;
}

}  // namespace moe::plan
