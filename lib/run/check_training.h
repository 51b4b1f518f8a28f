// Is a device right about a whole model: loss and gradients against the definition, ten losses of a
// run that trains, and a run that was saved and resumed against one that was not. What the cases of
// lib/check are for single operations, `moe verify --device` adds to them.
#pragma once
#include <string>
#include <vector>

#include "lib/backend/backend.h"

namespace moe {

struct TrainingVerdict {
  std::string what, of;  // "ten losses"; the model
  // squared error over squared size; for a resumed run how many numbers have other bits
  double error = 0, allowed = 0;
  bool passed = false;
  std::string sentence;  // what is farthest off, or how it failed
};

// Small models that route on the device where it can and on the host, with and without shared
// experts. Writes a checkpoint of some 100 KB below the system's temporary folder and removes it.
std::vector<TrainingVerdict> check_training(Backend<float>& device, Backend<float>& definition);

}  // namespace moe
