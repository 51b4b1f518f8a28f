#include "lib/comm/launcher.h"

#include <dlfcn.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <filesystem>

#include "lib/comm/environment.h"
#include "lib/comm/module.h"
#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {
namespace {

namespace fs = std::filesystem;

// Names of what a launcher tells its processes.
struct Variables {
  const char *kind, *rank, *size, *place;
};
constexpr Variables launchers[] = {
    {"openmpi", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"},
    {"mpich", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"},
    {"openmpi", "PMIX_RANK", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"},
};

int number(const char* name, int least) {
  const std::string text = environment(name);
  int n = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), n);
  if (failed != std::errc() || end != text.data() + text.size() || n < least) {
    throw Error(Exit::environment,
                concat("the launcher's variable ", name, " is '", text, "', which is no number"))
        .hint("mpirun -np 2 moe train ..., or srun --mpi=pmix moe train ...");
  }
  return n;
}

fs::path find_module(const std::string& kind) {
  const std::string file = concat("moe_mpi_", kind, ".so");
  if (const fs::path found = module_file(file); !found.empty())
    return found;
  throw Error(Exit::environment, concat("several processes were started by ", kind,
                                        "'s launcher, and this moe has no ", file))
      .hint(concat("the package moe-", kind, "; where moe is built from source, apt-get install ",
                   kind == "mpich" ? "libmpich-dev mpich" : "libopenmpi-dev openmpi-bin",
                   " and build again; MOE_MPI=openmpi or mpich names another one"));
}

}  // namespace

fs::path module_file(const std::string& name) {
  const fs::path program = fs::read_symlink("/proc/self/exe").parent_path();
  for (const fs::path& folder : {fs::path(environment("MOE_MODULES")), program,
                                 program / ".." / MOE_LIBRARY_FOLDER / "moe"}) {
    if (!folder.empty() && fs::exists(folder / name))
      return folder / name;
  }
  return {};
}

std::optional<Launch> launch() {
  for (const Variables& v : launchers) {
    if (environment(v.rank).empty() || environment(v.size).empty())
      continue;
    Launch out{.kind = v.kind, .rank = number(v.rank, 0), .size = number(v.size, 1)};
    if (!environment(v.place).empty())
      out.place_on_host = number(v.place, 0);
    if (const std::string asked = environment("MOE_MPI"); !asked.empty())
      out.kind = asked;
    if (out.kind != "openmpi" && out.kind != "mpich") {
      throw Error(Exit::environment, concat("MOE_MPI is '", out.kind, "'"))
          .hint("MOE_MPI=openmpi or MOE_MPI=mpich");
    }
    if (out.size == 1)
      return {};
    return out;
  }
  return {};
}

bool is_launched() {
  return std::ranges::any_of(launchers, [](const Variables& v) {
    return !environment(v.rank).empty() && !environment(v.size).empty();
  });
}

std::shared_ptr<Transport> open_transport(const Launch& l) {
  const fs::path path = find_module(l.kind);
  // global: MPI opens plug-ins of its own, which look for its functions
  void* module = ::dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL);
  if (!module) {
    throw Error(Exit::environment, concat("cannot open '", path.string(), "': ", ::dlerror()))
        .hint("is the MPI that moe was built with still installed?");
  }
  const auto open = reinterpret_cast<OpenModule*>(::dlsym(module, open_module_name));
  std::shared_ptr<Transport> transport(open ? open() : nullptr);
  if (!transport)
    throw Error(Exit::environment, concat("'", path.string(), "' gives no ranks"));
  if (transport->size() != l.size || transport->rank() != l.rank) {
    throw Error(Exit::environment, concat("the launcher speaks of rank ", l.rank, " of ", l.size,
                                          ", and ", transport->name(), " of rank ",
                                          transport->rank(), " of ", transport->size()))
        .hint("the launcher must be that of the same MPI; MOE_MPI=openmpi or mpich names it");
  }
  return transport;
}

}  // namespace moe
