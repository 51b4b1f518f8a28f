// What follows from a header alone.
#include "lib/trace/trace.h"

#include <algorithm>

namespace moe {

int TraceHeader::max_experts() const {
  int most = 0;
  for (const TraceLayer& layer : layers)
    most = std::max(most, layer.experts);
  return most;
}

int TraceHeader::max_choices() const {
  int most = 0;
  for (const TraceLayer& layer : layers)
    most = std::max(most, layer.top_k);
  return most;
}

bool TraceHeader::has_encoder() const {
  return std::ranges::any_of(layers, &TraceLayer::encoder);
}

}  // namespace moe
