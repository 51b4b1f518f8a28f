// Where a run was begun. Its state names the file that it records into; a folder that came from
// elsewhere must not make us write wherever it says, so that a run with a trace outside its folder
// also holds a name of the machine and the user that chose the place.
#pragma once
#include <filesystem>

namespace moe {

// Writes FOLDER/machine.json.
void write_machine(const std::filesystem::path& folder);
// FOLDER/machine.json is of this machine and user. What it holds cannot be guessed from elsewhere
// where the system has an /etc/machine-id; else it is the host's name.
bool is_of_this_machine(const std::filesystem::path& folder);

}  // namespace moe
