// SGLang's map of physical to logical experts: with redundant experts an id in a dump names a
// replica, and what the model chose is behind this map.
#pragma once
#include <string>

#include "lib/files/number_array.h"
#include "lib/import/inputs.h"
#include "lib/import/sink.h"

namespace moe {

class PhysicalMap {
 public:
  // nullptr: the dump has no map; then ids stay physical, and the trace says so.
  PhysicalMap(const NumberArray* map, ImportSink&);
  // Throws Error(input) for a physical id that the map does not have. -1 stays -1.
  int logical(Index layer, std::int64_t physical, const std::string& where) const;
  // Logical experts; of how many physical ones.
  Index experts(Index physical) const {
    return map_.empty() ? physical : experts_;
  }

 private:
  Matrix<int> map_;  // (layers, physical experts); empty = there is none
  Index experts_ = 0;
};

}  // namespace moe
