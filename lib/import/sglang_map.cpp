// Physical ids back to logical ones: see sglang_map.h.
#include "lib/import/sglang_map.h"

#include <algorithm>

#include "lib/core/text.h"

namespace moe {

PhysicalMap::PhysicalMap(const NumberArray* map, ImportSink& sink) {
  if (!map) {
    sink.facts.capture_point = "physical";
    sink.say("ids are physical: the dump has no map to logical experts");
    return;
  }
  map->must_be_whole();
  map->must_have(2, "[layers, physical experts]");
  map_ = Matrix<int>(map->shape[0], map->shape[1]);
  bool identity = true;
  for (Index l = 0; l < map_.rows(); ++l) {
    for (Index e = 0; e < map_.cols(); ++e) {
      const std::int64_t to = map->whole(map->place(l, e));
      if (to < 0 || to >= 65'535)
        map->refuse(concat("maps physical expert ", e, " to ", to), "a map to logical experts");
      map_(l, e) = int(to);
      experts_ = std::max<Index>(experts_, to + 1);
      identity = identity && to == e;
    }
  }
  sink.facts.experts = int(std::max<Index>(sink.facts.experts, experts_));
  if (!identity)
    sink.say(
        "physical ids were mapped back with the last map (physical counts were mapped back "
        "with the last map, too)");
}

int PhysicalMap::logical(Index layer, std::int64_t physical, const std::string& where) const {
  if (physical == -1)
    return -1;
  if (map_.empty())
    return int(std::clamp<std::int64_t>(physical, -2, INT32_MAX));
  if (layer >= map_.rows() || physical < 0 || physical >= map_.cols()) {
    refuse_import(where,
                  concat("has the physical expert ", physical, " in layer ", layer,
                         ", and the map has ", map_.rows(), " layers of ", map_.cols()),
                  "a dump with its own map");
  }
  return map_(layer, physical);
}

}  // namespace moe
