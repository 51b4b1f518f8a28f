// One list of cases, walked by the tests, by `moe verify --device` and by `moe bench`: each
// prepares the inputs of one operation on the backend it is given, from its own seed, runs it and
// hands back what it wrote.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "lib/backend/backend.h"
#include "lib/backend/difference.h"

namespace moe {

struct Output {
  std::string name;
  Matrix<float> value;
};

// One operation with its inputs in place. run() may be called again and again (then sums that it
// adds to go on growing); results() is for after the first.
struct Trial {
  std::function<void()> run;
  std::function<std::vector<Output>()> results;
};

struct Case {
  std::string operation, shape;  // "grouped_linear", "T=70 H=33 I=17 E=5 K=2 skewed"
  std::function<Trial(Backend<float>&)> prepare;
  // squared error over squared size of each output, against `reference`
  double allowed = 1e-10;
  double flops = 0, bytes = 0;  // of one run; multiply-add = 2
};

// every operation of Backend over plain and awkward shapes, and whole layers; seconds in all
std::vector<Case> cases();
std::vector<Case> bench_cases();  // the same operations at sizes worth timing

std::vector<Output> outcome(const Case&, Backend<float>&);  // prepared, run once

struct Verdict {
  bool passed = false;
  std::string output;  // the one that is farthest off
  Difference difference;
  double allowed = 0;
  // "linear T=1 ...: y: 0.5 instead of 0.25 at (0,3), error 1e-3, allowed 1e-10"
  std::string sentence() const;
  std::string what;  // operation and shape
};
Verdict compare(const Case&, Backend<float>& device, Backend<float>& definition);

}  // namespace moe
