// What a test imports: files made here, and the result in a line of text that can be compared.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/import/import.h"
#include "lib/trace/reader.h"
#include "tests/import/folder.h"

namespace moe::test {

using Files = std::map<std::string, std::string>;

struct Imported {
  std::string refusal;  // empty = imported
  ImportResult result;
  std::string routes;     // "layer 1: 3,2 0,1; layer 2: ..." ('-' = none)
  std::string sequences;  // "0+2 2+3": start and length
  std::string tokens;     // ids, '?' = withheld
  std::string weights;    // of the first layer, two decimals

  bool says(const std::string& sentence) const;
};

Imported import_files(const Files&, ImportOptions = {});
std::string stored_zip(const Files&);  // a zip of stored entries
std::string npy(const std::string& type, const std::vector<int>& shape, const std::string& bytes);
template <class T>
std::string bytes_of(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}
std::string base64(const std::string& bytes);

// A pickle written by hand; see pickletools for the operations.
class Pickle {
 public:
  Pickle& whole(std::int64_t v);
  Pickle& text(const std::string&);
  Pickle& none();
  Pickle& list(const std::vector<Pickle>&);
  Pickle& tuple(const std::vector<Pickle>&);
  Pickle& dict(const std::vector<std::pair<Pickle, Pickle>>&);
  // torch._utils._rebuild_tensor_v2 over the storage `key`
  Pickle& tensor(const std::string& type, int key, const std::vector<int>& shape);
  Pickle& raw(const std::string& bytes) {
    bytes_ += bytes;
    return *this;
  }
  std::string file() const {
    return "\x80\x02" + bytes_ + ".";
  }

 private:
  std::string bytes_;
};
// A file of torch.save: the pickle and its storages by key.
std::string torch_file(const Pickle&, const std::vector<std::string>& storages);

}  // namespace moe::test
