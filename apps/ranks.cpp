#include "apps/ranks.h"

#include <time.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <exception>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "apps/arguments.h"
#include "apps/terminal.h"
#include "apps/values.h"
#include "apps/version.h"
#include "lib/backend/on_device.h"
#include "lib/comm/devices.h"
#include "lib/comm/host.h"
#include "lib/comm/launcher.h"
#include "lib/core/error.h"
#include "lib/core/parallel.h"
#include "lib/core/spec.h"
#include "lib/core/text.h"
#include "lib/model/decoder.h"
#include "lib/router/replays_routes.h"
#include "lib/router/router.h"
#include "lib/run/same_on_ranks.h"

namespace moe {
namespace {

struct Ranks {
  std::shared_ptr<Transport> transport, devices;
  std::unique_ptr<Comm> comm;
  std::vector<RankCores> cores;  // (ranks)
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
  o.verb = cli;
}

namespace {

// The program, and the verb's options as they were given or by default.
Json told(const CommandLine& verb) {
  Json options = Json::parse(options_json(verb));
  for (const char* own : {"threads", "device", "patience"})
    options.erase(own);
  return {{"moe", version_short()}, {"options", std::move(options)}};
}

}  // namespace

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
  if (choices.verb)
    require_same_on_ranks(*ranks.comm, {"what ranks are told"}, told(*choices.verb));
  for (const auto& text : ranks.comm->gather<char>({"cores of ranks"}, cores_here().text()))
    ranks.cores.push_back(RankCores::of_text({text.begin(), text.end()}));
  return *ranks.comm;
}

void refuse_ranks(const std::string& what) {
  if (const auto launched = launch()) {
    throw Error(Exit::usage,
                concat(what, " runs in one process, and ", launched->size, " were started"))
        .hint("start it without mpirun or srun; moe train, trace and eval run on several");
  }
}

void refuse_ranks_to_replay(Decoder<float>& model) {
  for (MoeLayer<float>* layer : model.moe_layers()) {
    if (capability<ReplaysRoutes>(layer->router()))
      refuse_ranks("a replay, which follows its trace token by token,");
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
  const std::vector<RankCores>& ranks = opened().cores;
  for (const RankCores& rank : ranks)
    out.push_back(int(std::ranges::find(ranks, rank.host, &RankCores::host) - ranks.begin()));
  return out;
}

int ranks_here() {
  const Ranks& ranks = opened();
  if (ranks.cores.empty())
    return 1;
  const std::string& here = ranks.cores[std::size_t(ranks.comm->rank())].host;
  return int(std::ranges::count(ranks.cores, here, &RankCores::host));
}

void share_threads() {
  const Ranks& ranks = opened();
  if (ranks.cores.empty() || std::getenv("OMP_NUM_THREADS"))
    return;
  const int rank = ranks.comm->rank();
  set_threads(threads_of(ranks.cores, rank));
  const int used = cores_used(ranks.cores, rank);
  const int all = cores_of_launcher();
  if (used < all) {
    note(concat("the launcher binds the ranks of this host to ", used, " of ", all,
                " cores: mpirun --bind-to none lets them use all"));
  }
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

bool speaks_for_all() {
  const std::optional<Launch> launched = launch_or_none();
  return !launched || launched->rank == 0;
}

namespace {

// Variables that are nonsense are those of all processes of the job.
bool may_be_several() {
  try {
    return launch().has_value();
  } catch (const Error&) {
    return true;
  }
}

void nap(long milliseconds) {
  const timespec moment{milliseconds / 1000, milliseconds % 1000 * 1'000'000};
  ::nanosleep(&moment, nullptr);
}

}  // namespace

bool says_error(const std::string& sentence) {
  if (!may_be_several())
    return true;
  // the first rank is to say what it finds, too, and says it for as long as it lives
  for (int waited = 0; !speaks_for_all() && waited < 300; waited += 20) {
    if (is_said(sentence))
      return false;
    nap(20);
  }
  return first_to_say(sentence);
}

void finish_ranks() {
  if (opened().transport)
    opened().transport->finish();
}

void abort_ranks(int code) {
  if (!may_be_several())
    return;
  // MPICH's launcher drops what it has not read yet when a rank ends all: it gets time to read. And
  // others may be about to say the same; before MPI is open nobody ends them.
  nap(opened().transport ? 400 : 1500);
  if (opened().devices)
    opened().devices->end_all(code);
  if (opened().transport)
    opened().transport->end_all(code);
}

bool stop_together(Comm& comm) {
  const bool stop = comm.any({"stop"}, stop_signal() != 0);
  if (stop && stop_signal() == 0)
    std::raise(SIGUSR1);
  return stop;
}

}  // namespace moe
