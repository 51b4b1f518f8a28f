// Holds our MoE layer to files of expected values (`moe verify --golden DIR`): one HDF5 file a case
// with every option, parameter and random draw in it, and every output and gradient expected in
// f64. A case runs twice: in f64 on `reference`, which must agree to 1e-10, and in f32 on the
// device asked for, 1e-5; ids, counts and masks must be equal. What our layer cannot express is
// reported as unsupported, by name, and never left out in silence. A case of a mixer runs the same
// way (golden_mixer.h).
#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "lib/backend/backend.h"

namespace moe {

struct GoldenError {  // the worst disagreement of one run
  // largest |a - b| / max(1, max |b|) over the tensors; infinite where a value is NaN
  double error = 0;
  std::string where;  // "grad/experts.up[17]"
};

struct GoldenResult {
  enum class State { passed, failed, unsupported } state = State::passed;
  std::string name;    // of the case
  std::string reason;  // failed: the first disagreement; unsupported: what is not there
  std::optional<GoldenError> f64, f32;  // empty where that run did not take place
};
std::string_view name_of(GoldenResult::State);

// One case file. Throws nothing but Error(memory) and the like: a damaged file is a failed case.
GoldenResult verify_golden_case(const std::filesystem::path& file, Backend<float>& device);

// Every *.h5 of a folder, by name. Throws Error(input) where there is none, Error(usage) for an
// unknown device.
std::vector<GoldenResult> verify_golden(const std::filesystem::path& folder,
                                        const std::string& device = "reference");

}  // namespace moe
