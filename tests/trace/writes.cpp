// Stands between the program, libhdf5 and libc: definitions in an executable come before those of
// its libraries.
#include "tests/trace/writes.h"

#include <dlfcn.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <stdexcept>

namespace {

struct Count {
  std::atomic<int> calls = 0;
  int last = -1;
};

Count* counted = nullptr;  // in a child alone

void count_call() {
  if (counted && counted->calls++ == counted->last)
    ::kill(::getpid(), SIGKILL);
}

template <class F>
F next(const char* name) {
  return reinterpret_cast<F>(::dlsym(RTLD_NEXT, name));
}

// The body in a child; its end as waitpid gives it.
int run_counted(Count& count, const std::function<void()>& body) {
  const pid_t pid = ::fork();
  if (pid < 0)
    throw std::runtime_error("no fork");
  if (pid == 0) {
    counted = &count;
    try {
      body();
    } catch (...) {
      ::_exit(1);
    }
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  return status;
}

}  // namespace

extern "C" {
ssize_t write(int fd, const void* data, size_t bytes) {
  static const auto real = next<ssize_t (*)(int, const void*, size_t)>("write");
  count_call();
  return real(fd, data, bytes);
}
ssize_t pwrite(int fd, const void* data, size_t bytes, off_t at) {
  static const auto real = next<ssize_t (*)(int, const void*, size_t, off_t)>("pwrite");
  count_call();
  return real(fd, data, bytes, at);
}
ssize_t pwrite64(int fd, const void* data, size_t bytes, off64_t at) {
  static const auto real = next<ssize_t (*)(int, const void*, size_t, off64_t)>("pwrite64");
  count_call();
  return real(fd, data, bytes, at);
}
int ftruncate(int fd, off_t bytes) noexcept {
  static const auto real = next<int (*)(int, off_t)>("ftruncate");
  count_call();
  return real(fd, bytes);
}
int ftruncate64(int fd, off64_t bytes) noexcept {
  static const auto real = next<int (*)(int, off64_t)>("ftruncate64");
  count_call();
  return real(fd, bytes);
}
int truncate(const char* path, off_t bytes) noexcept {
  static const auto real = next<int (*)(const char*, off_t)>("truncate");
  count_call();
  return real(path, bytes);
}
int truncate64(const char* path, off64_t bytes) noexcept {
  static const auto real = next<int (*)(const char*, off64_t)>("truncate64");
  count_call();
  return real(path, bytes);
}
int rename(const char* from, const char* to) noexcept {
  static const auto real = next<int (*)(const char*, const char*)>("rename");
  count_call();
  return real(from, to);
}
int unlink(const char* path) noexcept {
  static const auto real = next<int (*)(const char*)>("unlink");
  count_call();
  return real(path);
}
}

namespace moe::test {

bool stopped_at(int nth, const std::function<void()>& body) {
  const Shared<Count> count;
  count->last = nth;
  const int status = run_counted(*count, body);
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
    return true;
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
    throw std::runtime_error("the body failed");
  return false;
}

int writes_of(const std::function<void()>& body) {
  const Shared<Count> count;
  if (run_counted(*count, body) != 0)
    throw std::runtime_error("the body failed");
  return count->calls;
}

}  // namespace moe::test
