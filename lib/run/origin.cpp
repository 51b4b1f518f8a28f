#include "lib/run/origin.h"

#include <fmt/format.h>

#include <algorithm>

#include "lib/core/text.h"
#include "lib/files/file.h"
#include "lib/trace/hash.h"

namespace moe {
namespace {

// Rows at a time: experts in few bits are made for it.
std::uint64_t hash_of_values(const Parameter<float>& p) {
  constexpr Index numbers_at_once = Index(1) << 20;
  const Index rows = p.value().rows;
  const Index at_once = std::max<Index>(1, numbers_at_once / std::max<Index>(1, p.value().cols));
  Matrix<float> some(std::min(rows, at_once), p.value().cols);
  Xxh3 hash;
  for (Index first = 0; first < rows; first += at_once) {
    const View<float> part = some.view().slice(0, std::min(at_once, rows - first));
    p.read(first, part);
    const auto bytes = std::as_bytes(part.flat());
    hash.update({reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()});
  }
  return hash.value();
}

}  // namespace

std::string weights_xxh3(Decoder<float>& model) {
  const auto parameters = model.parameters();
  std::vector<std::uint64_t> hashes;
  for (const auto* p : parameters) {
    if (!p->stored())
      continue;
    hashes.push_back(hash_bytes(std::as_bytes(std::span(p->name()))));
    hashes.push_back(hash_of_values(*p));
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
