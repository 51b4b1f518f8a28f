// Rows of a trace as bytes, on their way from the rank that computed them to the one that writes.
#pragma once
#include <functional>

#include "lib/core/comm.h"
#include "lib/run/recorder.h"

namespace moe {

class PackedRows {
 public:
  void add(const BatchRows&);
  ConstBytes bytes() const {
    return bytes_;
  }
  // The batches that were added, in their order. Throws Error(bug) for bytes that are none.
  static void for_each(ConstBytes, const std::function<void(const std::vector<SequenceRows>&)>&);

 private:
  std::vector<std::byte> bytes_;
};

}  // namespace moe
