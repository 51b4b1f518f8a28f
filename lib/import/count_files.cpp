// Tables of counts: see count_files.h.
#include "lib/import/count_files.h"

#include <cmath>

#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {

void say_count_lists(JsonCursor& json, std::int64_t step, ImportSink& sink) {
  int layer = 0;
  std::size_t experts = 0;
  json.elements([&] {
    std::vector<std::int64_t> counts;
    if (json.next() != '[')
      json.refuse(concat("has no list of counts for layer ", layer));
    json.elements([&] {
      if (json.next() == '"')
        json.refuse(concat("has a text in layer ", layer, " where a number should stand"));
      counts.push_back(json.whole());
    });
    if (layer > 0 && counts.size() != experts) {
      json.refuse(concat("has ", counts.size(), " counts in layer ", layer, ", and ", experts,
                         " in the layers before"));
    }
    experts = counts.size();
    if (experts == 0 || layer >= 4096)
      json.refuse(concat("has no counts in layer ", layer, ", or too many layers"));
    sink.counts(step, layer++, counts, json.where());
  });
}

std::int64_t count_at(const NumberArray& a, Index place) {
  if (a.is_whole())
    return a.whole(place);
  const double v = a.real(place);
  if (std::isnan(v))
    a.refuse("has NaN as a count", "counts of tokens");
  if (std::floor(v) != v || std::abs(v) > 1e15)
    a.refuse(concat("has the count ", v, ", which is no whole number"), "counts of tokens");
  return std::int64_t(v);
}

void say_count_array(const NumberArray& a, std::int64_t step, ImportSink& sink) {
  a.must_have(2, "[layers, experts]");
  for (Index l = 0; l < a.shape[0]; ++l) {
    std::vector<std::int64_t> counts;
    for (Index e = 0; e < a.shape[1]; ++e)
      counts.push_back(count_at(a, a.place(l, e)));
    sink.counts(step, int(l), counts, a.name);
  }
}

}  // namespace moe
