// The keys of a GGUF file as config.json has them: numbers in range, a list of one number a layer
// as that number where all are the same, and what only the tensors say. Refusals name file and key.
#pragma once
#include <string>

#include "lib/files/gguf.h"
#include "lib/files/json.h"

namespace moe {

class GgufKeys {
 public:
  // throws Error(input) where the file is no model
  explicit GgufKeys(const GgufFile&);

  const GgufFile& file() const {
    return file_;
  }
  const std::string& architecture() const {
    return architecture_;
  }
  // "block_count" -> "qwen3moe.block_count"
  std::string key(const std::string& name) const {
    return architecture_ + "." + name;
  }
  bool has(const std::string& name) const {
    return file_.has(key(name));
  }
  int whole(const std::string& name) const;  // from 0 to 1e9
  int whole(const std::string& name, int fallback) const;
  double real(const std::string& name) const;  // finite, as short as its float is
  double real(const std::string& name, double fallback) const;
  bool flag(const std::string& name, bool fallback) const;
  std::string text(const std::string& name, const std::string& fallback) const;

  int layers() const;  // without those for multi-token prediction
  bool is_moe(int layer) const;
  int leading_dense() const;  // layers without experts in front of the first with
  // a tensor below a layer: "attn_q.bias"; nullptr where it is absent
  const GgufTensor* tensor(int layer, const std::string& name) const;
  // in some layer
  bool anywhere(const std::string& name) const;
  // outputs of NAME.weight in the first layer that has it; 0 = no layer has
  int outputs(const std::string& name) const;
  Json numbers(const std::string& tensor) const;  // all of a vector
  [[noreturn]] void refuse(const std::string& why, const std::string& hint = "") const {
    file_.refuse(why, hint);
  }

 private:
  const GgufFile& file_;
  std::string architecture_;
};

}  // namespace moe
