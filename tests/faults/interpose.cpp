// A library for LD_PRELOAD that stands between the program and the calls that change files. It
// counts them, ends the process or fails one at the nth, and writes down what each did, so that
// tests/faults/faults.py can rebuild the disk after any number of them.
//
//   MOE_FAULT_ROOT   calls on files whose path begins so count (others pass by)
//   MOE_FAULT_AT     the call that is met, from 0
//   MOE_FAULT_KIND   kill, enospc, eio, eintr, short (a write of half its bytes) or signal:NUMBER
//   MOE_FAULT_STICKY every call from that one on is met
//   MOE_FAULT_COUNT  a file that gets the number of calls when the process ends
//   MOE_FAULT_LOG    a file that gets every call, with the bytes of the writes
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>

namespace {

enum class Fault { none, kill, error, shortened, signal };

struct Plan {
  char root[4096] = "";
  long at = -1;
  Fault kind = Fault::none;
  int number = 0;  // errno, or the signal
  bool sticky = false;
  int log = -1;
  char count[4096] = "";
  long calls = 0;
};

Plan plan;
pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;

template <class F>
F real(const char* name) {
  return reinterpret_cast<F>(dlsym(RTLD_NEXT, name));
}

ssize_t plain_write(int fd, const void* data, size_t bytes) {
  static const auto next = real<ssize_t (*)(int, const void*, size_t)>("write");
  return next(fd, data, bytes);
}
int plain_open(const char* path, int flags, mode_t mode) {
  static const auto next = real<int (*)(const char*, int, ...)>("open");
  return next(path, flags, mode);
}

void take_kind(const char* kind) {
  if (!strcmp(kind, "kill")) {
    plan.kind = Fault::kill;
  } else if (!strcmp(kind, "short")) {
    plan.kind = Fault::shortened;
  } else if (!strncmp(kind, "signal:", 7)) {
    plan.kind = Fault::signal;
    plan.number = atoi(kind + 7);
  } else {
    plan.kind = Fault::error;
    plan.number = !strcmp(kind, "eio") ? EIO : !strcmp(kind, "eintr") ? EINTR : ENOSPC;
  }
}

__attribute__((constructor)) void begin() {
  const char* root = getenv("MOE_FAULT_ROOT");
  if (!root)
    return;
  if (!realpath(root, plan.root))  // it may be made later
    snprintf(plan.root, sizeof plan.root, "%s", root);
  if (const char* at = getenv("MOE_FAULT_AT"))
    plan.at = atol(at);
  if (const char* kind = getenv("MOE_FAULT_KIND"))
    take_kind(kind);
  plan.sticky = getenv("MOE_FAULT_STICKY") != nullptr;
  if (const char* count = getenv("MOE_FAULT_COUNT"))
    snprintf(plan.count, sizeof plan.count, "%s", count);
  if (const char* log = getenv("MOE_FAULT_LOG"))
    plan.log = plain_open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
}

__attribute__((destructor)) void end() {
  if (!plan.count[0])
    return;
  char text[32];
  const int n = snprintf(text, sizeof text, "%ld\n", plan.calls);
  const int fd = plain_open(plan.count, O_WRONLY | O_CREAT | O_TRUNC, 0666);
  if (fd >= 0 && plain_write(fd, text, size_t(n)) < 0)
    _exit(99);
  close(fd);
}

bool below_root(const char* path) {
  const size_t n = strlen(plan.root);
  return n > 0 && !strncmp(path, plan.root, n);
}

// Absolute, without following a last link.
void absolute(int folder, const char* path, char* out) {
  char base[4096] = "";
  if (path[0] != '/') {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    const ssize_t n = folder == AT_FDCWD ? readlink("/proc/self/cwd", base, sizeof base - 1)
                                         : readlink(link, base, sizeof base - 1);
    base[n > 0 ? n : 0] = 0;
    snprintf(out, 4096, "%.2000s/%.2000s", base, path);
  } else {
    snprintf(out, 4096, "%s", path);
  }
}

bool name_of(int fd, char* out) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const ssize_t n = readlink(link, out, 4095);
  out[n > 0 ? n : 0] = 0;
  return n > 0 && below_root(out);
}

