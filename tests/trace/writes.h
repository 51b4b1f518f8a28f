// Ends the process at the nth call that changes a file, as a kill there would: every state that a
// killed recording can leave is reached, not only those that random moments meet.
#pragma once
#include <sys/mman.h>

#include <functional>
#include <new>

namespace moe::test {

// A value that a child's writes reach, too.
template <class T>
class Shared {
 public:
  Shared()
      : value_(new (::mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                           -1, 0)) T{}) {}
  ~Shared() {
    ::munmap(value_, sizeof(T));
  }
  Shared(const Shared&) = delete;
  Shared& operator=(const Shared&) = delete;
  T& operator*() const {
    return *value_;
  }
  T* operator->() const {
    return value_;
  }

 private:
  T* value_;
};

// Runs the body in a child that dies of SIGKILL before its nth call (from 0) of write, pwrite,
// truncate, ftruncate, rename or unlink. False where the body ended before that, with exit code 0.
bool stopped_at(int nth, const std::function<void()>& body);

// The same calls that the body makes when it may end.
int writes_of(const std::function<void()>& body);

}  // namespace moe::test
