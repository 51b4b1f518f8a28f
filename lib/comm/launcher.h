// Which process of a launched job this is (mpirun, srun), and the transport that goes with it. MPI
// is in a module beside the program that is opened only then, so that a program that was started by
// hand needs no MPI.
#pragma once
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "lib/core/comm.h"

namespace moe {

struct Launch {
  std::string kind;  // of the MPI: "openmpi" or "mpich"; MOE_MPI names it where it is not seen
  int rank = 0, size = 1;
  int place_on_host = 0;  // among the processes of the job here
};

// What the launcher says in the environment; nothing where there is none, or one process alone.
// Throws Error(environment) for numbers that cannot be.
std::optional<Launch> launch();
// Whether a launcher started this process, alone or with others.
bool is_launched();

// The file of a module, beside the program or where it was installed; empty where there is none.
std::filesystem::path module_file(const std::string& name);

// Opens the module and MPI with it. Throws Error(environment) where the module was not built or
// cannot be opened, or where MPI sees other ranks than the launcher said.
std::shared_ptr<Transport> open_transport(const Launch&);

}  // namespace moe