// One line, then the bytes of a write.
void log_call(const char* what, long long number, size_t bytes, const char* a, const char* b,
              const void* data) {
  if (plan.log < 0)
    return;
  char line[8400];
  const int n = snprintf(line, sizeof line, "%s %lld %zu %zu %zu\n%s%s", what, number,
                         data ? bytes : 0, strlen(a), strlen(b), a, b);
  if (plain_write(plan.log, line, size_t(n)) != n ||
      (data && plain_write(plan.log, data, bytes) != ssize_t(bytes)))
    _exit(99);
}

// What happens to the call that comes now: 0 goes on, -1 fails with errno set, 1 is cut short.
int met() {
  const long n = plan.calls++;
  if (plan.at < 0 || !(n == plan.at || (plan.sticky && n > plan.at)))
    return 0;
  switch (plan.kind) {
    case Fault::kill:
      kill(getpid(), SIGKILL);
      return 0;
    case Fault::signal:
      kill(getpid(), plan.number);
      return 0;
    case Fault::error:
      errno = plan.number;
      return -1;
    case Fault::shortened:
      return 1;
    default:
      return 0;
  }
}

class Turn {
 public:
  Turn() {
    pthread_mutex_lock(&one_at_a_time);
  }
  ~Turn() {
    pthread_mutex_unlock(&one_at_a_time);
  }
};

// A write of `bytes` at `at` (-1: where the file stands) by `call`.
template <class Call>
ssize_t write_by(int fd, const void* data, size_t bytes, off64_t at, Call call) {
  char name[4096];
  if (!name_of(fd, name))
    return call(bytes);
  const Turn turn;
  const int fate = met();
  if (fate < 0)
    return -1;
  const off64_t where = at >= 0                           ? at
                        : (fcntl(fd, F_GETFL) & O_APPEND) ? lseek64(fd, 0, SEEK_END)
                                                          : lseek64(fd, 0, SEEK_CUR);
  const ssize_t n = call(fate > 0 ? bytes / 2 : bytes);
  if (n > 0)
    log_call("write", where, size_t(n), name, "", data);
  return n;
}

// A call on a file's name by `call`.
template <class Call>
int named(const char* what, long long number, const char* a, const char* b, Call call) {
  if (!below_root(a) && !below_root(b))
    return call();
  const Turn turn;
  if (met() < 0)
    return -1;
  const int r = call();
  const int error = errno;
  if (r >= 0)
    log_call(what, number, 0, a, b, nullptr);
  errno = error;
  return r;
}

template <class Call>
int open_by(int folder, const char* path, int flags, Call call) {
  char name[4096];
  absolute(folder, path, name);
  if (!(flags & (O_CREAT | O_TRUNC)) || (flags & O_ACCMODE) == O_RDONLY)
    return call();
  struct stat there {};
  if (stat(name, &there) == 0 && !(flags & O_TRUNC))
    return call();
  return named(flags & O_TRUNC ? "truncate" : "create", 0, name, "", call);
}

template <class Call>
int sized(int fd, off64_t bytes, Call call) {
  char name[4096];
  return name_of(fd, name) ? named("size", bytes, name, "", call) : call();
}

template <class Call>
int synced(int fd, Call call) {
  char name[4096];
  return name_of(fd, name) ? named("sync", 0, name, "", call) : call();
}

}  // namespace

