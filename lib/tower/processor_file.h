// The settings of processors as published checkpoints keep them: each in a file of its own, or, as
// transformers 5 writes them, all in one.
#pragma once
#include <filesystem>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "lib/files/config_reader.h"

namespace moe {

struct ProcessorFile {
  Json json;
  std::string file;  // where it stands

  ConfigReader reader() const {
    return {json, file};
  }
};

// The object `part` of processor_config.json ("image_processor"), else the first of these files
// that is there; none where the folder has neither.
std::optional<ProcessorFile> processor_file(const std::filesystem::path& folder, const char* part,
                                            std::initializer_list<const char*> files);

}  // namespace moe
