// fork, setrlimit, a pipe: see child.h.
#include "lib/trace/child.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>

#include "lib/core/error.h"
#include "lib/core/parallel.h"

namespace moe {
namespace {

constexpr std::uint64_t memory_limit = 2ull << 30;

struct Answer {  // 'R' result, or 'E' error: code, sentence, hint
  char kind = 0;
  int code = 0;
  std::string text, hint;
};

void send(int fd, const std::string& bytes) {
  for (std::size_t at = 0; at < bytes.size();) {
    const ssize_t n = ::write(fd, bytes.data() + at, bytes.size() - at);
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      ::_exit(1);
    at += std::size_t(n);
  }
}

// Kind, code and the two lengths, then the texts: a message cut short is recognised.
std::string packed(const Answer& a) {
  const std::uint64_t head[4] = {std::uint64_t(a.kind), std::uint64_t(a.code), a.text.size(),
                                 a.hint.size()};
  return std::string(reinterpret_cast<const char*>(head), sizeof head) + a.text + a.hint;
}
bool unpacked(const std::string& bytes, Answer& a) {
  std::uint64_t head[4];
  if (bytes.size() < sizeof head)
    return false;
  std::memcpy(head, bytes.data(), sizeof head);
  if (bytes.size() != sizeof head + head[2] + head[3])
    return false;
  a = {char(head[0]), int(head[1]), bytes.substr(sizeof head, head[2]),
       bytes.substr(sizeof head + head[2])};
  return true;
}

// The child begins with the parent's address space, so the limit is added to it.
void limit_self(std::uint64_t cpu_seconds) {
  std::uint64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  const auto set = [](auto what, std::uint64_t value) {
    const rlimit limit{value, value};
    ::setrlimit(what, &limit);
  };
  set(RLIMIT_AS, pages * std::uint64_t(::sysconf(_SC_PAGESIZE)) + memory_limit);
  set(RLIMIT_CPU, cpu_seconds);
  set(RLIMIT_CORE, 0);
  const int null = ::open("/dev/null", O_WRONLY);
  ::dup2(null, 1);
  ::dup2(null, 2);
  for (const int s : {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL, SIGINT, SIGTERM, SIGPIPE})
    ::signal(s, SIG_DFL);
}

Answer answer_of(const std::function<std::string()>& body) {
  try {
    return {'R', 0, body(), ""};
  } catch (const Error& e) {
    return {'E', int(e.code()), e.what(), e.hint()};
  } catch (const std::bad_alloc&) {
    return {'E', int(Exit::input), "reading it needs more than 2 GiB of memory", ""};
  } catch (const std::exception& e) {
    // such as a length no vector has
    return {'E', int(Exit::input), fmt::format("it is damaged ({})", e.what()), ""};
  }
}

// Everything the child says, until it closes the pipe or the time is over.
std::string listen(int fd, std::chrono::seconds patience) {
  const auto end = std::chrono::steady_clock::now() + patience;
  std::string out;
  char buffer[4096];
  for (;;) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
                          end - std::chrono::steady_clock::now())
                          .count();
    pollfd p{fd, POLLIN, 0};
    const int ready = left <= 0 ? 0 : ::poll(&p, 1, int(std::min<long long>(left, 1000)));
    if (left <= 0)
      return out;
    if (ready <= 0)
      continue;
    const ssize_t n = ::read(fd, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      return out;
    out.append(buffer, std::size_t(n));
  }
}

// Why the child has no answer.
[[noreturn]] void no_answer(const std::filesystem::path& path, int status, std::uint64_t seconds) {
  const int signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  if (signal == SIGXCPU || signal == SIGKILL) {
    throw Error(Exit::input,
                fmt::format("{}: reading it took more than {} s; it is damaged, or made to be slow",
                            path.string(), seconds));
  }
  throw Error(Exit::input,
              fmt::format("{}: it is damaged in a way that crashes the HDF5 library (signal {})",
                          path.string(), signal));
}

}  // namespace

std::string run_apart(const std::filesystem::path& path, const std::function<std::string()>& body) {
  std::error_code none;
  const auto size = std::filesystem::file_size(path, none);
  const std::uint64_t seconds = 60 + (none ? 0 : size >> 24);  // and a second for each 16 MiB
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0)
    throw Error(Exit::environment, fmt::format("cannot make a pipe: {}", std::strerror(errno)));
  const pid_t child = ::fork();
  if (child < 0) {
    ::close(ends[0]);
    ::close(ends[1]);
    throw Error(Exit::environment, fmt::format("cannot start a process to read {} in: {}",
                                               path.string(), std::strerror(errno)));
  }
  if (child == 0) {
    limit_self(seconds);
    set_threads(1);  // the parent's threads are not here
    send(ends[1], packed(answer_of(body)));
    ::_exit(0);
  }
  ::close(ends[1]);
  const std::string said = listen(ends[0], std::chrono::seconds(3 * seconds));
  ::close(ends[0]);
  Answer answer;
  const bool whole = unpacked(said, answer);
  if (!whole)
    ::kill(child, SIGKILL);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (whole && answer.kind == 'R')
    return answer.text;
  if (whole)
    throw Error(Exit(answer.code), answer.text).hint(answer.hint);
  no_answer(path, status, seconds);
}

}  // namespace moe
