// MOE_SIMD makes the compiler write a function three times and the loader choose by what the
// processor can do (levels v3 = AVX2, FMA and popcnt, v4 = AVX-512; naming a processor instead,
// "arch=haswell", would leave AMD's out), while the program stays baseline x86-64. What such a
// function calls must be MOE_INLINE to become fast with it. Not under g++'s sanitizer of threads,
// which would look at what chooses before it has begun itself.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_THREAD__)
#define MOE_SIMD __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define MOE_SIMD
#endif
#define MOE_INLINE inline __attribute__((always_inline))
