// The functions that towers.def names.
#pragma once
#include "lib/tower/tower.h"

namespace moe {

#define TOWER(name, about, make) \
  template <class S>             \
  Towers<S> make(const TowerConfig&, TowerTensors<S>&);
#include "lib/tower/towers.def"
#undef TOWER

// At the end of a family's file.
#define MOE_TOWER_FAMILY(make)                                           \
  template Towers<float> make(const TowerConfig&, TowerTensors<float>&); \
  template Towers<double> make(const TowerConfig&, TowerTensors<double>&);

}  // namespace moe
