// Which version of the program began a run: another one may compute other bits, and a run that says
// it was resumed should be the run it would have been.
#pragma once
#include <filesystem>
#include <string>

namespace moe {

// `version` is that of this program, "0.1.0 (1b7e364)", and run.json of `folder` names that of the
// beginning. Throws Error(input) where their numbers differ, unless `accept`: then run.json names
// this one from now on. Where the builds alone differ, a sentence that says so; else "".
std::string check_program_version(const std::filesystem::path& folder, const std::string& version,
                                  bool accept);

}  // namespace moe
