#include "lib/tower/processor_file.h"

namespace moe {

std::optional<ProcessorFile> processor_file(const std::filesystem::path& folder, const char* part,
                                            std::initializer_list<const char*> files) {
  const std::filesystem::path all = folder / "processor_config.json";
  if (std::filesystem::exists(all)) {
    const Json json = read_json(all, {.python_words = true});
    if (json.is_object() && json.contains(part) && json.at(part).is_object())
      return ProcessorFile{json.at(part), all.string()};
  }
  for (const char* name : files) {
    const std::filesystem::path file = folder / name;
    if (std::filesystem::exists(file))
      return ProcessorFile{read_json(file, {.python_words = true}), file.string()};
  }
  return std::nullopt;
}

}  // namespace moe
