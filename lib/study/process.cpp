#include "lib/study/process.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <thread>

#include "lib/files/file.h"

extern char** environ;

namespace moe {
namespace {

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> out;
  for (std::string& t : texts)
    out.push_back(t.data());
  out.push_back(nullptr);
  return out;
}

std::vector<std::string> environment_with(
    const std::vector<std::pair<std::string, std::string>>& more) {
  std::vector<std::string> out;
  for (char** e = environ; *e; ++e) {
    const std::string entry = *e;
    const std::string name = entry.substr(0, entry.find('='));
    bool replaced = false;
    for (const auto& [key, value] : more)
      replaced = replaced || key == name;
    if (!replaced)
      out.push_back(entry);
  }
  for (const auto& [key, value] : more)
    out.push_back(key + "=" + value);
  return out;
}

double seconds_of(const timeval& t) {
  return double(t.tv_sec) + double(t.tv_usec) * 1e-6;
}

// Between fork and exec: only what is safe there.
[[noreturn]] void become(const char* program, char** words, char** environment, int log, int none,
                         int parent) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent)
    ::_exit(127);
  ::dup2(none, 0);
  ::dup2(log, 1);
  ::dup2(log, 2);
  ::execve(program, words, environment);
  ::_exit(127);
}

}  // namespace

double clock_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

int machine_cores() {
  return std::max(1, int(std::thread::hardware_concurrency()));
}

double machine_cpu_seconds() {
  // user, nice, system, idle, iowait, irq, softirq, steal
  std::ifstream in("/proc/stat");
  std::string word;
  in >> word;
  double sum = 0;
  double v = 0;
  for (int i = 0; i < 8 && in >> v; ++i) {
    const bool idle = i == 3 || i == 4;
    sum += idle ? 0 : v;
  }
  return sum / double(::sysconf(_SC_CLK_TCK));
}

Process::Process(const std::string& program, const std::vector<std::string>& words,
                 const std::filesystem::path& log,
                 const std::vector<std::pair<std::string, std::string>>& environment) {
  std::vector<std::string> all = words;
  all.insert(all.begin(), "moe");
  std::vector<std::string> variables = environment_with(environment);
  const std::vector<char*> argv = pointers(all);
  const std::vector<char*> envp = pointers(variables);
  const int out = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (out < 0)
    io_failure("write", log, errno);
  const int none = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  const int parent = ::getpid();
  started_ = clock_seconds();
  pid_ = ::fork();
  if (pid_ == 0)
    become(program.c_str(), const_cast<char**>(argv.data()), const_cast<char**>(envp.data()), out,
           none, parent);
  const int error = errno;
  ::close(out);
  if (none >= 0)
    ::close(none);
  if (pid_ < 0)
    io_failure("start", program, error);
}

Process::Process(Process&& o) noexcept : pid_(std::exchange(o.pid_, -1)), started_(o.started_) {}

Process::~Process() {
  if (pid_ < 0)
    return;
  ::kill(pid_, SIGKILL);
  while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

std::optional<Ended> Process::ended() {
  int status = 0;
  rusage used{};
  if (pid_ < 0 || ::wait4(pid_, &status, WNOHANG, &used) != pid_)
    return std::nullopt;
  pid_ = -1;
  return Ended{.code = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status),
               .seconds = clock_seconds() - started_,
               .cpu_seconds = seconds_of(used.ru_utime) + seconds_of(used.ru_stime),
               .peak_bytes = Index(used.ru_maxrss) * 1024};
}

void Process::ask_to_stop() const {
  if (pid_ > 0)
    ::kill(pid_, SIGTERM);
}

}  // namespace moe
