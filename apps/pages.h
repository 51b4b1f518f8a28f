// How a program that reads traces holds its memory.
#pragma once
#include <malloc.h>

namespace moe {

// Windows are made and dropped all the time: given back to the system, their pages would be faulted
// in and cleared each time.
inline void keep_pages() {
  ::mallopt(M_MMAP_THRESHOLD, 32 << 20);
  ::mallopt(M_TRIM_THRESHOLD, 512 << 20);
}

}  // namespace moe
