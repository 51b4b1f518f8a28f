#include "apps/ranks.h"

#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <exception>
#include <memory>
#include <optional>
#include <utility>

#include "apps/terminal.h"
#include "apps/values.h"
#include "lib/backend/on_device.h"
#include "lib/comm/devices.h"
#include "lib/comm/launcher.h"
#include "lib/core/error.h"
#include "lib/core/parallel.h"
#include "lib/core/spec.h"
#include "lib/core/text.h"

namespace moe {
namespace {

struct Ranks {
  std::shared_ptr<Transport> transport, devices;
  std::unique_ptr<Comm> comm;
};
Ranks& opened() {
  static Ranks ranks;
  return ranks;
}

// Where the variables are nonsense, whoever needs them says so.
std::optional<Launch> launch_or_none() {
  try {
    return launch();
  } catch (const Error&) {
    return {};
  }
}

}  // namespace

void add_patience(CommandLine& cli, RankChoices& o) {
  cli.add_option("--patience", o.patience,
                 "under mpirun or srun: seconds that a rank waits for another before all end")
      .type_name("S")
      .check(real(0.01, 1e9));
}

Comm& open_ranks(const RankChoices& choices) {
  Ranks& ranks = opened();
  if (ranks.comm)
    return *ranks.comm;
  const std::optional<Launch> launched = launch();
  if (!launched) {
    ranks.comm = std::make_unique<Comm>();
    return *ranks.comm;
  }
  ranks.transport = open_transport(*launched);
  ranks.comm = std::make_unique<Comm>(ranks.transport, choices.patience);
  if (!ranks.comm->first())
    be_silent();
  return *ranks.comm;
}

void refuse_ranks(const std::string& what) {
  if (const auto launched = launch()) {
    if (launched->rank > 0) {  // all of them are refused, and the first one says it
      let_first_speak();
      std::exit(int(Exit::usage));
    }
    throw Error(Exit::usage,
                concat(what, " runs in one process, and ", launched->size, " were started"))
        .hint("start it without mpirun or srun; moe train, trace and eval run on several");
  }
}

std::vector<int> nodes_of_ranks(Comm& comm, int ep, int nodes) {
  std::vector<int> out;
  if (nodes > 0) {
    if (ep % nodes != 0) {
      throw Error(Exit::usage, concat("--ep-nodes ", nodes, ": the ", ep,
                                      " ranks of --ep cannot be shared out evenly among them"))
          .hint("a divisor of --ep; or leave it out: then a node is a host");
    }
    for (int r = 0; r < comm.size(); ++r)
      out.push_back(r / ep * nodes + r % ep * nodes / ep);
    return out;
  }
  char name[256] = {};
  ::gethostname(name, sizeof(name) - 1);
  const auto hosts = comm.gather<char>({"hosts of ranks"}, name);
  for (const auto& host : hosts)
    out.push_back(int(std::ranges::find(hosts, host) - hosts.begin()));
  return out;
}

void share_threads() {
  static const int all = threads();
  const std::optional<Launch> launched = launch_or_none();
  if (launched && !std::getenv("OMP_NUM_THREADS"))
    set_threads(std::max(1, all / launched->on_this_host));
}

std::string device_of_rank(const std::string& text) {
  const std::optional<Launch> launched = launch_or_none();
  Spec spec(text);
  if (!launched || spec.name() != "cuda" || spec.has("device"))
    return text;
  const int shown = std::max(1, cuda_devices());
  spec.set("device", concat(launched->place_on_host % shown));
  return spec.given_text();
}

std::string carry_rows_on_devices(Backend<float>& backend, const std::string& text) {
  Ranks& ranks = opened();
  auto* const device = dynamic_cast<OnDevice<float>*>(&backend);
  if (!ranks.comm || ranks.comm->alone() || !device || !device->queue())
    return {};
  Spec spec(device_of_rank(text));
  DevicesOfRanks devices = open_devices(*ranks.comm, spec.get("device", 0), device->queue());
  if (!devices.transport)
    return concat(devices.why_not, ": rows of experts cross through the host's memory");
  ranks.devices = devices.transport;
  ranks.comm->carry_on_devices(std::move(devices.transport));
  return {};
}

void leave_devices() {
  const auto devices = std::exchange(opened().devices, nullptr);
  if (!devices)
    return;
  if (std::uncaught_exceptions() > 0)
    devices->end_all(int(Exit::failed));  // the others may not come
  else
    devices->finish();
}

std::string rank_prefix() {
  const std::optional<Launch> launched = launch_or_none();
  return launched ? concat("rank ", launched->rank, ": ") : "";
}

std::string reached_by_rank(std::string_view sentence) {
  const Comm* const comm = opened().comm.get();
  if (!comm || comm->alone() || sentence.starts_with("step "))
    return "";
  const std::string reached = comm->reached();
  return reached.empty() ? "" : concat(" (", reached, ")");
}

void let_first_speak() {
  const std::optional<Launch> launched = launch_or_none();
  if (!launched || launched->rank == 0)
    return;
  // through MPI the first one ends all at once; else its launcher must notice that it is gone
  const timespec moment = opened().transport ? timespec{0, 300'000'000} : timespec{3, 0};
  ::nanosleep(&moment, nullptr);
}

void finish_ranks() {
  if (opened().transport)
    opened().transport->finish();
}

void abort_ranks(int code) {
  if (!opened().transport)
    return;
  // MPICH's launcher drops what it has not read yet when a rank ends all: it gets time to read.
  const timespec while_it_reads{0, 200'000'000};
  nanosleep(&while_it_reads, nullptr);
  if (opened().devices)
    opened().devices->end_all(code);
  opened().transport->end_all(code);
}

bool stop_together(Comm& comm) {
  const bool stop = comm.any({"stop"}, stop_signal() != 0);
  if (stop && stop_signal() == 0)
    std::raise(SIGUSR1);
  return stop;
}

}  // namespace moe
