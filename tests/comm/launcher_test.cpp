// Who the launcher says this process is.
#include <catch2/catch.hpp>

#include <cstdlib>

#include "lib/comm/launcher.h"
#include "lib/core/error.h"

using namespace moe;

namespace {

constexpr const char* all[] = {"OMPI_COMM_WORLD_RANK",
                               "OMPI_COMM_WORLD_SIZE",
                               "OMPI_COMM_WORLD_LOCAL_RANK",
                               "PMI_RANK",
                               "PMI_SIZE",
                               "MPI_LOCALRANKID",
                               "PMIX_RANK",
                               "SLURM_STEP_NUM_TASKS",
                               "SLURM_LOCALID",
                               "MOE_MPI"};

std::optional<Launch> launched_with(const std::vector<std::pair<const char*, const char*>>& set) {
  for (const char* name : all)
    ::unsetenv(name);
  for (const auto& [name, value] : set)
    ::setenv(name, value, 1);
  return launch();
}

}  // namespace

TEST_CASE("launchers are known by what they set, and one process is no launch") {
  CHECK(!launched_with({}));
  CHECK(!launched_with({{"OMPI_COMM_WORLD_RANK", "0"}, {"OMPI_COMM_WORLD_SIZE", "1"}}));
  const auto open_mpi = launched_with({{"OMPI_COMM_WORLD_RANK", "2"},
                                       {"OMPI_COMM_WORLD_SIZE", "4"},
                                       {"OMPI_COMM_WORLD_LOCAL_RANK", "1"}});
  REQUIRE(open_mpi);
  CHECK(open_mpi->kind == "openmpi");
  CHECK(open_mpi->rank == 2);
  CHECK(open_mpi->size == 4);
  CHECK(open_mpi->place_on_host == 1);
  const auto mpich = launched_with({{"PMI_RANK", "1"}, {"PMI_SIZE", "3"}});
  REQUIRE(mpich);
  CHECK(mpich->kind == "mpich");
  const auto slurm = launched_with({{"PMIX_RANK", "1"}, {"SLURM_STEP_NUM_TASKS", "8"}});
  REQUIRE(slurm);
  CHECK(slurm->kind == "openmpi");
  const auto named = launched_with({{"PMI_RANK", "1"}, {"PMI_SIZE", "3"}, {"MOE_MPI", "openmpi"}});
  REQUIRE(named);
  CHECK(named->kind == "openmpi");
  CHECK_THROWS_WITH(launched_with({{"PMI_RANK", "one"}, {"PMI_SIZE", "3"}}),
                    Catch::Contains("PMI_RANK is 'one'"));
  CHECK_THROWS_WITH(launched_with({{"PMI_RANK", "1"}, {"PMI_SIZE", "3"}, {"MOE_MPI", "intel"}}),
                    Catch::Contains("MOE_MPI is 'intel'"));
  launched_with({});
  CHECK(!is_launched());
  launched_with({{"OMPI_COMM_WORLD_RANK", "0"}, {"OMPI_COMM_WORLD_SIZE", "1"}});
  CHECK(is_launched());
  launched_with({});
}
