#include "analysis/metric/halves.h"

#include <map>

#include "analysis/metric/source.h"

namespace moe {

Halves::Halves(const TraceSource& trace) {
  std::map<std::uint16_t, std::uint8_t> next;  // of a domain
  for (const TraceSequence& s : trace.sequences()) {
    std::uint8_t& half = next[s.domain];
    half_.push_back(half);
    half = !half;
  }
}

}  // namespace moe
