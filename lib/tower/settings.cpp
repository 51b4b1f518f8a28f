#include "lib/tower/settings.h"

#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {

ConfigReader object_in(const ConfigReader& c, const char* key) {
  static const Json nothing = Json::object();
  return c.has(key) ? c.in(key) : c.with(nothing);
}

int size_in(const ConfigReader& c, const char* key, int fallback) {
  const int v = c.whole(key, fallback);
  if (v < 1)
    c.refuse(concat(key, " is ", v, " and must be at least 1"));
  return v;
}

int side_in(const ConfigReader& c, const char* key, int fallback) {
  if (!c.has(key) || !c.at(key).is_array())
    return size_in(c, key, fallback);
  const std::vector<int> sides = c.wholes(key);
  if (sides.empty() || sides[0] < 1)
    c.refuse(concat(key, " is ", c.at(key).dump(), " and must be a number from 1, or equal ones"));
  for (const int s : sides) {
    if (s != sides[0])
      c.refuse(concat(key, " is ", c.at(key).dump(), ": sides that differ are not computed"));
  }
  return sides[0];
}

double vision_theta(const ConfigReader& c, const std::string& type, const EncoderShape& s) {
  const int head = c.whole("head_dim", int(s.hidden / s.heads));
  if (head * s.heads != s.hidden) {
    c.refuse(concat("head_dim is ", head, ", and ", s.heads, " heads of a hidden size of ",
                    s.hidden, " have ", s.hidden / s.heads));
  }
  constexpr double usual = 10000;
  const double plain = c.real("rope_theta", usual);
  const ConfigReader rope = object_in(c, "rope_parameters");
  if (rope.text("rope_type", type) != type) {
    rope.cannot_compute(concat("rope_type of an encoder of pictures is '", rope.text("rope_type"),
                               "' and must be ", type));
  }
  return rope.real("rope_theta", plain);
}

std::optional<int> id_in(const ConfigReader& c, const char* key, std::optional<int> fallback) {
  return c.has(key) ? std::optional(c.whole(key)) : fallback;
}

void ids_around(const ConfigReader& c, const char* before_key, const char* behind_key,
                std::vector<int>& before, std::vector<int>& behind) {
  if (!c.has(before_key) || !c.has(behind_key))
    return;
  before = {c.whole(before_key)};
  behind = {c.whole(behind_key)};
}

int layers_in(const ConfigReader& c, const char* key, int all) {
  const Json& v = c.at(key);
  if (!v.is_number_integer() || v < -1000000 || v > 1000000)
    c.refuse(concat(key, " is ", v.dump(), " and must be the number of one layer"));
  const int said = v;
  const int layers = said < 0 ? all + 1 + said : said;
  if (layers < 0 || layers > all)
    c.refuse(concat(key, " is ", said, " of an encoder of ", all, " layers"));
  return layers;
}

Index text_width(const ConfigReader& root) {
  return root.in("text_config").positive("hidden_size");
}

template <class S>
void check_rows(View<const S> x, std::span<const PictureGrid> grids, const TowerPatches& p) {
  if (grids.empty() || patches_of(grids) != x.rows) {
    throw Error(Exit::input,
                concat(x.rows, " rows of patches, and the pictures have ", patches_of(grids)));
  }
  if (x.cols != p.numbers()) {
    throw Error(Exit::input,
                concat("a row of patches has ", x.cols, " numbers and needs ", p.numbers(), ": ",
                       p.channels, " channels x ", p.times, " frames x ", p.patch, " x ", p.patch));
  }
  for (const PictureGrid& g : grids) {
    if (g.times < 1 || g.rows < 1 || g.columns < 1)
      throw Error(Exit::input, concat("a picture of ", g.times, " x ", g.rows, " x ", g.columns,
                                      " patches has none"));
    const int side = p.side / p.patch;
    if (p.side > 0 && (g.times != 1 || g.rows != side || g.columns != side)) {
      throw Error(Exit::input, concat("a picture of ", g.times, " x ", g.rows, " x ", g.columns,
                                      " patches, and this encoder takes 1 x ", side, " x ", side));
    }
  }
}

template void check_rows(View<const float>, std::span<const PictureGrid>, const TowerPatches&);
template void check_rows(View<const double>, std::span<const PictureGrid>, const TowerPatches&);

}  // namespace moe
