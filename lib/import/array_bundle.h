// Named arrays of one file, whatever it is: .npz, .safetensors, a dict of torch.save, or one .npy.
// NAME.3 and the entries of a list or tuple NAME are layers of NAME.
#pragma once
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lib/files/number_array.h"
#include "lib/import/inputs.h"

namespace moe {

struct ArrayGroup {
  std::optional<NumberArray> whole;      // NAME
  std::map<int, NumberArray> by_number;  // NAME.0, NAME.1, ...
  bool listed = false;                   // the numbers count entries of a list
};

class ArrayBundle {
 public:
  explicit ArrayBundle(const ImportFile&);  // throws Error(input) where it is damaged

  const ArrayGroup* find(const std::string& name) const;
  const NumberArray* whole(const std::string& name) const;
  bool has(const std::string& name) const {
    return find(name) != nullptr;
  }
  std::string names() const;  // for sentences
  const std::string& file() const {
    return file_;
  }

 private:
  void add(const std::string& name, NumberArray);
  void add_torch(const PickleValue&);
  void add_list(const std::string& name, const PickleValue&);

  std::map<std::string, ArrayGroup> groups_;
  std::string file_;
};

// An expert's id; -1 = none, which unsigned types of 16 and 32 bits write as all ones.
int expert_id(const NumberArray&, Index place);
// All of them in row-major order, the last axis fastest.
std::vector<std::int32_t> expert_ids(const NumberArray&);

// Names alone, without reading arrays: what a format is recognised by.
bool bundle_names(const ImportFile&, const std::vector<std::string>& wanted);

}  // namespace moe
