#include "lib/study/builtin.h"

#include <algorithm>
#include <filesystem>

#include "lib/core/error.h"
#include "lib/core/registry.h"
#include "lib/core/text.h"
#include "lib/files/file.h"

namespace moe {

namespace {

constexpr Index most_bytes = Index(1) << 20;  // of a study

}  // namespace

const std::vector<BuiltInStudy>& built_in_studies() {
  static const std::vector<BuiltInStudy> all = {
#include "lib/study/studies.inl"
  };
  return all;
}

StudySource study_source(const std::string& given) {
  const auto& all = built_in_studies();
  if (const auto at = std::ranges::find(all, given, &BuiltInStudy::name); at != all.end())
    return {given, std::string(at->text)};
  if (std::filesystem::is_regular_file(given)) {
    const std::filesystem::path path = given;
    return {path.stem().string(), read_file(path, most_bytes)};
  }
  std::vector<std::string> names;
  for (const BuiltInStudy& s : all)
    names.emplace_back(s.name);
  if (given.ends_with(".toml"))
    throw Error(Exit::input, concat("there is no file ", in_quotes(given)))
        .hint("moe study NAME --print > my.toml begins one of your own");
  no_such("study", given, names);
}

}  // namespace moe
