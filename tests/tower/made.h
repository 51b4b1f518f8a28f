// Small multimodal checkpoints of random numbers, a family each: a config.json by hand, and the
// tensors that its encoders ask for.
#pragma once
#include <filesystem>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "lib/files/json.h"
#include "lib/signal/patches.h"
#include "lib/tower/rows.h"

namespace moe::test {

struct Made {
  std::string name;
  Json config;
  std::vector<PictureGrid> grids;  // pictures, and videos where there are some
  Index width = 0;                 // of features
  Index deepstack = 0;
};
std::vector<Made> made_models();
Made made_model(const std::string& name);

Picture picture(int height, int width);  // of three colours, uneven

// Numbers from -scale to scale.
void fill(std::span<double>, std::uint64_t stream, double scale);

// A checkpoint in a folder of its own, which goes with it.
class MadeFolder {
 public:
  explicit MadeFolder(const Made&, bool with_tensors = true);
  MadeFolder(const MadeFolder&) = delete;
  ~MadeFolder();
  const std::filesystem::path& path() const {
    return path_;
  }

 private:
  std::filesystem::path path_;
};

}  // namespace moe::test
