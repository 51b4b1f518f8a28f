// Single values of a GGUF file that describe a model.
#include "lib/family/gguf_keys.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "lib/checkpoint/quant/dequantise.h"
#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/file.h"

namespace moe {
namespace {

constexpr std::int64_t most = 1'000'000'000;
constexpr int most_layers = 10'000;
constexpr Index longest_vector = 1 << 16;

}  // namespace

GgufKeys::GgufKeys(const GgufFile& file)
    : file_(file), architecture_(file.text("general.architecture")) {
  const std::string type = file.text("general.type", "model");
  if (type != "model")
    refuse(concat("is of type ", in_quotes(type), ", which is no model"));
}

int GgufKeys::whole(const std::string& name) const {
  const std::vector<std::int64_t> all = file_.wholes(key(name));
  if (all.empty())
    refuse(concat("has the key ", in_quotes(key(name)), " as an empty list"));
  if (std::ranges::count(all, all[0]) != std::ptrdiff_t(all.size())) {
    refuse(concat("has the key ", in_quotes(key(name)),
                  " with numbers that differ between layers, and this program has one for all"));
  }
  if (all[0] < 0 || all[0] > most) {
    refuse(concat("has the key ", in_quotes(key(name)), " = ", all[0],
                  ", which must be a whole number from 0 to 1e9"));
  }
  return int(all[0]);
}
int GgufKeys::whole(const std::string& name, int fallback) const {
  return has(name) ? whole(name) : fallback;
}

double GgufKeys::real(const std::string& name) const {
  const double v = json_number(float(file_.real(key(name))));
  if (!std::isfinite(v))
    refuse(concat("has the key ", in_quotes(key(name)), " = ", v, ", which is no finite number"));
  return v;
}
double GgufKeys::real(const std::string& name, double fallback) const {
  return has(name) ? real(name) : fallback;
}
bool GgufKeys::flag(const std::string& name, bool fallback) const {
  return file_.flag(key(name), fallback);
}
std::string GgufKeys::text(const std::string& name, const std::string& fallback) const {
  return file_.text(key(name), fallback);
}

int GgufKeys::layers() const {
  const int all = whole("block_count");
  const int next = whole("nextn_predict_layers", 0);
  if (all <= next || all > most_layers) {
    refuse(concat("has the key ", in_quotes(key("block_count")), " = ", all, " beside ", next,
                  " layers for multi-token prediction"),
           concat("from 1 to ", most_layers, " layers that run"));
  }
  return all - next;
}

const GgufTensor* GgufKeys::tensor(int layer, const std::string& name) const {
  return file_.find(concat("blk.", layer, ".", name));
}
bool GgufKeys::is_moe(int layer) const {
  return tensor(layer, "ffn_gate_inp.weight") != nullptr;
}
int GgufKeys::leading_dense() const {
  int n = 0;
  while (n < layers() && !is_moe(n))
    ++n;
  return n;
}
bool GgufKeys::anywhere(const std::string& name) const {
  for (int l = 0; l < layers(); ++l) {
    if (tensor(l, name))
      return true;
  }
  return false;
}
int GgufKeys::outputs(const std::string& name) const {
  for (int l = 0; l < layers(); ++l) {
    const GgufTensor* t = tensor(l, name + ".weight");
    if (t && t->dims.size() >= 2)
      return int(std::min<Index>(t->dims[t->dims.size() - 2], most));
  }
  return 0;
}

Json GgufKeys::numbers(const std::string& tensor) const {
  const GgufTensor& t = file_.at(tensor);
  if (!can_dequantise(*t.type) || t.size() > longest_vector) {
    refuse(concat("has the tensor ", in_quotes(tensor), " as ", t.type->name, " of shape ",
                  text_of(t.dims), ", where a vector of floats is expected"));
  }
  std::vector<float> out(std::size_t(t.size()));
  dequantise(*t.type, file_.bytes(t), out);
  Json list = Json::array();
  for (const float v : out) {
    if (!std::isfinite(v))
      refuse(concat("has numbers that are not finite in the tensor ", in_quotes(tensor)));
    list.push_back(json_number(v));
  }
  return list;
}

}  // namespace moe