extern "C" {
ssize_t write(int fd, const void* data, size_t bytes) {
  return write_by(fd, data, bytes, -1, [&](size_t n) { return plain_write(fd, data, n); });
}
ssize_t pwrite(int fd, const void* data, size_t bytes, off_t at) {
  static const auto next = real<ssize_t (*)(int, const void*, size_t, off_t)>("pwrite");
  return write_by(fd, data, bytes, at, [&](size_t n) { return next(fd, data, n, at); });
}
ssize_t pwrite64(int fd, const void* data, size_t bytes, off64_t at) {
  static const auto next = real<ssize_t (*)(int, const void*, size_t, off64_t)>("pwrite64");
  return write_by(fd, data, bytes, at, [&](size_t n) { return next(fd, data, n, at); });
}
int ftruncate(int fd, off_t bytes) noexcept {
  static const auto next = real<int (*)(int, off_t)>("ftruncate");
  return sized(fd, bytes, [&] { return next(fd, bytes); });
}
int ftruncate64(int fd, off64_t bytes) noexcept {
  static const auto next = real<int (*)(int, off64_t)>("ftruncate64");
  return sized(fd, bytes, [&] { return next(fd, bytes); });
}
int truncate(const char* path, off_t bytes) noexcept {
  static const auto next = real<int (*)(const char*, off_t)>("truncate");
  char name[4096];
  absolute(AT_FDCWD, path, name);
  return named("size", bytes, name, "", [&] { return next(path, bytes); });
}
int truncate64(const char* path, off64_t bytes) noexcept {
  static const auto next = real<int (*)(const char*, off64_t)>("truncate64");
  char name[4096];
  absolute(AT_FDCWD, path, name);
  return named("size", bytes, name, "", [&] { return next(path, bytes); });
}
int fsync(int fd) {
  static const auto next = real<int (*)(int)>("fsync");
  return synced(fd, [&] { return next(fd); });
}
int fdatasync(int fd) {
  static const auto next = real<int (*)(int)>("fdatasync");
  return synced(fd, [&] { return next(fd); });
}
int rename(const char* from, const char* to) noexcept {
  static const auto next = real<int (*)(const char*, const char*)>("rename");
  char a[4096];
  char b[4096];
  absolute(AT_FDCWD, from, a);
  absolute(AT_FDCWD, to, b);
  return named("rename", 0, a, b, [&] { return next(from, to); });
}
int renameat2(int x, const char* from, int y, const char* to, unsigned flags) noexcept {
  static const auto next = real<int (*)(int, const char*, int, const char*, unsigned)>("renameat2");
  char a[4096];
  char b[4096];
  absolute(x, from, a);
  absolute(y, to, b);
  return named("rename", flags, a, b, [&] { return next(x, from, y, to, flags); });
}
int unlink(const char* path) noexcept {
  static const auto next = real<int (*)(const char*)>("unlink");
  char a[4096];
  absolute(AT_FDCWD, path, a);
  return named("remove", 0, a, "", [&] { return next(path); });
}
int rmdir(const char* path) noexcept {
  static const auto next = real<int (*)(const char*)>("rmdir");
  char a[4096];
  absolute(AT_FDCWD, path, a);
  return named("remove", 0, a, "", [&] { return next(path); });
}
int remove(const char* path) noexcept {
  static const auto next = real<int (*)(const char*)>("remove");
  char a[4096];
  absolute(AT_FDCWD, path, a);
  return named("remove", 0, a, "", [&] { return next(path); });
}
int unlinkat(int folder, const char* path, int flags) noexcept {
  static const auto next = real<int (*)(int, const char*, int)>("unlinkat");
  char a[4096];
  absolute(folder, path, a);
  return named("remove", 0, a, "", [&] { return next(folder, path, flags); });
}
int mkdir(const char* path, mode_t mode) noexcept {
  static const auto next = real<int (*)(const char*, mode_t)>("mkdir");
  char a[4096];
  absolute(AT_FDCWD, path, a);
  return named("folder", 0, a, "", [&] { return next(path, mode); });
}
int open(const char* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  const mode_t mode = flags & (O_CREAT | O_TMPFILE) ? mode_t(va_arg(rest, int)) : 0;
  va_end(rest);
  return open_by(AT_FDCWD, path, flags, [&] { return plain_open(path, flags, mode); });
}
int open64(const char* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  const mode_t mode = flags & (O_CREAT | O_TMPFILE) ? mode_t(va_arg(rest, int)) : 0;
  va_end(rest);
  return open_by(AT_FDCWD, path, flags,
                 [&] { return plain_open(path, flags | O_LARGEFILE, mode); });
}
}
