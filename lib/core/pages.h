// How a program holds its memory: what is made and dropped all the time, given back to the system,
// would have its pages mapped and cleared anew each time. No-ops where the C library is not glibc.
#pragma once
#include <cstddef>
#include <limits>
#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace moe {

// Blocks below `mapped` bytes come from the heap, of which up to `kept` bytes that nothing uses
// stay with the process.
inline void keep_pages(int mapped, int kept) {
#ifdef __GLIBC__
  ::mallopt(M_MMAP_THRESHOLD, mapped);
  ::mallopt(M_TRIM_THRESHOLD, kept);
#else
  static_cast<void>(mapped);
  static_cast<void>(kept);
#endif
}

// Of a program that reads traces: their windows.
inline void keep_pages_of_windows() {
  keep_pages(32 << 20, 512 << 20);
}
// Of a program that computes: matrices of (tokens, experts) are made in every pass, and clearing
// their pages took half of a layer's time with 4096 experts. All of them together pass 1 GiB.
inline void keep_pages_of_passes() {
  keep_pages(1 << 30, std::numeric_limits<int>::max());
}

}  // namespace moe
