#include "lib/comm/host.h"

#include <sched.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <functional>
#include <iterator>
#include <set>
#include <sstream>

#include "lib/comm/environment.h"
#include "lib/core/text.h"

namespace moe {
namespace {

std::vector<int> cores_of(pid_t process) {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> out;
  if (::sched_getaffinity(process, sizeof(set), &set) != 0)
    return out;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (CPU_ISSET(core, &set))
      out.push_back(core);
  }
  return out;
}

bool meet(const std::vector<int>& a, const std::vector<int>& b) {
  return std::ranges::any_of(a, [&](int core) { return std::ranges::find(b, core) != b.end(); });
}

// What all processes of a job on a host have alike and no others.
std::string job() {
  if (const std::string space = environment("PMIX_NAMESPACE"); !space.empty())
    return space;
  if (const std::string slurm = environment("SLURM_JOB_ID"); !slurm.empty())
    return concat(slurm, ".", environment("SLURM_STEP_ID"));
  return concat(::getppid());
}

}  // namespace

std::string RankCores::text() const {
  std::string out = host;
  for (const int core : cores)
    out += concat(" ", core);
  return out;
}

RankCores RankCores::of_text(const std::string& text) {
  std::istringstream in(text);
  RankCores out;
  in >> out.host;
  for (int core = 0; in >> core;)
    out.cores.push_back(core);
  return out;
}

RankCores cores_here() {
  char name[256] = {};
  ::gethostname(name, sizeof(name) - 1);
  return {name, cores_of(0)};
}

int threads_of(const std::vector<RankCores>& ranks, int rank) {
  const RankCores& mine = ranks[std::size_t(rank)];
  const auto sharing = std::ranges::count_if(ranks, [&](const RankCores& other) {
    return other.host == mine.host && meet(other.cores, mine.cores);
  });
  return std::max(1, int(mine.cores.size()) / std::max(1, int(sharing)));
}

int cores_used(const std::vector<RankCores>& ranks, int rank) {
  std::set<int> all;
  for (const RankCores& other : ranks) {
    if (other.host == ranks[std::size_t(rank)].host)
      all.insert(other.cores.begin(), other.cores.end());
  }
  return int(all.size());
}

int cores_of_launcher() {
  if (environment("OMPI_COMM_WORLD_RANK").empty())
    return 0;
  return int(cores_of(::getppid()).size());
}

namespace {

// A name of a socket that lives as long as its process: nothing is left of it.
struct Said {
  explicit Said(const std::string& sentence) : socket(::socket(AF_UNIX, kind, 0)) {
    std::string words;
    std::ranges::copy_if(sentence, std::back_inserter(words),
                         [](unsigned char c) { return !std::isdigit(c); });
    const std::string name =
        concat("moe said ", ::getuid(), " ", job(), " ", std::hash<std::string>()(words));
    const std::size_t length = std::min(name.size(), sizeof(address.sun_path) - 1);
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path + 1, name.data(), length);
    size = socklen_t(offsetof(sockaddr_un, sun_path) + 1 + length);
  }
  const sockaddr* name() const {
    return reinterpret_cast<const sockaddr*>(&address);
  }

  static constexpr int kind = SOCK_DGRAM | SOCK_CLOEXEC;
  int socket;
  sockaddr_un address{};
  socklen_t size = 0;
};

}  // namespace

bool first_to_say(const std::string& sentence) {
  const Said said(sentence);
  if (said.socket < 0 || ::bind(said.socket, said.name(), said.size) == 0)
    return true;
  const bool taken = errno == EADDRINUSE;
  ::close(said.socket);
  return !taken;
}

bool is_said(const std::string& sentence) {
  const Said said(sentence);
  if (said.socket < 0)
    return false;
  const bool lives = ::connect(said.socket, said.name(), said.size) == 0;
  ::close(said.socket);
  return lives;
}

}  // namespace moe
