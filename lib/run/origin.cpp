#include "lib/run/origin.h"

#include <fmt/format.h>

#include "lib/core/text.h"
#include "lib/files/file.h"

namespace moe {

std::string weights_xxh3(Decoder<float>& model) {
  const auto parameters = model.parameters();
  std::vector<std::uint64_t> hashes;
  for (const auto* p : parameters) {
    if (!p->stored())
      continue;
    const Matrix<float> values = p->to_host();
    hashes.push_back(hash_bytes(std::as_bytes(std::span(p->name()))));
    hashes.push_back(hash_bytes(std::as_bytes(values.flat())));
  }
  return fmt::format("{:016x}", hash_bytes(std::as_bytes(std::span(hashes))));
}

std::vector<std::string> lineage_of(const LoadedModel& loaded) {
  if (!loaded.state)
    return {};
  std::vector<std::string> out = loaded.state->lineage;
  if (!loaded.state->run_id.empty())
    out.push_back(loaded.state->run_id);
  return out;
}

void describe_origin(TraceHeader& h, const LoadedModel& loaded) {
  if (loaded.state)
    describe_origin(h, *loaded.state);
  h.weights_xxh3 = weights_xxh3(*loaded.model);
  for (TraceLayer& l : h.layers)
    l.trained_top_k = loaded.trained_k;
}

void describe_origin(TraceHeader& h, const RunState& state) {
  h.run_id = state.run_id;
  h.lineage = join(state.lineage, " ");
}

}  // namespace moe
